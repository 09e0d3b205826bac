"""The test model as Qwen2.5-VL: stock, small, and what training computes is what the stock model computes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

import earlytom
from earlytom.errors import EarlyTomError
from earlytom.testbed.architecture_qwen2_5_vl import (
    TOKENS_PER_SECOND,
    Qwen25VLArchitecture,
    _blocks_from_raster,
    _patches,
    _raster_from_blocks,
    positions_at,
)
from earlytom.testbed.architectures import ARCHITECTURES, find_architecture, output_file
from earlytom.testbed.checkpoint import load_checkpoint, pixels_from_frames, question_prompt, save_checkpoint
from earlytom.testbed.evaluate import answer, evaluate
from earlytom.testbed.pool import View
from earlytom.testbed.scene_types import ByteArray
from earlytom.testbed.scenes import generate_clip
from earlytom.testbed.training_language import LanguageTrainer

CPU = torch.device("cpu")
Loaded = tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]
ARCHITECTURE = Qwen25VLArchitecture()


@pytest.fixture(scope="module")
def untrained() -> Loaded:
    """Return the model with random weights that do not all agree, and its processor."""
    processor = ARCHITECTURE.build_processor()
    model = ARCHITECTURE.build_model(processor.tokenizer, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3.0)
    return model.eval(), processor


@pytest.fixture(scope="module")
def folder(untrained: Loaded, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint folder of the untrained model."""
    place = tmp_path_factory.mktemp("twin") / "checkpoint"
    save_checkpoint(*untrained, place)
    return place


def inputs_of(processor: Qwen2_5_VLProcessor, frames: ByteArray, question: str, seconds: float) -> dict:
    """Return the processor's output for frames that lie ``seconds`` / 2 apart."""
    times = {"total_num_frames": len(frames), "fps": 2 / seconds, "frames_indices": list(range(len(frames)))}
    return processor(
        text=[question_prompt(processor, question)],
        videos=[frames],
        video_metadata=[times],
        do_sample_frames=False,
        return_tensors="pt",
    )


def cuts_seconds(model: Qwen2_5_VLForConditionalGeneration) -> bool:
    """Tell whether this version of transformers makes whole seconds of the time between grids."""
    kinds = torch.full((1, 2 * 36), 2, dtype=torch.int32)
    positions, _ = model.model.get_rope_index(
        torch.zeros(1, 2 * 36, dtype=torch.int64),
        mm_token_type_ids=kinds,
        video_grid_thw=torch.tensor([[2, 12, 12]]),
        second_per_grid_ts=torch.tensor([0.75]),
    )
    return int(positions[0, 0, -1]) == int(positions[0, 0, 0])


def test_the_folder_is_small_and_stock(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000_000
    model, processor = load_checkpoint(folder)
    assert type(model) is Qwen2_5_VLForConditionalGeneration
    assert type(processor) is Qwen2_5_VLProcessor
    vision = model.config.vision_config
    assert (vision.depth, vision.window_size, list(vision.fullatt_block_indexes)) == (8, 48, [1, 3, 5, 7])
    assert vision.tokens_per_second == TOKENS_PER_SECOND
    assert model.dtype == torch.float32


def test_its_words_are_those_of_the_first_model() -> None:
    words = [set(known.build_processor().tokenizer.get_vocab()) for known in ARCHITECTURES.values()]
    special = {word for word in words[0] ^ words[1]}
    visual = {"<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"}
    assert special == {"<image>", "<video>"} | visual


def test_the_prompt_mirrors_that_of_the_first_model(untrained: Loaded) -> None:
    first = find_architecture("llava_onevision").build_processor()
    text = question_prompt(first, "What colour is it?")
    assert question_prompt(untrained[1], "What colour is it?") == text.replace(
        "<video>", "<|vision_start|><|video_pad|><|vision_end|>"
    )


@pytest.mark.parametrize("size", [48, 80, 90, 96, 100, 112, 128, 224, 336, 360, 384, 720])
def test_a_square_video_of_any_size_becomes_six_by_six_tokens(untrained: Loaded, size: int) -> None:
    frames = np.zeros((2, size, size, 3), dtype=np.uint8)
    inputs = inputs_of(untrained[1], frames, "What?", 0.5)
    assert inputs["video_grid_thw"].tolist() == [[1, 12, 12]]


def test_the_samples_become_288_tokens(untrained: Loaded) -> None:
    qa = earlytom.VideoQA(*untrained)
    assert qa.default_frames == 16
    for path in earlytom.sample_videos():
        inputs = qa.prepare_inputs(qa.read(path), "What colour is the circle?")
        assert inputs["video_grid_thw"].tolist() == [[8, 12, 12]]
        assert int((inputs["input_ids"] == qa.model.config.video_token_id).sum()) == 8 * 36
        assert float(inputs["second_per_grid_ts"]) == pytest.approx(0.75)


def test_text_alone_and_an_image_do_not_crash(untrained: Loaded) -> None:
    model, processor = untrained
    plain = processor.apply_chat_template([{"role": "user", "content": "Hello there?"}], add_generation_prompt=True)
    assert model.generate(**processor(text=plain, return_tensors="pt"), max_new_tokens=2).shape[0] == 1
    picture = Image.fromarray(generate_clip(945_000_001)[0][0]).resize((300, 200))
    content = [{"type": "image"}, {"type": "text", "text": "How many objects are there?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=prompt, images=picture, return_tensors="pt")
    assert model.generate(**inputs, max_new_tokens=2).shape[0] == 1


def test_training_sees_the_patches_and_features_of_the_stock_model(untrained: Loaded) -> None:
    model, processor = untrained
    frames, _ = generate_clip(945_000_002)
    inputs = inputs_of(processor, frames, "What?", 0.5)
    assert torch.allclose(_patches(pixels_from_frames(frames, CPU)), inputs["pixel_values_videos"], atol=1e-5)
    with torch.no_grad():
        stock = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"]).pooler_output
        features = ARCHITECTURE.encode(model.model.visual, frames, CPU)
        tokens = ARCHITECTURE.clip_embeddings(model, features[None])[0]
    assert features.shape == (8, 144, 128)
    assert torch.allclose(tokens, torch.cat(list(stock)), atol=1e-4)


def test_patches_leave_the_encoder_in_raster_order() -> None:
    raster = torch.arange(144)[None, :, None]
    blocks = _blocks_from_raster(raster)[0, :, 0].tolist()
    assert blocks[:8] == [0, 1, 12, 13, 2, 3, 14, 15]
    assert torch.equal(_raster_from_blocks(_blocks_from_raster(raster)), raster)
    # The first token of the language model is made of the four patches in the upper left corner.
    frames = np.zeros((2, 96, 96, 3), dtype=np.uint8)
    frames[:, :16, :16] = 255
    bright = _patches(pixels_from_frames(frames, CPU)).mean(dim=1) > 0
    assert bright.nonzero().flatten().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seconds", [0.1, 0.2421875, 0.75, 1.0, 1.5, 6.0])
def test_positions_equal_stock(untrained: Loaded, seconds: float) -> None:
    model, processor = untrained
    frames, _ = generate_clip(945_000_003)
    inputs = inputs_of(processor, frames, "What colour is the circle?", seconds)
    stock, _ = model.model.get_rope_index(
        inputs["input_ids"],
        mm_token_type_ids=inputs["mm_token_type_ids"],
        video_grid_thw=inputs["video_grid_thw"],
        second_per_grid_ts=inputs["second_per_grid_ts"],
    )
    mine = positions_at(8, float(int(seconds)) if cuts_seconds(model) else seconds)
    assert np.array_equal(stock[:, 0, : mine.shape[1]].numpy(), mine)
    rest = mine[0, -1] + 1 + np.arange(stock.shape[2] - mine.shape[1])
    assert np.array_equal(stock[:, 0, mine.shape[1] :].numpy(), np.tile(rest, (3, 1)))


def test_the_seconds_between_grids_vary_and_cover_what_is_asked() -> None:
    generator = np.random.default_rng(0)
    steps = [int(ARCHITECTURE.prefix_positions(8, generator, 0.0)[0].max()) - 3 for _ in range(300)]
    # At 0, 0.08 (bare frames), 0.24 (clips of the benchmark) and 0.75 seconds (the samples).
    for seconds in (0.0, 1 / 12, 0.2421875, 0.75):
        reached = int(positions_at(8, seconds)[0].max()) - 3
        assert reached in steps
    assert len(set(steps)) > 15


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("seconds", [1.0, 6.0])
def test_packed_questions_give_the_logits_of_stock_generation(
    name: str, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = find_architecture(name)
    monkeypatch.setattr("earlytom.testbed.packing._UNKNOWN_SHARE", 0.0)
    if name == "qwen2_5_vl":
        monkeypatch.setattr(type(architecture), "prefix_positions", lambda self, grids, *rest: positions_at(8, seconds))
    processor = architecture.build_processor()
    model = architecture.build_model(processor.tokenizer, seed=5).eval()
    frames, truth = generate_clip(945_000_003)
    trainer = LanguageTrainer(architecture, model, processor.tokenizer, CPU)
    with torch.no_grad():
        view = View(architecture.encode(architecture.encoder(model), frames, CPU), truth)
        batch = trainer.packer.pack([view], 6, np.random.default_rng(3), gaps=0.0)
        packed = trainer.answer_logits(trainer.hidden_states(batch)[-1], batch)
        blocks = trainer.packer._blocks(truth, 6, np.random.default_rng(3))
    assert {block.question.letters for block in blocks} == {True, False}
    for number, block in enumerate(blocks):
        expected = block.tokens[-block.answer_length :]
        inputs = inputs_of(processor, frames, block.question.text, seconds)
        length = inputs["input_ids"].shape[1]
        output = model.generate(
            **inputs,
            max_new_tokens=len(expected),
            prefix_allowed_tokens_fn=lambda _, ids, wanted=expected, start=length: [wanted[len(ids) - start]],
            output_logits=True,
            return_dict_in_generate=True,
        )
        assert output.sequences[0, length:].tolist() == expected
        mine = packed[batch.question == number]
        assert torch.allclose(mine, torch.cat(output.logits), atol=1e-3)
        assert float(mine.std()) > 0.1


def test_the_checkpoint_answers_through_the_pipeline(folder: Path) -> None:
    qa, path = earlytom.VideoQA.load(folder, device="cpu"), earlytom.sample_videos()[0]
    plain = qa.ask(path, "What colour is the circle?", method="none", max_new_tokens=3)
    short = qa.ask(path, "What colour is the circle?", method="earlytom:retention=0.25", max_new_tokens=3)
    assert (plain.visual_tokens, short.visual_tokens) == (288, 72)
    assert plain.new_tokens >= 1
    assert short.new_tokens >= 1


def test_evaluation_asks_as_the_pipeline_does(untrained: Loaded) -> None:
    model, processor = untrained
    frames, _ = generate_clip(945_000_004)
    qa, questions = earlytom.VideoQA(model, processor), ["What colour is the circle?", "How many objects are there?"]
    told = answer(model, processor, frames, questions)
    video = replace(qa.read(frames), source_fps=8.0)
    asked = [qa.ask(video, question, method="none", max_new_tokens=4).text.lower() for question in questions]
    assert told == asked


def test_files_of_measurements_are_kept_apart() -> None:
    assert output_file("metrics", "llava_onevision").name == "metrics.json"
    assert output_file("metrics", "qwen2_5_vl").name == "metrics_qwen2_5_vl.json"
    with pytest.raises(EarlyTomError, match="architecture must be one of llava_onevision, qwen2_5_vl, got 'other'"):
        find_architecture("other")


def test_the_shipped_model_is_named_by_its_architecture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, architecture in ARCHITECTURES.items():
        assert earlytom.shipped._TESTBED / earlytom.shipped._MODELS[name] == architecture.folder
    assert earlytom.shipped_model() == find_architecture("llava_onevision").folder
    with pytest.raises(EarlyTomError, match="architecture must be one of llava_onevision, qwen2_5_vl, got 'other'"):
        earlytom.shipped_model("other")
    monkeypatch.setattr("earlytom.shipped._TESTBED", tmp_path)
    with pytest.raises(EarlyTomError, match=r"'qwen2_5_vl' is not in this installation: .*checkpoint_qwen2_5_vl"):
        earlytom.shipped_model("qwen2_5_vl")
    (tmp_path / "checkpoint_qwen2_5_vl").mkdir()
    (tmp_path / "checkpoint_qwen2_5_vl" / "config.json").write_text("{}")
    assert earlytom.shipped_model("qwen2_5_vl") == tmp_path / "checkpoint_qwen2_5_vl"


def test_the_shipped_twin_answers_and_survives_compression() -> None:
    folder = earlytom.shipped_model("qwen2_5_vl")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 12_000_000
    measured = evaluate(*load_checkpoint(folder), clips=8, blind_clips=0)
    untaught = ARCHITECTURE.build_processor()
    chance = evaluate(ARCHITECTURE.build_model(untaught.tokenizer).eval(), untaught, clips=1, blind_clips=0)
    assert measured["average"]["free"] > 0.8
    assert measured["average"]["letters"] > 0.8
    assert chance["average"]["free"] < 0.2


@pytest.mark.parametrize(("method", "tokens", "least"), [("none", 288, 16), ("earlytom:retention=0.25", 72, 14)])
def test_the_shipped_twin_answers_questions_about_the_samples(method: str, tokens: int, least: int) -> None:
    """The samples were chosen for the other test model, which answers all 18."""
    qa = earlytom.VideoQA.load(earlytom.shipped_model("qwen2_5_vl"), device="cpu")
    right = 0
    for video in earlytom.sample_videos():
        asked = [question for question in earlytom.sample_questions() if question.video == video]
        answers = qa.ask_all(video, [question.question for question in asked], method=method)
        right += sum(answer.text == question.answer for answer, question in zip(answers, asked, strict=True))
        assert {answer.visual_tokens for answer in answers} == {tokens}
    assert right >= least
