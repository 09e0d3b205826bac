"""The method as published, written plainly, against ours and against the authors' recorded output."""

from __future__ import annotations

import json

import pytest
import torch

from conftest import batch, clip, shared, tiny_model
from reference.published_agreement import disagreements, logits_disagreements
from reference.published_earlytom import PublishedSettings, published_tokens, segment, select

SETTINGS = PublishedSettings(retention=0.25, tau_seg=0.5, merge_layers=(1, 3, 6))


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_model()


@pytest.mark.parametrize("frames", [1, 2, 3, 12, 17])
@pytest.mark.parametrize("retention", [0.1, 0.25, 0.6])
@pytest.mark.parametrize("tau_seg", [0.3, 0.5, 0.8])
def test_reference_equals_official(model: torch.nn.Module, frames: int, retention: float, tau_seg: float) -> None:
    settings = PublishedSettings(retention=retention, tau_seg=tau_seg, merge_layers=(1, 3, 6))
    assert disagreements(model, clip(frames, seed=frames), settings) == []


@pytest.mark.parametrize("seed", range(4))
def test_first_token_logits_agree(model: torch.nn.Module, seed: int) -> None:
    assert logits_disagreements(model, batch([[clip(15, seed)]]), SETTINGS) == []


def test_frames_do_merge(model: torch.nn.Module) -> None:
    visual = published_tokens(model, clip(15), SETTINGS)
    assert visual.frames_after[-1] < 15
    assert list(visual.frames_after) == sorted(visual.frames_after, reverse=True)


def test_a_difference_is_seen(model: torch.nn.Module) -> None:
    recorded = published_tokens(model, clip(12), SETTINGS).tokens.clone()
    recorded[3, 5] += 0.01
    assert len(disagreements(model, clip(12), SETTINGS, recorded)) == 1


def test_attention_implementation_is_restored(model: torch.nn.Module) -> None:
    published_tokens(model, clip(3), SETTINGS)
    assert model.config.vision_config._attn_implementation == "sdpa"


def test_segments_are_capped_and_cut() -> None:
    frames = torch.zeros(9, 2, 3)
    frames[:7, :, 0], frames[7:, :, 1] = 1.0, 1.0
    assert segment(frames, SETTINGS) == [(0, 4), (5, 6), (7, 8)]


def test_windows_cover_a_static_frame() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 0, 1, 2, 3, 4, 5]] * 3)
    features = torch.arange(30.0).view(3, 10, 1)
    kept = select(features, scores, [(0, 2)], 0.3)
    # ends: the three best; middle: the best of windows of 4, 3 and 3 tokens
    assert kept.flatten().tolist() == [0, 1, 2, 10, 16, 19, 20, 21, 22]


def test_reference_equals_recorded_output() -> None:
    from safetensors.torch import load_file
    from transformers import LlavaOnevisionForConditionalGeneration

    folder = shared("reference_cases/end_to_end")
    for path in sorted(folder.glob("*.safetensors")):
        recorded = json.loads(path.with_suffix(".json").read_text())
        tensors = load_file(path)
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(
            folder / f"{path.stem}_model", dtype=torch.float32
        ).eval()
        settings = PublishedSettings(
            retention=recorded["retention"],
            tau_seg=recorded["tau_seg"],
            merge_layers=tuple(recorded["merge_layers"]),
            ema=recorded["ema"],
            max_window=recorded["max_window"],
        )
        assert disagreements(model, tensors["pixels"], settings, tensors["visual_tokens"]) == []
