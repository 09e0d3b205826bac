"""What processors are given: the frames' times as the file has them, clips of one frame, and frames they refuse."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import earlytom
from conftest import shared
from earlytom.runtime.preprocessing import preprocess
from earlytom.video import Sampling
from families import FAMILY_NAMES
from families.processors import video_qa
from video.clips import make_clip

QUESTION = "what moves here"
# Milliseconds. A screen recording that stands still and then runs, a pause at the end, and a rate that changes.
CLOCKS = {
    "screen": [0, 3000, 6000, *range(9000, 9990, 33)],
    "pause": [*range(0, 1200, 40), 11_000],
    "changing": [i * 40 + i * (i > 20) * 17 for i in range(40)],
}
WAYS = [Sampling(frames=12), Sampling(fps=2), Sampling(frames=7), Sampling(frames=5)]


@pytest.fixture(scope="module", params=[f"{name}.{suffix}" for name in CLOCKS for suffix in ("mkv", "mp4")])
def uneven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("uneven") / request.param
    ticks = CLOCKS[path.stem]
    return make_clip(path, count=len(ticks), ticks=ticks, rate=1000, options={"g": "10", "bf": "2"})


def clocked(times: Sequence[float], **changes: Any) -> earlytom.Video:
    """Frames at these times, from a source that came evenly unless told otherwise."""
    count = len(times)
    video = earlytom.Video(
        frames=np.zeros((count, 48, 48, 3), dtype=np.uint8),
        indices=tuple(range(count)),
        timestamps=tuple(times),
        source_frames=count,
        source_fps=1 / (times[1] - times[0]) if count > 1 else 1.0,
        duration=None,
        decoder="frames",
        source="clocked.mp4",
        decoded=0,
    )
    return dataclasses.replace(video, **changes)


def written_seconds(qa: earlytom.VideoQA, video: earlytom.Video) -> list[str]:
    """The seconds before the temporal grids in Qwen3-VL's prompt."""
    ids = qa.prepare_inputs(video, QUESTION)["input_ids"][0]
    return re.findall(r"<([\d.]+)(?:\[UNK])?seconds>", qa.processor.tokenizer.decode(ids).replace(" ", ""))


def true_seconds(video: earlytom.Video) -> list[str]:
    """The middle of each pair of frames, as Qwen3-VL writes it."""
    times = [*video.timestamps, *video.timestamps[-1:] * (len(video.timestamps) % 2)]
    return [f"{(first + second) / 2:.1f}" for first, second in zip(times[::2], times[1::2], strict=True)]


@pytest.mark.parametrize("sampling", WAYS)
def test_timestamps_in_the_prompt_are_the_files(uneven, sampling) -> None:
    qa = video_qa("qwen3_vl")
    video = qa.read(uneven, sampling)
    assert written_seconds(qa, video) == true_seconds(video)


@pytest.mark.parametrize("sampling", WAYS)
def test_seconds_between_grids_are_those_between_the_frames(uneven, sampling) -> None:
    qa = video_qa("qwen2_5_vl")
    video = qa.read(uneven, sampling)
    step = (video.timestamps[-1] - video.timestamps[0]) / (len(video.timestamps) - 1)
    assert qa.prepare_inputs(video, QUESTION)["second_per_grid_ts"].tolist() == pytest.approx([2 * step])


@pytest.mark.parametrize("sampling", WAYS)
def test_the_instruction_of_llava_video_holds_the_files_times(uneven, sampling) -> None:
    qa = video_qa("llava_video")
    video = qa.read(uneven, sampling)
    written = qa.processor.instruction(video)
    assert [float(text) for text in re.findall(r"([\d.]+)s\b", written)] == [
        pytest.approx(time, abs=0.006) for time in video.timestamps
    ]
    (length,) = re.findall(r"lasts for ([\d.]+) seconds", written)
    last = CLOCKS[uneven.stem][-1] / 1000
    assert last - 0.005 <= float(length) <= last + 0.06


@pytest.mark.parametrize("name", ["screen_vfr.mp4", "vfr.mp4"])
@pytest.mark.parametrize("sampling", WAYS)
def test_times_of_recordings_are_told_as_they_are(name, sampling) -> None:
    path = shared(f"faults/{name}")
    qas = {family: video_qa(family) for family in ("qwen2_5_vl", "qwen3_vl")}
    video = qas["qwen3_vl"].read(path, sampling)
    assert written_seconds(qas["qwen3_vl"], video) == true_seconds(video)
    (seconds,) = qas["qwen2_5_vl"].prepare_inputs(video, QUESTION)["second_per_grid_ts"].tolist()
    step = (video.timestamps[-1] - video.timestamps[0]) / (len(video.timestamps) - 1)
    assert seconds == pytest.approx(2 * step)


def test_a_rate_that_the_container_makes_up_plays_no_part() -> None:
    video = clocked([i / 25 for i in range(12)], source_fps=60_000.0)
    assert written_seconds(video_qa("qwen3_vl"), video) == true_seconds(video)
    inputs = video_qa("qwen2_5_vl").prepare_inputs(video, QUESTION)
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / 25])


def test_a_part_of_a_clip_is_told_as_a_part() -> None:
    video = clocked([5 + i / 4 for i in range(8)], indices=tuple(range(20, 28)), source_frames=400)
    assert written_seconds(video_qa("qwen3_vl"), video)[0] == "5.1"
    inputs = video_qa("qwen2_5_vl").prepare_inputs(video, QUESTION)
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([0.5])


@pytest.mark.parametrize("frames", [4, 5, 16, 33])
def test_where_frames_come_evenly_qwen2_5_vl_gets_what_stock_would_give_it(frames) -> None:
    qa = video_qa("qwen2_5_vl")
    video = qa.read(earlytom.sample_videos()[0], Sampling(frames=frames))
    stock = qa.processor(
        text=[qa.processor.apply_chat_template(_conversation(), add_generation_prompt=True)],
        videos=[video.frames],
        video_metadata=[
            {
                "total_num_frames": video.source_frames,
                "fps": video.source_fps,
                "duration": video.duration,
                "frames_indices": list(video.indices),
            }
        ],
        do_sample_frames=False,
        return_tensors="pt",
    )
    ours = qa.prepare_inputs(video, QUESTION)
    assert ours.keys() == stock.keys()
    assert all(torch.equal(ours[name], value) for name, value in stock.items())


def _conversation() -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTION}]}]


def test_frames_without_a_clock_are_told_as_stock_tells_them() -> None:
    frames = np.zeros((6, 48, 48, 3), dtype=np.uint8)
    inputs = video_qa("qwen2_5_vl").prepare_inputs(video_qa("qwen2_5_vl").read(frames), QUESTION)
    assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / 24])


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 2.0, 1.0), (0.0, 1.0, 1.0), (0.0, 1.0, float("nan"))])
def test_times_that_cannot_be_are_refused(times) -> None:
    video = clocked([0.0, 1.0, 2.0], timestamps=times)
    for family in ("qwen3_vl", "llava_onevision"):
        with pytest.raises(earlytom.VideoError, match=r"clocked\.mp4: its timestamps must be ascending seconds"):
            video_qa(family).prepare_inputs(video, QUESTION)


def test_the_trace_says_when_the_frames_were_taken(tmp_path) -> None:
    qa = video_qa("llava_onevision")
    video = clocked([0.0, 0.5, 1.0, 4.0])
    (clip,) = qa.ask(video, QUESTION, max_new_tokens=1).trace.videos
    assert clip.source["frame_timestamps"] == [0.0, 0.5, 1.0, 4.0]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("method", ["none", "earlytom:retention=0.25", "random:retention=0.5"])
def test_one_frame_works_on_every_family(family, method, tmp_path) -> None:
    qa = video_qa(family)
    for source in (make_clip(tmp_path / "one.mp4", count=1), np.zeros((1, 40, 56, 3), dtype=np.uint8)):
        answer = qa.ask(source, QUESTION, method=method, max_new_tokens=2)
        assert (answer.frames, answer.frames_left) == (1, 1)
        assert (answer.temporal_grids, answer.temporal_grids_left) == (1, 1)
        assert 0 < answer.visual_tokens <= answer.visual_tokens_uncompressed
        assert answer.trace.videos[0].sampled_sources(1) == [[0]]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_a_file_of_one_frame_works_on_every_family(family) -> None:
    qa = video_qa(family)
    assert qa.ask(shared("faults/one.mp4"), QUESTION, max_new_tokens=1).frames == 1
    assert len(qa.ask_all(shared("faults/one.mp4"), [QUESTION, "is there anything else"], max_new_tokens=1)) == 2


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_one_frame_is_what_two_equal_ones_are(family) -> None:
    qa = video_qa(family)
    picture = np.random.default_rng(0).integers(0, 255, (1, 40, 56, 3), dtype=np.uint8)
    one, two = (qa.prepare_inputs(qa.read(frames), QUESTION) for frames in (picture, np.repeat(picture, 2, axis=0)))
    for name in ("pixel_values_videos", "video_grid_thw"):
        assert torch.equal(one[name], two[name])


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("shape", [(4, 2, 480), (1, 240, 1), (3, 3000, 2)])
def test_frames_that_a_processor_refuses_name_the_video_and_the_cause(family, shape) -> None:
    frames = np.zeros((*shape, 3), dtype=np.uint8)
    with pytest.raises(
        earlytom.VideoError, match=rf"<array>: the model's processor refuses .*{shape[1]}, {shape[2]}, 3\): .*200"
    ):
        video_qa(family).ask(frames, QUESTION)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_a_picture_of_240_to_1_names_its_file(family) -> None:
    with pytest.raises(earlytom.VideoError, match=r"wide\.mp4: the model's processor refuses .* ratio .* 240"):
        video_qa(family).ask(shared("faults/wide.mp4"), QUESTION)


@pytest.mark.parametrize("error", [TypeError, RuntimeError, KeyError, ZeroDivisionError, AttributeError, MemoryError])
def test_whatever_a_processor_raises_names_the_video(error) -> None:
    class Broken:
        video_processor = None

        def __call__(self, **_: Any) -> None:
            raise error("x" * 5000)

    with pytest.raises(earlytom.VideoError, match=r"^clocked\.mp4: .* refuses frames") as caught:
        preprocess(Broken(), "", clocked([0.0, 1.0]))
    assert len(str(caught.value)) < 400
    assert isinstance(caught.value.__cause__, error)


def test_a_template_that_fails_is_named() -> None:
    qa = video_qa("qwen3_vl")
    for template in (None, "{{ raise_exception('never') }}", "{{ nobody.knows }}", "{% if %}"):
        qa.processor.chat_template = template
        with pytest.raises(earlytom.ModelError, match="chat template"):
            qa.prepare_inputs(clocked([0.0, 1.0]), QUESTION)
