"""Any maps, for property tests of `Reduction`."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from earlytom import Reduction
from earlytom.reduction import PlacedReduction

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@st.composite
def sparse_rows(draw: st.DrawFn, inputs: int) -> list[list[tuple[int, float]]]:
    """Any output rows over ``inputs`` rows: copies, repeats, weights that do not sum to 1, negative ones."""
    weight = st.sampled_from([1.0, 0.5, -0.25, 0.0, 1.5]) | st.floats(-2, 2, width=32)
    entry = st.tuples(st.integers(0, inputs - 1), weight)
    copy = st.integers(0, inputs - 1).map(lambda source: [(source, 1.0)])
    return draw(st.lists(copy | st.lists(entry, min_size=1, max_size=4), min_size=1, max_size=6))


def on_a_device(reduction: Reduction) -> PlacedReduction:
    """As a reduction is laid out whose tensors lie on a device: nothing is read, so that all outputs are sums."""
    if reduction.weight is None:
        return PlacedReduction(reduction.inputs, reduction.source, None, ())
    return PlacedReduction(reduction.inputs, None, None, (reduction.source, reduction.offsets, reduction.weight))


def bits(values: Tensor) -> Tensor:
    return values.view(torch.int32 if values.element_size() == 4 else torch.int16)
