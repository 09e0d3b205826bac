"""What the paper reports of its own measurements, on one NVIDIA A100 with batch 1: for comparison only.

None of these numbers is ours, and none is ever mixed with what is measured here. They are those of the paper's main
table (LLaVA-OneVision), of the supplementary's Table 6 (LLaVA-Video-7B) and Table 7 (Qwen2.5-VL-7B), and the split of
the time to the first token is read off the bars of the supplementary's Figure 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["PUBLISHED", "READ_OFF_FIGURE_7", "SETTING", "PublishedRow", "published_rows"]

SETTING = "as published, NVIDIA A100"
"""Where the numbers come from, in words that go beside them."""


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """One row of a published table; ``None`` where the paper says nothing.

    Attributes:
        method: the name of the method in this package, ``none`` without compression.
        retention: share of the visual tokens that enter the language model, 1 where all do.
        tera_flops: the paper's "prefilling FLOPs", 1e12 of them.
        ttft: milliseconds to the first token.
        throughput: generated tokens a second of a whole ``generate`` call.
        accuracy: mean of the paper's benchmarks, percent.
    """

    method: str
    retention: float
    tera_flops: float | None
    ttft: float | None
    throughput: float | None
    accuracy: float | None


_Cells = tuple[str, float, float | None, float | None, float | None, float | None]

_TABLES: dict[str, tuple[_Cells, ...]] = {
    "llava-onevision-7b": (
        ("none", 1.0, 82.6, 889.9, 24.4, 58.4),
        ("fastv", 1.0, 51.1, 820.0, 28.4, 56.5),
        ("pyramiddrop", 1.0, 51.8, 813.4, 28.3, 56.2),
        ("dycoke", 0.25, 50.5, 905.6, 21.1, 54.1),
        ("visionzip", 0.25, 50.5, 516.6, 29.4, 58.2),
        ("prunevid", 0.25, 50.5, 703.6, 29.4, 57.6),
        ("fastvid", 0.25, 50.5, 581.6, 26.9, 57.3),
        ("holitom", 0.25, 49.0, 661.3, 29.9, 58.8),
        ("earlytom", 0.25, 36.5, 426.3, 32.9, 58.2),
        ("visionzip", 0.2, 48.7, 495.0, 29.8, 57.7),
        ("holitom", 0.2, 47.5, 622.3, 30.0, 58.8),
        ("earlytom", 0.2, 35.1, 415.3, 33.4, 58.1),
        ("visionzip", 0.15, 46.9, 475.9, 32.1, 56.7),
        ("holitom", 0.15, 46.0, 572.7, 27.5, 58.2),
        ("earlytom", 0.15, 33.6, 390.6, 30.4, 57.3),
        ("visionzip", 0.1, 45.2, 458.5, 28.5, 53.5),
        ("holitom", 0.1, 44.6, 556.6, 29.0, 57.9),
        ("earlytom", 0.1, 32.2, 336.2, 31.6, 56.2),
    ),
    "llava-onevision-0.5b": (
        ("none", 1.0, 45.3, 413.7, 42.7, 40.5),
        ("visionzip", 0.25, None, 368.6, None, None),
        ("holitom", 0.25, None, 519.4, None, None),
        ("earlytom", 0.25, 29.9, 331.5, 47.8, 40.7),
        ("visionzip", 0.2, None, 368.5, None, None),
        ("holitom", 0.2, None, 499.4, None, None),
        ("earlytom", 0.2, 29.8, 313.1, 40.6, 40.3),
        ("visionzip", 0.15, None, 367.1, None, None),
        ("holitom", 0.15, None, 473.9, None, None),
        ("earlytom", 0.15, 29.7, 311.1, 35.1, 39.8),
        ("visionzip", 0.1, None, 366.1, None, None),
        ("holitom", 0.1, None, 457.1, None, None),
        ("earlytom", 0.1, 29.6, 280.1, 43.9, 39.4),
    ),
    "llava-video-7b": (
        ("none", 1.0, 246.2, 6429.3, 8.1, 60.2),
        ("fastv", 1.0, 158.2, 3494.3, 10.0, 55.6),
        ("pyramiddrop", 1.0, 159.4, 3494.8, 10.1, 56.7),
        ("visionzip", 0.15, 159.4, 3241.4, 14.2, 56.7),
        ("holitom", 0.15, 156.6, 1669.5, 17.1, 57.7),
        ("earlytom", 0.15, 86.4, 947.4, 16.7, 56.4),
    ),
    "qwen2.5-vl-7b": (
        ("none", 1.0, 554.7, 6842.0, None, 66.4),
        ("average-pooling", 0.15, 91.9, 4609.0, None, 57.6),
        ("uniform", 0.15, 91.9, 4578.0, None, 59.3),
        ("earlytom", 0.15, 67.7, 3667.0, None, 62.2),
    ),
}


def _rows(cells: Iterable[_Cells]) -> tuple[PublishedRow, ...]:
    return tuple(
        PublishedRow(method=method, retention=kept, tera_flops=flops, ttft=ttft, throughput=speed, accuracy=accuracy)
        for method, kept, flops, ttft, speed, accuracy in cells
    )


PUBLISHED: dict[str, tuple[PublishedRow, ...]] = {model: _rows(cells) for model, cells in _TABLES.items()}
"""Model -> the rows of its table, in the paper's order."""

READ_OFF_FIGURE_7: dict[str, dict[str, dict[str, float]]] = {
    "llava-onevision-7b": {
        "none": {"vision_encoding": 323.0, "token_processing": 62.0, "prefill": 500.0},
        "earlytom": {"vision_encoding": 240.0, "token_processing": 35.0, "prefill": 58.0},
    },
}
"""Model -> method -> milliseconds of three of the four parts at 10%: about, since they are read off a picture."""


def published_rows(model: str) -> tuple[PublishedRow, ...]:
    """The rows of a model; none where the paper has none."""
    return PUBLISHED.get(model, ())
