"""Both stages of training on both architectures: they learn, save, go on and leave a checkpoint that answers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import earlytom
from earlytom.testbed import course, train, training_encoder, training_language
from earlytom.testbed.architectures import ARCHITECTURES, Architecture, find_architecture
from earlytom.testbed.checkpoint import load_checkpoint
from earlytom.testbed.optimiser import JointOptimiser, split_parameters
from earlytom.testbed.pool import ClipPool
from earlytom.testbed.progress import StageRecord

CPU = torch.device("cpu")
STEPS = 4
STATE = {"model", "heads", "optimiser", "text_optimiser", "phase", "next_clip"}


@pytest.fixture(params=list(ARCHITECTURES))
def architecture(request: pytest.FixtureRequest) -> Architecture:
    """Return each architecture in turn."""
    return find_architecture(request.param)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes four steps a stage, on few clips, and grows the clip once."""
    monkeypatch.setattr(StageRecord, "progress", property(lambda self: min(1.0, self.step / STEPS)))
    monkeypatch.setattr(training_encoder, "_CLIPS_PER_STEP", 1)
    monkeypatch.setattr(training_encoder.frame_batch, "__defaults__", (1, 1))
    monkeypatch.setattr(training_language, "_FIRST_CLIPS", 2)
    phases = (
        course.Phase(frames=0, clips=0, questions=0, additions=0, gaps=0.0, until=0.25, enough=2.0),
        course.Phase(frames=1, clips=2, questions=3, additions=1, gaps=0.5, until=0.5, enough=2.0),
        course.Phase(frames=16, clips=1, questions=3, additions=1, gaps=0.5, until=1.0, enough=2.0),
    )
    monkeypatch.setattr(train, "FROM_NOTHING", replace(course.FROM_NOTHING, phases=phases, readings=3))


def test_the_encoder_learns_a_repeated_batch(architecture: Architecture) -> None:
    torch.manual_seed(0)
    encoder = architecture.build_encoder()
    architecture.initialise_encoder(encoder)
    heads = training_encoder.DenseHeads(128, architecture.frames_per_grid)
    unlabelled = list(architecture.unlabelled_parameters(encoder))
    optimiser = JointOptimiser(*split_parameters(encoder, heads, skip=unlabelled))
    frames, labels = training_encoder.frame_batch(0, 2, architecture.frames_per_grid)
    losses = []
    for _ in range(8):
        loss, _ = heads.losses(architecture.encode(encoder, frames, CPU), labels)
        torch.autograd.backward(loss)
        optimiser.step(0.3)
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_every_weight_is_trained_by_one_stage_only(architecture: Architecture) -> None:
    processor = architecture.build_processor()
    model = architecture.build_model(processor.tokenizer)
    encoder = architecture.encoder(model)
    late = {id(parameter) for parameter in architecture.unlabelled_parameters(encoder)}
    first = [id(part) for group in split_parameters(encoder, skip=architecture.unlabelled_parameters(encoder))
             for part in group]  # fmt: skip
    trainer = training_language.LanguageTrainer(architecture, model, processor.tokenizer, CPU)
    heads = {id(parameter) for parameter in trainer.heads.parameters()}
    second = [id(parameter) for parameter in trainer.optimiser(1.0)._parameters]
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)
    assert not set(first) & set(second)
    missing = {id(parameter) for parameter in model.parameters()} - set(first) - set(second)
    # The last norm of the SigLIP tower comes behind what the model takes.
    assert missing <= late
    assert len(missing) == (2 if architecture.name == "llava_onevision" else 0)
    assert heads <= set(second)


def test_matrices_of_blocks_and_projector_are_orthogonalised(architecture: Architecture) -> None:
    model = architecture.build_model(architecture.build_processor().tokenizer)
    for module in (architecture.encoder(model), architecture.projector(model), architecture.language_model(model)):
        matrices, others = split_parameters(module)
        wide = [part for part in others if part.ndim == 2]
        assert matrices
        # Only tables remain: words, and learnt places.
        assert all(part is architecture.language_model(model).embed_tokens.weight or len(part) == 144 for part in wide)


@pytest.mark.slow
def test_the_language_model_learns_a_repeated_batch(architecture: Architecture) -> None:
    processor = architecture.build_processor()
    model = architecture.build_model(processor.tokenizer)
    torch.manual_seed(1)
    trainer = training_language.LanguageTrainer(architecture, model, processor.tokenizer, CPU)
    optimiser, texts = trainer.optimiser(1.0), trainer.text_optimiser(0)
    encoder = architecture.encoder(model).eval()
    pool = ClipPool(lambda frames: architecture.encode(encoder, frames, CPU), 4)
    pool.add(2)
    views = pool.draw(2, 4, np.random.default_rng(1))
    batch = trainer.packer.pack(views, 4, np.random.default_rng(1), 0.5)
    reading = trainer.packer.read(4, np.random.default_rng(1))
    before = {name: values.clone() for name, values in model.state_dict().items()}
    video, text = [], []
    for _ in range(5):
        loss, values = trainer.loss(views, batch)
        torch.autograd.backward(loss)
        optimiser.step(0.3)
        video.append(float(loss.detach()))
        with texts.alone(model):
            loss, _ = trainer.reading_loss(reading)
            torch.autograd.backward(loss)
        texts.step(0.3)
        text.append(float(loss.detach()))
    assert video[-1] < 0.8 * video[0]
    assert text[-1] < 0.8 * text[0]
    assert {"loss", "dense", "meant"} <= set(values)
    projector = {id(parameter) for parameter in architecture.projector(model).parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in projector:
            assert not torch.equal(parameter.detach(), before[name]), name


def run(architecture: Architecture, folder: Path, *more: str) -> None:
    """Train from the command line."""
    train.main(["--architecture", architecture.name, "--output", str(folder), "--threads", "1", *more])


def state_of(folder: Path, stage: str) -> dict[str, Any]:
    """Return what a stage saved."""
    state: dict[str, Any] = torch.load(folder / f"{stage}.pt", weights_only=True)
    return state


def same(first: Any, second: Any) -> bool:
    """Tell whether two saved states are equal, tensors included."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return torch.equal(first, second) if isinstance(first, torch.Tensor) else bool(first == second)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_training_runs_installs_and_goes_on(
    architecture: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "package" / "checkpoint"
    installed.parent.mkdir()
    monkeypatch.setattr(type(architecture), "folder", installed)
    monkeypatch.setattr(train, "output_file", lambda kind, name: installed.with_name(f"{kind}_{name}.json"))
    output = tmp_path / "run"
    run(architecture, output, "--install")
    encoder, language = state_of(output, "encoder"), state_of(output, "language")
    assert set(encoder["state"]) == {"tower", "heads", "optimiser"}
    assert set(language["state"]) == STATE
    assert (encoder["step"], language["step"], language["state"]["phase"]) == (STEPS, STEPS, 2)
    assert language["state"]["next_clip"] == 4
    assert (installed.parent / f"training_curve_{architecture.name}.json").is_file()
    for folder in (output / "checkpoint", installed):
        qa = earlytom.VideoQA.load(folder, device="cpu")
        for method in ("none", "earlytom:retention=0.25"):
            assert qa.ask(earlytom.sample_videos()[0], "What is it?", method=method, max_new_tokens=2).new_tokens >= 1
    # The encoder of the checkpoint is the one that the first stage left.
    stored = architecture.encoder(load_checkpoint(installed)[0]).state_dict()
    fixed = {name for name, _ in architecture.build_encoder().named_parameters() if "merger" not in name}
    for name in fixed:
        assert torch.equal(stored[name], encoder["state"]["tower"][name].bfloat16().float()), name
    run(architecture, output, "--resume")
    again = state_of(output, "language")
    assert again["step"] == STEPS
    assert same(again["state"], language["state"])


def test_what_training_starts_from_says_how_it_goes() -> None:
    first, twin = (find_architecture(name) for name in ARCHITECTURES)
    assert train._course(twin, None) is train.FROM_NOTHING
    assert train._course(first, first.folder) is course.FROM_CHECKPOINT
    assert train._course(twin, first.folder) is course.FROM_LANGUAGE_MODEL


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_the_twin_starts_from_the_language_model_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, twin = (find_architecture(name) for name in ARCHITECTURES)
    phases = (course.Phase(frames=4, clips=1, questions=3, additions=1, gaps=0.0, until=1.0, enough=2.0),)
    monkeypatch.setattr(
        train, "FROM_LANGUAGE_MODEL", replace(course.FROM_LANGUAGE_MODEL, phases=phases, readings=3, rate=0.0)
    )
    run(twin, tmp_path, "--start", str(first.folder))
    given, found = load_checkpoint(first.folder)[0], load_checkpoint(tmp_path / "checkpoint")[0]
    encoder = state_of(tmp_path, "encoder")["state"]["tower"]
    for name, weight in first.language_model(given).layers[0].state_dict().items():
        assert torch.equal(weight, twin.language_model(found).layers[0].state_dict()[name]), name
    kept = twin.encoder(found).state_dict()["blocks.0.mlp.gate_proj.weight"]
    assert torch.equal(kept, encoder["blocks.0.mlp.gate_proj.weight"].bfloat16().float())


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_an_interrupted_run_goes_on_where_it_was(
    architecture: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Exception):
        """Stands for the end of the process."""

    saved: list[int] = []

    def stop(record: StageRecord, state: dict[str, Any]) -> None:
        if record.name == "language" and record.step == 3 and not saved:
            record.save(state)
            saved.append(record.step)
            raise Interrupted

    monkeypatch.setattr(StageRecord, "save_if_due", stop)
    with pytest.raises(Interrupted):
        run(architecture, tmp_path)
    before = state_of(tmp_path, "language")
    assert (before["step"], before["finished"]) == (3, False)
    run(architecture, tmp_path, "--resume")
    after = state_of(tmp_path, "language")
    assert (after["step"], after["finished"]) == (STEPS, True)
    assert after["state"]["next_clip"] > before["state"]["next_clip"]
    assert not same(after["state"]["model"], before["state"]["model"])
