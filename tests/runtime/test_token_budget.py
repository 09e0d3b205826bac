"""A clip's visual tokens before compression, held to a number: in every family, by smaller pictures or by fewer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import earlytom
from earlytom.errors import CompressionError, VideoError
from families import FAMILY_NAMES
from families.processors import video_qa

QUESTION = "what moves here"
BY_PIXELS = ("qwen2_5_vl", "qwen3_vl")
BY_FRAMES = tuple(name for name in FAMILY_NAMES if name not in BY_PIXELS)


def clip(frames: int = 24, height: int = 60, width: int = 90) -> earlytom.Video:
    """Random pictures, one a quarter of a second."""
    pictures = np.random.default_rng(0).integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    return dataclasses.replace(
        earlytom.read_video(pictures),
        indices=tuple(range(0, 3 * frames, 3)),
        timestamps=tuple(place / 4 for place in range(frames)),
        source_frames=3 * frames,
        source_fps=12.0,
        duration=frames / 4,
    )


def spent(qa: earlytom.VideoQA, video: earlytom.Video, max_tokens: int | None) -> earlytom.Answer:
    return qa.ask(video, QUESTION, method="none", max_tokens=max_tokens, max_new_tokens=1)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_no_clip_has_more_tokens_than_its_budget(family) -> None:
    qa, video = video_qa(family), clip()
    whole = spent(qa, video, None).visual_tokens_uncompressed
    for budget in (whole + 1, whole, whole - 1, whole // 2, 48, 17):
        answer = spent(qa, video, budget)
        assert answer.visual_tokens_uncompressed <= budget
        assert (answer.visual_tokens_uncompressed == whole) == (budget >= whole)


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("budget", [None, 10_000])
def test_a_clip_that_fits_is_left_as_it_is(family, budget) -> None:
    qa, video = video_qa(family), clip()
    plain, limited = qa.prepare_inputs(video, QUESTION), qa.prepare_inputs(video, QUESTION, max_tokens=budget)
    assert plain.keys() == limited.keys()
    assert all(torch.equal(plain[name], limited[name]) for name in plain)


@pytest.mark.parametrize("family", BY_PIXELS)
def test_where_pictures_have_no_fixed_size_they_become_smaller_and_stay_as_many(family) -> None:
    qa, video = video_qa(family), clip()
    whole, half = (qa.prepare_inputs(video, QUESTION, max_tokens=budget)["video_grid_thw"][0] for budget in (None, 120))
    assert half[0] == whole[0] == 12
    assert (half[1:] < whole[1:]).all()


@pytest.mark.parametrize("family", BY_PIXELS)
@pytest.mark.parametrize("frames", [1, 3, 5, 7, 12])
@pytest.mark.parametrize("size", [(60, 90), (8, 8), (8, 480), (300, 300)])
def test_odd_numbers_of_frames_and_odd_shapes_keep_to_it_too(family, frames, size) -> None:
    qa, video = video_qa(family), clip(frames, *size)
    for budget in (1, 7, 30, 100):
        grid = qa.prepare_inputs(video, QUESTION, max_tokens=budget)["video_grid_thw"][0]
        assert grid.prod() // 4 <= budget


@pytest.mark.parametrize("family", BY_PIXELS)
def test_the_pictures_are_the_largest_that_fit_and_resized_by_the_processor(family) -> None:
    """The processor with that limit of its own gives the same pixels, and with a limit one pixel higher too many."""
    from earlytom.runtime.preprocessing import preprocess
    from earlytom.runtime.token_budget import fit

    qa, video, budget = video_qa(family), clip(), 120
    fitted = fit(qa.processor, qa.model, lambda clip: qa._prompt(QUESTION, clip), video, budget)
    assert fitted.video is video
    limited = qa.prepare_inputs(video, QUESTION, max_tokens=budget)
    size = fitted.options["size"]
    qa.processor.video_processor.size = size
    assert torch.equal(qa.prepare_inputs(video, QUESTION)["pixel_values_videos"], limited["pixel_values_videos"])
    higher = {"size": {**size, "longest_edge": size["longest_edge"] + 1}}
    grid = preprocess(qa.processor, qa._prompt(QUESTION, video), video, options=higher)["video_grid_thw"][0]
    assert grid.prod() // 4 > budget


@pytest.mark.parametrize("family", BY_PIXELS)
def test_below_a_token_a_grid_frames_are_left_out(family) -> None:
    qa = video_qa(family)
    answer = spent(qa, clip(), 5)
    assert (answer.frames, answer.temporal_grids, answer.visual_tokens_uncompressed) == (10, 5, 5)


@pytest.mark.parametrize("family", BY_FRAMES)
def test_where_pictures_have_one_size_evenly_spread_frames_are_left_out(family) -> None:
    qa, video = video_qa(family), clip()
    answer = spent(qa, video, 100)
    assert (answer.frames, answer.visual_tokens_uncompressed) == (6, 96)
    kept = np.linspace(0, 23, 6, dtype=int)
    source = answer.trace.videos[0].source
    assert source["frame_indices"] == [video.indices[place] for place in kept]
    assert source["frame_timestamps"] == [video.timestamps[place] for place in kept]
    alone = dataclasses.replace(
        video,
        frames=video.frames[kept],
        indices=tuple(video.indices[place] for place in kept),
        timestamps=tuple(video.timestamps[place] for place in kept),
    )
    expected, found = qa.prepare_inputs(alone, QUESTION), qa.prepare_inputs(video, QUESTION, max_tokens=100)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize(("family", "budget", "kept"), [("llava_onevision", 100, 6), ("qwen2_5_vl", 5, 10)])
def test_what_is_told_of_frames_near_those_asked_for_is_told_of_those_that_are_left(family, budget, kept) -> None:
    qa, video = video_qa(family), clip()
    video = dataclasses.replace(
        video, asked=tuple(index + 1 for index in video.indices), deviations=tuple(-place / 100 for place in range(24))
    )
    answer = qa.ask(video, QUESTION, method="none", max_tokens=budget, max_new_tokens=1)
    places = np.linspace(0, 23, kept, dtype=int)
    source = answer.trace.videos[0].source
    assert source["frame_indices"] == [video.indices[place] for place in places]
    assert source["frames_asked"] == [video.asked[place] for place in places]
    assert source["frame_deviations"] == [video.deviations[place] for place in places]


@pytest.mark.parametrize("family", BY_FRAMES)
def test_less_than_one_picture_is_an_error_that_says_how_much_it_takes(family) -> None:
    with pytest.raises(CompressionError, match=r"max_tokens is 15, but .* one alone has 16 .* allowed: at least 16"):
        spent(video_qa(family), clip(), 15)


@pytest.mark.parametrize("budget", [0, -1, 2.5, True, "23000"])
def test_what_is_no_number_of_tokens_is_told_before_the_video_is_read(budget) -> None:
    qa = video_qa("llava_onevision")
    for call in (qa.ask, lambda *args, **options: qa.ask_all(args[0], [args[1]], **options)):
        with pytest.raises(CompressionError, match=r"max_tokens is .*; allowed: None or an integer of at least 1"):
            call("no such video.mp4", QUESTION, max_tokens=budget)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_several_questions_share_the_fitted_clip(family) -> None:
    qa, video = video_qa(family), clip()
    alone = [qa.ask(video, text, max_tokens=100, max_new_tokens=3) for text in (QUESTION, "is there anything else")]
    together = qa.ask_all(video, [QUESTION, "is there anything else"], max_tokens=100, max_new_tokens=3)
    assert [answer.text for answer in together] == [answer.text for answer in alone]
    assert {answer.visual_tokens_uncompressed for answer in (*alone, *together)} == {96}


def test_streaming_takes_it_too() -> None:
    qa, video = video_qa("qwen2_5_vl"), clip()
    expected = qa.ask(video, QUESTION, max_tokens=50, max_new_tokens=4).text
    assert "".join(qa.stream(video, QUESTION, max_tokens=50, max_new_tokens=4)).strip() == expected


def test_a_processor_that_makes_more_than_it_announced_is_told(monkeypatch) -> None:
    qa, video = video_qa("qwen2_5_vl"), clip()
    monkeypatch.setattr(
        type(qa.processor.video_processor), "get_num_of_video_patches", lambda self, frames, *_: 4 * (frames // 2)
    )
    with pytest.raises(CompressionError, match=r"max_tokens is 20, but the processor made 420 visual tokens"):
        spent(qa, video, 20)


@pytest.mark.parametrize("family", BY_PIXELS)
def test_a_shape_that_the_processor_refuses_is_told_as_without_a_budget(family) -> None:
    qa, video = video_qa(family), clip(2, 8, 4000)
    messages = []
    for budget in (None, 50):
        with pytest.raises(VideoError, match="refuses frames of the shape") as raised:
            spent(qa, video, budget)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
