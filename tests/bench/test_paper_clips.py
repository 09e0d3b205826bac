"""True operations of the paper's clips, against formulas of their own."""

from __future__ import annotations

import pytest

from earlytom.bench.accounting import PAPER_MODELS
from earlytom.bench.paper_clips import accounting_table, masked_operations, true_operations
from earlytom.errors import EarlyTomError


def siglip(frames: int) -> float:
    """26 layers of SigLIP on 729 patches, and the patches' embedding; 1e12 operations."""
    layer = 4 * 729 * 1152**2 + 2 * 729**2 * 1152 + 2 * 729 * 1152 * 4304
    return 2 * frames * (26 * layer + 729 * 3 * 14**2 * 1152) / 1e12


def masked(name: str, tokens: list[int]) -> float:
    """Pairs that causal attention need not look at: two products of the hidden width; 1e12 operations."""
    return sum(2 * 2 * (n * n - n * (n + 1) // 2) * PAPER_MODELS[name].language.width for n in tokens) / 1e12


def projector(frames: int, width: int) -> float:
    return 2 * frames * 729 * (1152 * width + width**2) / 1e12


@pytest.mark.parametrize(
    ("name", "frames", "width", "tokens"),
    [
        ("llava-onevision-7b", 32, 3584, [6272] * 28),
        ("llava-onevision-7b", 32, 3584, [1568] * 18 + [784] * 10),
        ("llava-onevision-0.5b", 32, 896, [627] * 24),
        ("llava-video-7b", 64, 3584, [12544] * 2 + [2509] * 26),
    ],
)
def test_operations_are_those_of_encoder_projector_and_language_model(name, frames, width, tokens) -> None:
    language = PAPER_MODELS[name].language.operations(tokens) / 1e12
    expected = siglip(frames) + projector(frames, width) + language - masked(name, tokens)
    assert true_operations(name)(tokens) / 1e12 == pytest.approx(expected, rel=0.003)


def test_the_vision_side_of_table_7_s_clip_is_far_from_its_constant() -> None:
    """Windows, whole grids and linear layers on 240 patches a grid, and the merger."""
    whole = 4 * 2 * (2 * 240**2 * 1280)
    windows = 28 * 2 * (2 * sum(size**2 for size in (64, 64, 32, 32, 32, 16)) * 1280)
    linear = 32 * 2 * 240 * (4 * 1280**2 + 3 * 1280 * 3420) + 2 * 240 * 3 * 2 * 14**2 * 1280
    merger = 2 * 60 * (5120**2 + 5120 * 3584)
    vision = 384 * (whole + windows + linear + merger) / 1e12
    tokens = [3450] * 28
    language = PAPER_MODELS["qwen2.5-vl-7b"].language.operations(tokens) / 1e12
    expected = vision + language - masked("qwen2.5-vl-7b", tokens)
    assert true_operations("qwen2.5-vl-7b")(tokens) / 1e12 == pytest.approx(expected, rel=0.003)
    assert vision > 2.5 * 42.2


def test_the_table_has_published_formula_difference_and_true_operations() -> None:
    table = accounting_table("llava-video-7b")
    rows = {(cells[0], cells[1]): cells[2:] for cells in table.cells}
    assert rows["no compression", "100%"][:4] == ("246.2", "246.2", "+0.0", "148.9")
    assert rows["FastV", "100%"][:3] == ("158.2", "169.2", "-11.0")
    assert rows["EarlyTom", "15%"] == ("86.4", "-", "-", "77.8", "-")
    assert float(rows["VisionZip", "15%"][4]) < float(rows["no compression", "100%"][4]) / 3
    assert table.columns[-1] == "true operations"


def test_causal_attention_counts_its_half_as_in_a_benchmark() -> None:
    """The count of a real prompt through torch's own causal attention, and the one by shapes."""
    import torch

    from earlytom.bench.configurations import build_model
    from earlytom.bench.work import count_work
    from earlytom.models import open_model
    from earlytom.runtime.flops import _prefill

    model = build_model("tiny", device="cpu", dtype=torch.float32)
    text, layers, length = model.config.text_config, 4, 50
    embeds = torch.zeros(1, length, text.hidden_size)

    def run() -> None:
        with torch.no_grad():
            states = model.model.language_model(inputs_embeds=embeds, use_cache=False)
            model.lm_head(states.last_hidden_state[:, -1:])

    counted = count_work(run, lambda: "prefill", torch.device("cpu"))["prefill"].flops
    by_shapes = _prefill(open_model(build_model("tiny", device="meta", dtype=torch.float32)), length)[0]
    assert by_shapes - masked_operations(text.hidden_size, [length] * layers) == pytest.approx(counted, rel=1e-3)


def test_readings_are_named_in_the_table() -> None:
    rows = {cells[0]: cells for cells in accounting_table("qwen2.5-vl-7b").cells}
    assert rows["EarlyTom, without inner merging"][2:6] == ("67.7", "-", "-", "17.9")
    assert rows["EarlyTom, with inner merging"][2:6] == ("67.7", "-", "-", "27.2")


def test_models_without_a_table() -> None:
    with pytest.raises(EarlyTomError, match=r"no table for 'tiny'; it has them for llava-onevision-7b"):
        accounting_table("tiny")
    with pytest.raises(EarlyTomError, match="no table for 'qwen3-vl-8b'"):
        true_operations("qwen3-vl-8b")
