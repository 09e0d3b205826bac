"""The run for a GPU: on a CPU at tiny sizes from end to end, and what becomes of steps that fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from families import family_case

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import _gpu_steps
import gpu
from _gpu_goals import OURS, PUBLISHED, REFERENCE, goals_markdown, judge
from _gpu_inputs import make_frames, make_inputs
from _gpu_steps import PLAN, Step, missing_modules

TINY = ("--device", "cpu", "--size", "tiny")


def test_the_plan_takes_less_than_eight_minutes_whatever_happens() -> None:
    assert sum(step.seconds for step in PLAN.values()) < 8 * 60


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onevision", "video", "qwen", "roofline", "load"])
def test_every_step_runs_at_tiny_sizes(name, tmp_path: Path) -> None:
    assert gpu.main(["--only", name, "--output", str(tmp_path), *TINY]) == 0
    content = json.loads((tmp_path / f"{name}.json").read_text())
    assert content["environment"]["versions"]["torch"] == torch.__version__
    record = gpu.Record(name=name, title=PLAN[name].title, status=gpu.DONE, seconds=1.0)
    gpu.write_summary(tmp_path, content["environment"], [record], "tiny")
    summary, page = json.loads((tmp_path / "summary.json").read_text()), (tmp_path / "README.md").read_text()
    assert summary["steps"][0]["status"] == "done"
    assert f"## {PLAN[name].title}" in page
    expected = {
        "onevision": [
            "none sdpa", "none eager", "earlytom 10%", "earlytom 15%", "earlytom 20%", "earlytom 25%", "visionzip 10%",
            "holitom 10%", "tome 10%", "published 10%",
        ],
        "roofline": ["none sdpa", "earlytom 10%"],
        "load": ["none", "earlytom 10%", "none", "earlytom 10%"],
    }.get(name, ["none sdpa", "earlytom 15%"])  # fmt: skip
    results = content["results"]
    assert [result["name"] for result in results] == expected
    _check_schema(name, content)
    assert all(f"| {method} |" in page or f"Stages of {method}" in page for method in expected)
    judged = {"onevision": 3, "video": 1, "qwen": 1, "roofline": 4, "load": 0}[name]
    # Memory too, where the system tells it.
    assert sum(goal["met"] is not None for goal in summary["goals"]) in (judged, judged + (name == "onevision"))


def _check_schema(name: str, content: dict[str, Any]) -> None:
    """Its own name, and the keys that the documentation tells."""
    if name in ("roofline", "load"):
        assert content["schema"] == f"earlytom.{name}/1"
        return
    assert content["schema"] == "earlytom.bench-gpu/1"
    page = (Path(gpu.__file__).resolve().parents[1] / "docs" / "benchmark_device.md").read_text()
    told = page.partition("earlytom.bench-gpu/1")[2]
    keys = {*content, *content["settings"], *content["clip"], *content["model"]}
    keys |= {key for result in content["results"] for key in (*result, *result["milliseconds"])}
    assert [key for key in sorted(keys) if f"`{key}`" not in told] == []


def test_names_of_the_goals_are_names_of_results() -> None:
    names = {"none sdpa", "earlytom 10%", "published 10%"}
    assert {REFERENCE, OURS, PUBLISHED} == names


@pytest.mark.slow
def test_steps_run_in_processes_of_their_own_and_the_page_tells(tmp_path: Path, capsys) -> None:
    assert gpu.main(["--output", str(tmp_path), "--steps", "load", *TINY]) == 0
    assert "load: rising concurrency\n  done after" in capsys.readouterr().out
    assert "| rising concurrency | done |" in (tmp_path / "README.md").read_text()


@pytest.mark.slow
def test_a_step_that_fails_is_told_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model without values nothing can be measured; a step of no time cannot even begin."""
    (tmp_path / "video.json").write_text("{}")
    monkeypatch.setattr(gpu, "PLAN", {**PLAN, "video": Step(title="too slow", seconds=0, run=_gpu_steps.run_video)})
    assert gpu.main(["--output", str(tmp_path), "--device", "meta", "--size", "tiny", "--steps", "video", "load"]) == 1
    steps = {step["name"]: step for step in json.loads((tmp_path / "summary.json").read_text())["steps"]}
    assert (steps["video"]["status"], steps["video"]["reason"]) == ("out of time", "ended after its 0 s")
    assert steps["load"]["status"] == "failed"
    assert "Error" in steps["load"]["reason"]
    assert "Traceback" in steps["load"]["log"]
    assert not (tmp_path / "video.json").exists()


@pytest.mark.slow
def test_a_bare_interpreter_is_enough(tmp_path: Path) -> None:
    """No decoder, no pictures, no command line: the machine with the GPU may lack them."""
    missing = ("av", "matplotlib", "torchvision", "torchcodec", "PIL", "rich", "typer", "hypothesis")
    script, steps = Path(gpu.__file__), ("onevision", "video", "qwen", "roofline", "load")
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({missing!r})); sys.path.insert(0, {str(script.parent)!r}); "
        f"import gpu; sys.exit(sum(gpu.main(['--only', name, '--output', {str(tmp_path)!r}, *{TINY!r}]) "
        f"for name in {steps!r}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in tmp_path.glob("*.json")} == set(steps)


@pytest.mark.parametrize(
    ("code", "said", "verdict"),
    [
        (0, "", ("done", "")),
        (3, "warning\npytest is not installed", ("skipped", "pytest is not installed")),
        (1, "Traceback\nValueError: no", ("failed", "ValueError: no")),
        (-9, "", ("failed", "exit code -9")),
        (None, "half", ("out of time", "ended after its 60 s")),
    ],
)
def test_what_a_process_says_decides(code, said, verdict) -> None:
    assert gpu._verdict(code, said, 60) == verdict


def test_what_is_missing_is_skipped_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def run(given: object) -> dict[str, Any]:
        import a_package_that_nobody_has

        return {"results": a_package_that_nobody_has}

    monkeypatch.setattr(gpu, "PLAN", {**PLAN, "load": Step(title="load", seconds=9, run=run)})
    assert gpu.main(["--only", "load", "--output", str(tmp_path), *TINY]) == 3
    assert capsys.readouterr().out.strip() == "a_package_that_nobody_has is not installed"
    assert not (tmp_path / "load.json").exists()


def test_imports_of_test_files_are_looked_for(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("import json\nimport nobody_has_it.part\nfrom torch import nn\nfrom nor_this import that\n")
    assert missing_modules(file) == ["nobody_has_it", "nor_this"]
    assert missing_modules(Path(__file__)) == []


def test_without_a_gpu_its_tests_are_skipped_not_passed(tmp_path: Path) -> None:
    run = _gpu_steps.Run(device=torch.device("cpu"), sizes=_gpu_steps.SIZES["tiny"], seconds=60, output=tmp_path)
    with pytest.raises(_gpu_steps.Skipped, match="need a CUDA device, got cpu"):
        _gpu_steps.run_tests(run)


def test_all_files_with_tests_for_a_gpu_are_found() -> None:
    """However the mark is written: on a test, or on one of its parameters."""
    names = {path.name for path in _gpu_steps.gpu_test_files()}
    assert {"test_on_a_gpu.py", "test_caches.py", "test_ceilings.py"} <= names


@pytest.mark.slow
def test_counts_of_tests_are_pytest_s(tmp_path: Path) -> None:
    def ran(*bodies: str) -> dict[str, int]:
        file = tmp_path / "test_some.py"
        marked = "".join(f"@pytest.mark.gpu\ndef test_{name}():\n    {body}\n" for name, body in enumerate(bodies))
        file.write_text(f"import pytest\ndef test_unmarked():\n    raise ValueError\n{marked}")
        return _gpu_steps.run_marked_tests([file], tmp_path / "tests.log")

    assert ran("pass", "pass", "pytest.skip('no')") == {"passed": 2, "skipped": 1}
    assert "2 passed, 1 skipped" in (tmp_path / "tests.log").read_text()
    with pytest.raises(_gpu_steps.Skipped, match=r"no test could run here: \{'skipped': 1\}"):
        ran("pytest.skip('no')")
    with pytest.raises(RuntimeError, match=r"pytest ended with 1, see tests.log: \{'failed': 1, 'passed': 1\}"):
        ran("pass", "raise ValueError")


def test_a_device_that_is_not_there_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main(["--output", str(tmp_path)])
    assert "--device cuda needs a CUDA device" in capsys.readouterr().err


def _result(name: str, ttft: float, processing: float, peak: int) -> dict[str, Any]:
    times = {"ttft": {"median": ttft}, "token_processing": {"median": processing}}
    return {"name": name, "milliseconds": times, "peak_bytes": {"all": peak}}


def _results(ours: float, processing: float = 1.0, ratio: float = 1.2, peak: int = 1 << 30) -> dict[str, Any]:
    plain = _result(REFERENCE, 400.0, 5.0, 2 << 30)
    parts = {
        part: {"ratio": ratio, "measured": ratio, "bound": 1.0, "operations": 7}
        for part in ("vision_encoding", "token_processing", "prefill", "decoding")
    }
    return {
        "onevision": {"results": [plain, _result(OURS, ours, processing, peak), _result(PUBLISHED, 250.0, 5.0, peak)]},
        "video": {"results": [plain, _result("earlytom 15%", ours, processing, peak)]},
        "qwen": {"results": [plain, _result("earlytom 15%", ours, processing, peak)]},
        "roofline": {"results": [{"name": OURS, "parts": parts}]},
    }


def test_goals_are_met_or_missed_by_the_figures() -> None:
    assert [goal.met for goal in judge(_results(ours=90.0))] == [True] * 10
    missed = judge(_results(ours=150.0, processing=6.0, ratio=1.6, peak=3 << 30))
    assert [goal.met for goal in missed] == [False] * 10
    text = goals_markdown(missed)
    assert "2.67x (400.0 to 150.0 ms) | **missed** |" in text
    assert "4.0% (6.00 of 150.0 ms) | **missed** |" in text
    assert "1.60x (1.60 of 1.00 ms, 7 operations)" in text
    assert "3072 MiB against 2048 MiB" in text


def test_goals_without_figures_are_not_judged() -> None:
    assert [goal.met for goal in judge({})] == [None] * 10
    differing = _results(ours=90.0)
    differing["onevision"]["published_differs"] = ["segments"]
    assert [goal.met for goal in judge(differing)] == [True, None, *[True] * 8]
    without_memory = _results(ours=90.0, peak=None)
    assert judge(without_memory)[7].met is None


@pytest.mark.parametrize("family", ["llava_onevision", "llava_video", "qwen2_5_vl"])
def test_inputs_fit_the_stock_model(family) -> None:
    model = family_case(family).build()
    inputs = make_inputs(model, 6, height=24, width=40)
    with torch.no_grad():
        logits = model(**inputs).logits
    assert logits.shape[:2] == inputs["input_ids"].shape
    assert logits.isfinite().all()


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'internvl'"):
        make_inputs(family_case("internvl").build(), 6, height=24, width=40)


def test_patches_are_packed_as_by_the_processor() -> None:
    from transformers import Qwen2VLVideoProcessor

    model = family_case("qwen2_5_vl").build()
    vision = model.config.vision_config
    processor = Qwen2VLVideoProcessor(
        patch_size=vision.patch_size, temporal_patch_size=2, merge_size=2, do_resize=False, do_rescale=False,
        do_normalize=False, do_convert_rgb=False,
    )  # fmt: skip
    frames = make_frames(6, 24, 40, torch.device("cpu"))
    expected = processor([frames], return_tensors="pt", do_sample_frames=False)
    found = make_inputs(model, 6, height=24, width=40)
    assert torch.equal(found["video_grid_thw"], expected["video_grid_thw"])
    assert torch.equal(found["pixel_values_videos"], expected["pixel_values_videos"])


def test_the_clip_has_cuts_still_stretches_and_pans() -> None:
    frames = make_frames(32, 96, 96, torch.device("cpu"))
    steps = (frames[1:] - frames[:-1]).pow(2).mean(dim=(1, 2, 3)).sqrt()
    scene = ["still"] * 3 + ["moves"] * 4
    kinds = ["still" if step < 0.05 else "moves" for step in steps.tolist()]
    assert kinds == [*scene, "moves", *scene, "moves", *scene, "moves", *scene]
    moved = frames[4][:, :, :-24] - frames[3][:, :, 24:]
    assert moved.pow(2).mean().sqrt() < 0.05
    assert torch.equal(frames, make_frames(32, 96, 96, torch.device("cpu")))
