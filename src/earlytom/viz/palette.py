"""Colours and markers that colour-blind readers can tell apart, the same in all plots."""

from __future__ import annotations

__all__ = ["COLOURS", "MARKERS", "PLAIN"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5C00", "#332288")
"""Okabe and Ito's, two of which are darker here."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
"""One more than there are colours, so that no pair comes twice."""
PLAIN = "0.25"
"""What runs without compression."""
