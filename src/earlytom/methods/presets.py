"""Settings of EarlyTom: without a preset, three by name for everyday use, the paper's for each model and benchmark.

Without a preset the first merge comes early, and at least 55% of the frames are left, those that differ most; only
equal frames may bring it lower. ``fast`` merges earlier still, leaves at least 60%, and half of the cells of each go
on from there; ``quality`` leaves 80%. Where the encoder takes several frames as one temporal grid, only equal grids
merge. In all of these tokens are ranked by how they change and how they stand out, not by attention. ``paper`` is
what the paper runs on MVBench, at any retention. All but the last were chosen on the two test models
(docs/evaluation.md).

The others are Table 8 of the EarlyTom supplementary: tau_seg and merge layers tuned per model, benchmark and retention.

All its rows use ema 0.9 and inner-LLM merging (layer 18, ratio 0.5). All layers are those of the 26-layer SigLIP tower
that LLaVA-OneVision uses; `scale_layers` carries them over to other depths.

The authors' scripts deviate from the table: for the 7B model LongVideoBench at 25% uses layers 4, 14, 24 and VideoMME
at 25% uses tau 0.7; the 0.5B script repeats the layers of the 7B model. The table is what is kept here. The scripts
also set ``max_window = 6``, which the paper does not mention.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from earlytom.errors import MethodError, shown

if TYPE_CHECKING:
    from earlytom.ops.merging import Variant
    from earlytom.types import EncoderShape

__all__ = [
    "EVERYDAY",
    "PAPER",
    "PAPER_ROWS",
    "PRESETS",
    "REFERENCE_DEPTH",
    "SIGNALS",
    "WITHOUT_PRESET",
    "Preset",
    "Signal",
    "find_preset",
    "preset_names",
    "scale_layers",
    "scale_score_layer",
]

Signal = Literal["attention", "change", "contrast"]
"""What tokens can be ranked by: the attention that they receive, how much they differ from the token before them at
their place, and from the means of their grid and clip."""
SIGNALS: tuple[Signal, ...] = get_args(Signal)

REFERENCE_DEPTH = 26
"""Layers of the vision encoder that the table was tuned on."""


@dataclass(frozen=True)
class Preset:
    """What a preset sets.

    Attributes:
        tau_seg: segmentation threshold; ``None``: there is none, or with ``compat`` it is taken from the clip.
        merge_layers: layers of a 26-layer encoder.
        least_frames: see `earlytom.EarlyTom`.
        least_pairs: the same where the encoder takes several frames as one temporal grid.
        inner_merging: whether tokens merge inside the language model.
        score_layer: layer of a 26-layer encoder whose attention ranks tokens; ``None``: the last merge layer.
        ranked_by: see `earlytom.EarlyTom`.
        cell_share: see `earlytom.EarlyTom`.
    """

    tau_seg: float | None
    merge_layers: tuple[int, ...]
    least_frames: float = 0.0
    least_pairs: float = 0.0
    inner_merging: bool = True
    score_layer: int | None = None
    ranked_by: tuple[Signal, ...] = ("attention",)
    cell_share: float = 1.0


def _rows(*cells: tuple[float, tuple[int, int, int]]) -> dict[float, Preset]:
    """Cells for retention 25, 20, 15 and 10%, in the order of the table."""
    return {
        retention: Preset(tau, layers) for retention, (tau, layers) in zip((0.25, 0.20, 0.15, 0.10), cells, strict=True)
    }


PRESETS: dict[str, dict[float, Preset]] = {
    # LLaVA-OneVision-7B
    "mvbench": _rows((0.8, (6, 14, 20)), (0.8, (6, 14, 20)), (0.8, (6, 14, 20)), (0.65, (8, 14, 20))),
    "egoschema": _rows((0.7, (10, 21, 23)), (0.6, (10, 21, 23)), (0.5, (10, 21, 23)), (0.3, (10, 21, 23))),
    "longvideobench": _rows((0.8, (6, 21, 23)), (0.6, (10, 21, 23)), (0.5, (10, 21, 23)), (0.3, (10, 21, 23))),
    "videomme": _rows((0.6, (10, 21, 23)), (0.5, (8, 21, 23)), (0.4, (8, 21, 23)), (0.3, (10, 21, 23))),
    # LLaVA-OneVision-0.5B
    "mvbench-0.5b": _rows((0.8, (8, 21, 23)), (0.8, (8, 21, 23)), (0.8, (8, 21, 23)), (0.65, (8, 21, 23))),
    "egoschema-0.5b": _rows((0.7, (10, 21, 23)), (0.6, (10, 21, 23)), (0.5, (10, 21, 23)), (0.3, (10, 21, 23))),
    "longvideobench-0.5b": _rows((0.8, (6, 21, 23)), (0.6, (10, 21, 23)), (0.5, (10, 21, 23)), (0.3, (10, 21, 23))),
    "videomme-0.5b": _rows((0.6, (8, 21, 23)), (0.5, (8, 21, 23)), (0.4, (8, 21, 23)), (0.3, (8, 21, 23))),
}


_NOVEL: tuple[Signal, ...] = ("change", "contrast")


def _everyday(merge_layers: tuple[int, ...], least_frames: float, cell_share: float = 1.0) -> Preset:
    """A grid that holds several frames has merged them already, and of these only equal ones merge further."""
    return Preset(
        None,
        merge_layers,
        least_frames=least_frames,
        least_pairs=1.0,
        inner_merging=False,
        score_layer=23,
        ranked_by=_NOVEL,
        cell_share=cell_share,
    )


EVERYDAY: dict[str, Preset] = {
    "fast": _everyday((1, 3), least_frames=0.6, cell_share=0.5),
    "quality": _everyday((3, 10, 16), least_frames=0.8),
}
WITHOUT_PRESET: dict[Variant, Preset] = {
    "default": _everyday((3, 10, 16), least_frames=0.55),
    # Where the published method is asked for: Table 8's layers for MVBench, and no bound, which it does not have.
    "official": Preset(None, (6, 14, 20), inner_merging=False),
    "paper": Preset(None, (6, 14, 20), inner_merging=False),
}
"""What holds where neither a knob nor a preset says otherwise."""
PAPER, PAPER_ROWS = "paper", "mvbench"


def preset_names() -> list[str]:
    """All presets, those for everyday use first."""
    return [*EVERYDAY, PAPER, *PRESETS]


def find_preset(name: str, retention: float | None) -> Preset:
    """What a preset sets at a retention; ``paper`` takes its row for the nearest one that is published.

    Args:
        name: the preset.
        retention: ``None`` where a number of tokens is asked for instead, which the paper's presets do not go by.

    Raises:
        MethodError: the name is unknown, or the paper has no such retention for a benchmark's preset.
    """
    if not isinstance(name, str) or name not in preset_names():
        raise MethodError(f"unknown preset {shown(name)}; the presets are: {', '.join(preset_names())}")
    if name in EVERYDAY:
        return EVERYDAY[name]
    if retention is None:
        raise MethodError(
            f"preset {shown(name)} goes by the retention, of which visual_tokens are another share in every clip; give "
            "retention instead"
        )
    if name == PAPER:
        rows = PRESETS[PAPER_ROWS]
        return rows[min(rows, key=lambda published: abs(published - retention))]
    rows = PRESETS[name]
    if retention not in rows:
        published = ", ".join(str(value) for value in sorted(rows))
        raise MethodError(
            f"preset {shown(name)} is published for retention {published}, got {shown(retention)}; "
            "leave the preset out for settings that need no tuning"
        )
    return rows[retention]


def scale_layers(layers: tuple[int, ...], encoder: EncoderShape) -> tuple[int, ...]:
    """Carry merge layers over to another encoder, as shares of the depth (6/26, 14/26 and so on).

    Where attention is mostly windowed, each moves to the nearest layer that sees the whole grid (of two, the earlier
    one), since the last of them ranks tokens. Layers that would coincide are moved apart; fewer are returned when the
    encoder is too shallow for all.
    """
    if encoder.global_layers is None:
        allowed = list(range(encoder.depth))
        if encoder.depth == REFERENCE_DEPTH:
            return layers
    else:
        # Merging after the last layer would save nothing.
        allowed = [layer for layer in encoder.global_layers if layer < encoder.depth - 1] or list(encoder.global_layers)
    scaled: list[int] = []
    for layer in layers:
        share = round(layer * encoder.depth / REFERENCE_DEPTH)
        place = min(range(len(allowed)), key=lambda number: abs(allowed[number] - share))
        scaled.append(max(place, scaled[-1] + 1) if scaled else place)
    # From the end: what was moved past the last layer pushes the others back.
    highest = len(allowed) - 1
    for number in reversed(range(len(scaled))):
        scaled[number] = min(scaled[number], highest)
        highest = scaled[number] - 1
    return tuple(allowed[place] for place in scaled if place >= 0)


def scale_score_layer(layer: int, encoder: EncoderShape) -> int:
    """Carry the layer whose attention ranks tokens over to another encoder, as a share of the depth.

    Of an encoder with attention windows it is the nearest layer that sees the whole grid, the later one of two.
    """
    share = min(encoder.depth - 1, round(layer * encoder.depth / REFERENCE_DEPTH))
    allowed = range(encoder.depth) if encoder.global_layers is None else encoder.global_layers
    return min(allowed, key=lambda found: (abs(found - share), -found))
