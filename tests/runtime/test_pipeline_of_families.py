"""From a file to an answer with the stock processors of the families."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import earlytom
from earlytom.video import Sampling
from families import FAMILY_NAMES
from families.processors import video_qa

PAIRED = ["qwen2_5_vl", "qwen3_vl"]


@pytest.mark.parametrize("family", PAIRED)
def test_a_file_is_answered_and_the_model_is_told_when_the_frames_were_taken(family) -> None:
    qa, path = video_qa(family), earlytom.sample_videos()[0]
    video = qa.read(path, Sampling(frames=12))
    inputs = qa.prepare_inputs(video, "what moves here")
    grids = int(inputs["video_grid_thw"][0, 0])
    assert grids == 6
    if family == "qwen2_5_vl":
        rate = len(video.indices) / video.source_frames * video.source_fps
        assert inputs["second_per_grid_ts"].tolist() == pytest.approx([2 / rate])
    else:
        written = qa.processor.tokenizer.decode(inputs["input_ids"][0])
        pairs = [(video.indices[i] + video.indices[i + 1]) / 2 / video.source_fps for i in range(0, 12, 2)]
        for seconds in pairs:
            assert " . ".join(f"{seconds:.1f}".split(".")) in written.replace("  ", " ")
    plain = qa.ask(video, "what moves here", method="none", max_new_tokens=4)
    short = qa.ask(video, "what moves here", method="earlytom:retention=0.25", max_new_tokens=4)
    assert plain.visual_tokens == plain.visual_tokens_uncompressed == int(inputs["video_grid_thw"][0].prod()) // 4
    assert short.visual_tokens == short.trace.videos[0].budget < plain.visual_tokens
    assert (short.frames, short.temporal_grids) == (12, grids)
    assert short.ttft > 0


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_several_questions_about_one_clip_equal_single_ones(family) -> None:
    qa, path = video_qa(family), earlytom.sample_videos()[0]
    video, questions = qa.read(path, Sampling(frames=12)), ["what moves here", "is there anything else"]
    options = {"method": "earlytom:retention=0.25", "max_new_tokens": 4}
    together = qa.ask_all(video, questions, **options)
    assert [answer.text for answer in together] == [qa.ask(video, question, **options).text for question in questions]


@pytest.mark.parametrize("family", FAMILY_NAMES)
@pytest.mark.parametrize("frames", [12, 1])
def test_a_clip_that_is_asked_about_twice_is_encoded_once(family, frames) -> None:
    qa, encoded = video_qa(family), []
    video = qa.read(earlytom.sample_videos()[0], Sampling(frames=frames))
    base = qa.model.model
    embedding = base.visual.patch_embed if hasattr(base, "visual") else base.vision_tower.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, args, output: encoded.append(len(args[0])))
    try:
        qa.ask(video, "what moves here", method="none", max_new_tokens=2)
        qa.ask_all(video, ["what moves here", "is there anything else"], method="none", max_new_tokens=2)
    finally:
        handle.remove()
    alone, together = encoded
    assert alone == together


def test_seconds_stay_exact_in_half_precision() -> None:
    qa = video_qa("qwen2_5_vl")
    qa.model.to(torch.bfloat16)
    inputs = qa.prepare_inputs(qa.read(earlytom.sample_videos()[0], Sampling(frames=6)), "what moves here")
    assert inputs["second_per_grid_ts"].dtype == torch.float32
    assert inputs["pixel_values_videos"].dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("family", "frames"),
    [(family, frames) for family in FAMILY_NAMES for frames in (12, 7, 2, 1)],
)
def test_an_answer_counts_sampled_frames_and_temporal_grids(family, frames) -> None:
    qa, paired = video_qa(family), family in PAIRED
    video = qa.read(earlytom.sample_videos()[0], Sampling(frames=frames))
    plain, short = (
        qa.ask(video, "what moves here", method=method, max_new_tokens=1) for method in ("none", "earlytom")
    )
    grids = -(-frames // 2) if paired else frames
    assert (plain.frames, plain.frames_left) == (frames, frames)
    assert (plain.temporal_grids, plain.temporal_grids_left) == (grids, grids)
    assert (short.frames, short.temporal_grids) == (frames, grids)
    assert short.temporal_grids_left == short.trace.videos[0].frames_left <= grids
    assert short.frames_left == min(frames, short.temporal_grids_left * (2 if paired else 1))
    (told,) = short.to_dict()["trace"]["videos"]
    assert (told["sampled_frames"], told["temporal_grids"]) == (frames, grids)
    assert (told["frames"], told["frames_left"]) == (grids, told["temporal_grids_left"])
    assert sorted({frame for made_of in short.trace.videos[0].sampled_sources(frames) for frame in made_of}) == list(
        range(frames)
    )


def test_frames_that_a_processor_refuses_are_told_before_the_model_runs(monkeypatch) -> None:
    qa = video_qa("qwen3_vl")
    monkeypatch.setattr(qa.model, "generate", lambda **_: pytest.fail("the model ran"))
    frames = np.zeros((4, 8, 1920, 3), dtype=np.uint8)
    with pytest.raises(earlytom.VideoError, match=r"<array>: .* processor refuses .* shape \(4, 8, 1920, 3\): .* 240"):
        qa.ask(frames, "what moves here")
