"""Bar charts of made-up measurements, and a sheet of the sample videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from earlytom import VideoQA
from earlytom.bench.quartiles import Quartiles
from earlytom.bench.reproduce import BARS, bar_subjects, make_folder, make_sheet, write_bars
from earlytom.bench.results import BenchResults, Result, Tokens
from earlytom.errors import EarlyTomError
from earlytom.shipped import sample_videos, shipped_model


@pytest.fixture(scope="module")
def loaded() -> Any:
    return VideoQA.load(shipped_model(), device="cpu")


def made_up(chart: Any, attentions: tuple[str, ...] = ("sdpa", "eager")) -> BenchResults:
    """Every subject takes as long as its retention says."""
    results = []
    for subject in bar_subjects(chart):
        if subject.is_reference and subject.attention not in attentions:
            continue
        ttft = 900.0 if subject.is_reference else 200.0 + 1000 * (subject.retention or 0.0)
        results.append(
            Result(
                name=subject.name,
                method=subject.method.describe(),
                label=subject.label,
                retention=subject.retention,
                attention=subject.attention,
                frames=subject.frames,
                milliseconds={"ttft": Quartiles.of([ttft]), "vision_encoding": Quartiles.of([0.4 * ttft])},
                tokens_per_second=None,
                throughput=None,
                peak_bytes={},
                tokens=Tokens(uncompressed=6272, visual=627, prefill=700, average_per_layer=627, temporal_grids=32),
                waits=None,
                operations=None,
                flops=None,
            )
        )
    model = {"name": "tiny"}
    return BenchResults(environment={"device": "made up"}, settings={}, model=model, clip={}, results=results)


def test_who_is_measured_for_a_bar_chart() -> None:
    subjects = bar_subjects(BARS["figure7"], frames=8)
    assert [subject.name for subject in subjects[:5]] == [
        "none sdpa", "none eager", "visionzip 10%", "holitom 10%", "earlytom 10%"
    ]  # fmt: skip
    assert len(subjects) == 2 + 3 * 4
    assert {subject.frames for subject in subjects} == {8}


def test_a_bar_chart_stands_beside_what_was_published(tmp_path: Path) -> None:
    found = made_up(BARS["figure7"])
    table, lines, files = write_bars(BARS["figure7"], found, tmp_path)
    assert [path.name for path in files] == ["figure7.svg", "figure7.png", "figure7.json", "figure7.md"]
    assert json.loads(files[2].read_text()) == found.to_dict()
    rows = {(cells[0], cells[1]): cells[2:] for cells in table.cells}
    assert rows["EarlyTom", "10%"] == ("300.0", "3.00x", "336.2", "2.65x")
    assert rows["no compression, sdpa", "-"] == ("900.0", "1.00x", "889.9", "1.00x")
    assert "measured here (tiny), and as published, NVIDIA A100 (llava-onevision-7b)" in table.title
    text = files[3].read_text()
    for line in (*lines, "The supplementary: It is up to 2.65x faster than the plain model, at 10%."):
        assert f"- {line}\n" in text
    assert "Here: EarlyTom at 10%: 3.00x over sdpa, 3.00x over eager." in lines


def test_nothing_measured_is_an_error_that_says_why(tmp_path: Path) -> None:
    found = made_up(BARS["figure8"])
    empty = BenchResults(
        environment={}, settings={}, model=found.model, clip={}, results=[],
        left_out=[{"name": "x", "frames": 32, "reason": "the device's memory is too small"}] * 2,
    )  # fmt: skip
    with pytest.raises(EarlyTomError, match=r"for figure8: the device's memory is too small$"):
        write_bars(BARS["figure8"], empty, tmp_path)


def test_a_sheet_of_the_sample_videos(loaded: Any, tmp_path: Path) -> None:
    seen: list[str] = []
    videos = sample_videos()[:2]
    sheet = make_sheet(
        loaded, videos, tmp_path, method="earlytom:frame_merging=false,ranked_by=attention", on_video=seen.append
    )
    assert seen == [path.name for path in videos]
    assert [path.name for path in sheet.files] == ["figure6.svg", "figure6.png", "figure6.md"]
    assert sheet.lines[0].startswith("The supplementary: In all of six videos")
    assert all(line.startswith(f"Here, {name}: of 36 places") for line, name in zip(sheet.lines[1:], seen, strict=True))
    assert "earlytom:" in sheet.files[2].read_text()
    with pytest.raises(EarlyTomError, match="did not look at the attention"):
        make_sheet(loaded, videos[:1], tmp_path, method="uniform")


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EarlyTomError, match="cannot be written"):
        make_folder(tmp_path / "file" / "folder")
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
