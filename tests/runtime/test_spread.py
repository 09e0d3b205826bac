"""Models spread over two CUDA devices, without any: tensors that have a device and a shape, but no values.

Such tensors refuse to be mixed between devices just as real ones do. Every other layer of the vision encoder lies on
another device, and so does the projector; what accelerate's hooks would move is moved by hooks here.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

import earlytom
from earlytom import Reduction
from earlytom.methods import make_method
from earlytom.methods.base import Method
from earlytom.models import open_model
from earlytom.ops import AnchorPlan, best_cells, merge_into_anchors
from earlytom.runtime.encode import encode_videos
from earlytom.runtime.plans import Plans
from earlytom.trace import Stopwatch
from earlytom.types import Decision, EncoderPlan
from families import FAMILY_NAMES, family_case

DEVICES = ("cuda:0", "cuda:1")


class ValuelessDevices(FakeTensorMode):
    """CUDA tensors without values; what is on the host is real."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        leaves = tree_leaves((args, kwargs or {}))
        there = any(isinstance(one, torch.device) and one.type == "cuda" for one in leaves)
        if there or any(isinstance(one, FakeTensor) for one in leaves):
            return super().__torch_dispatch__(function, types, args, kwargs)
        return function(*args, **(kwargs or {}))


def place(part: nn.Module, device: str) -> None:
    """Put a part's weights on a device, and what enters it or one of its own as well."""
    for module in part.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is not None:
                    empty = torch.empty(value.shape, dtype=value.dtype, device=device)
                    store[name] = nn.Parameter(empty, requires_grad=False) if store is module._parameters else empty
        module._moves_to = device
        if not getattr(module, "_moves", False):
            module._moves = True
            module.register_forward_pre_hook(
                lambda self, args, kwargs: (moved(args, self._moves_to), moved(kwargs, self._moves_to)),
                with_kwargs=True,
            )


def moved(value, device: str):
    if isinstance(value, torch.Tensor):
        return value.to(device) if value.device.type == "cuda" else value
    if isinstance(value, dict):
        return {name: moved(one, device) for name, one in value.items()}
    return type(value)(moved(one, device) for one in value) if isinstance(value, tuple | list) else value


def spread(model: nn.Module) -> None:
    visual = getattr(model.model, "visual", None)
    tower = model.model.vision_tower if visual is None else visual
    encoder = getattr(tower, "encoder", tower)
    layers = next(getattr(encoder, name) for name in ("blocks", "layers", "layer") if hasattr(encoder, name))
    place(model, DEVICES[0])
    for layer, device in zip(layers, itertools.cycle(reversed(DEVICES)), strict=False):
        place(layer, device)
    place(model.model.multi_modal_projector if visual is None else visual.merger, DEVICES[1])
    for merger in getattr(visual, "deepstack_merger_list", []):
        place(merger, DEVICES[0])


@dataclass(frozen=True, kw_only=True)
class Scripted(Method):
    """Merges frames and keeps tokens without looking, behind layers on both devices."""

    name = "scripted"
    stages = ("encoder", "tokens")
    retention: float = 0.5

    def encoder_plan(self, encoder):
        last = encoder.last_global_layer
        seen = last - 1 if encoder.global_layers is None else last
        return EncoderPlan(merge_layers=(last - 1, last), attention_layer=seen, keys=True)

    def merge_frames(self, states, layer, floor):
        frames = states.features.shape[0]
        rows = [[(0, 0.5), (1, 0.5)], *([(frame, 1.0)] for frame in range(2, frames))]
        return Decision(reduction=Reduction.from_rows(rows, frames))

    def select_tokens(self, tokens, budget):
        assert {part.device for part in (tokens.features, tokens.attention, tokens.keys)} == {tokens.features.device}
        total = tokens.features.shape[0] * tokens.features.shape[1]
        return Decision(reduction=Reduction.keep(torch.arange(budget), total))


@dataclass(frozen=True, kw_only=True)
class CutAway(Scripted):
    """Besides lets half of the cells go on, without looking."""

    retention: float = 0.4

    def encoder_plan(self, encoder):
        # A layer whose device the next one does not share.
        return EncoderPlan(merge_layers=(1,), attention_layer=encoder.last_global_layer, keys=True, cell_layer=3,
                           cell_attention=True)  # fmt: skip

    def cells_kept(self, grid):
        return grid.tokens_per_frame // 2 + 1

    def select_cells(self, states, budget):
        assert states.attention.device == states.features.device
        grids, cells = states.features.shape[:2]
        rows = best_cells(states.attention, states.kept, states.windows)
        return Decision(reduction=Reduction.keep(rows, grids * cells))

    def select_tokens(self, tokens, budget):
        assert tokens.cells.device == tokens.features.device
        return super().select_tokens(tokens, budget)


# As a method of the package is, whose choices are not read back: here they have no values.
CutAway = type("CutAway", (CutAway,), {"__module__": "earlytom.example"})


@pytest.mark.parametrize(
    "method", ["tome:retention=0.5", "tome:retention=0.5,unmerge=false", Scripted(), CutAway()], ids=str
)
@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_the_way_of_a_clip_crosses_devices(family, method) -> None:
    case, method = family_case(family), make_method(method)
    model, inputs = case.build(), case.batch([[case.clip(6, 0)]])
    host = open_model(model)
    try:
        plan = Plans.of(method, host).encoder
    except earlytom.MethodError as error:
        pytest.skip(f"does not fit this family: {error}")
    with ValuelessDevices(), torch.no_grad():
        spread(model)
        there = {
            name: torch.empty(value.shape, dtype=value.dtype, device=DEVICES[0]) if name.startswith("pixel") else value
            for name, value in inputs.items()
        }
        kept, traces = encode_videos(host.open(there), method, plan, Stopwatch())
    assert kept[0].features.device == torch.device(DEVICES[1])
    assert kept[0].features.shape[0] == traces[0].budget


def test_anchors_gather_features_that_lie_elsewhere_than_their_scores() -> None:
    plan = AnchorPlan(segments=[(0, 2)], salient=[2, 2, 2], anchors=[2, 0, 2])
    with ValuelessDevices():
        features, scores = torch.empty(3, 9, 5, device=DEVICES[1]), torch.empty(3, 9, device=DEVICES[0])
        reduction = merge_into_anchors(features, scores, plan, neighbours=2, anchor_weight=0.5, joins_itself=False)
        assert reduction.apply(features.flatten(0, 1)).device == torch.device(DEVICES[1])
        assert reduction.outputs == plan.outputs
