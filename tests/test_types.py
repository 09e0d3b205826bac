"""The values between methods, models and the runtime: made of what belongs together, comparable without an error."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil

import pytest
import torch

import earlytom
from earlytom import MethodError, Reduction
from earlytom.types import (
    CellStates,
    CellWindows,
    Decision,
    EncoderPlan,
    EncoderShape,
    FrameGrid,
    FrameStates,
    KeptTokens,
    LanguagePlan,
    LanguageStates,
    PrefillInputs,
    TokenStates,
    VisualTokens,
)

GRID = FrameGrid(frames=3, rows=2, columns=2)
ORIGIN = Reduction.identity(3)


def visual(**changes: object) -> VisualTokens:
    return VisualTokens(
        **({"features": torch.zeros(3, 4, 5), "attention": torch.zeros(3, 4), "grid": GRID, "origin": ORIGIN} | changes)
    )


def cells(**changes: object) -> CellStates:
    parts = {"features": torch.zeros(3, 4, 6), "attention": None, "origin": ORIGIN, "grid": GRID, "kept": 2}
    return CellStates(**(parts | changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FrameGrid(frames=0, rows=1, columns=1), r"frames of a clip must be at least 1, got 0"),
        (lambda: FrameGrid(frames=1, rows=-1, columns=1), r"rows of a clip must be at least 1, got -1"),
        (lambda: EncoderPlan(merge_layers=(3, 1)), r"merge_layers must be ascending layers from 0, got \(3, 1\)"),
        (lambda: EncoderPlan(token_layers=(-1, 1)), r"token_layers must be ascending"),
        (lambda: EncoderPlan(keys=True), r"keys are those of attention_layer"),
        (lambda: EncoderShape(depth=4).check(EncoderPlan(merge_layers=(1, 9))), r"from 0 to 3, got \(1, 9\)"),
        (lambda: EncoderShape(depth=4).check(EncoderPlan(attention_layer=4)), r"attention_layer must be .* 0 to 3"),
        (lambda: EncoderPlan(cell_layer=-1), r"cell_layer must be ascending layers from 0, got \(-1,\)"),
        (lambda: EncoderPlan(cell_attention=True), r"those of cell_layer, which is None"),
        (lambda: EncoderPlan(cell_similarity=True), r"those of cell_layer, which is None"),
        (lambda: EncoderPlan(cell_layer=2, token_layers=(1,)), r"token_layers and cell_layer exclude each other"),
        (
            lambda: EncoderPlan(cell_layer=2, merge_layers=(1, 3)),
            r"at least the last of merge_layers \(3\), got 2",
        ),
        (lambda: EncoderShape(depth=4, cells=True).check(EncoderPlan(cell_layer=4)), r"cell_layer must be .* 0 to 3"),
        (lambda: EncoderShape(depth=4).check(EncoderPlan(cell_layer=3)), r"go through its layers whole"),
        (lambda: LanguagePlan(reduce_before=(0, 2)), r"reduce_before must be ascending layers from 1"),
        (lambda: LanguagePlan(reduce_before=(2, 2)), r"reduce_before must be ascending"),
        (
            lambda: FrameStates(features=torch.zeros(2, 4, 5), attention=None, origin=ORIGIN),
            r"\[3, any, any\], got \(2, 4",
        ),
        (
            lambda: FrameStates(features=torch.zeros(3, 4, 5), attention=torch.zeros(3, 5), origin=ORIGIN),
            r"attention must",
        ),
        (
            lambda: FrameStates(
                features=torch.zeros(3, 4, 5), attention=None, origin=ORIGIN, similarity=torch.zeros(3, 2)
            ),
            r"similarity must be \[3, 3\], got \(3, 2\)",
        ),
        (lambda: visual(features=torch.zeros(3, 5, 5)), r"features must be \[3, 4, any\], got \(3, 5, 5\)"),
        (lambda: visual(attention=torch.zeros(2, 4)), r"attention must be \[3, 4\]"),
        (lambda: visual(keys=torch.zeros(3, 4)), r"keys must be \[3, 4, any\]"),
        (lambda: visual(frame_similarity=torch.zeros(2, 2)), r"frame_similarity must be \[3, 3\]"),
        (lambda: visual(cells=torch.zeros(3, 2)), r"features must be \[3, 2, any\], got \(3, 4, 5\)"),
        (lambda: visual(cells=torch.zeros(2, 4)), r"cells must be \[3, 4\], got \(2, 4\)"),
        (lambda: cells(features=torch.zeros(3, 5, 6)), r"features must be \[3, 4, any\], got \(3, 5, 6\)"),
        (lambda: cells(attention=torch.zeros(3, 5)), r"attention must be \[3, 4\]"),
        (lambda: cells(similarity=torch.zeros(3, 2)), r"similarity must be \[3, 3\]"),
        (
            lambda: cells(windows=CellWindows(of=torch.zeros(3), sizes=(4,), kept=(2,))),
            r"windows.of must be \[4\], got \(3,\)",
        ),
        (lambda: visual(descriptions=torch.zeros(4, 2)), r"descriptions must be \[3, any\]"),
        (lambda: KeptTokens(features=torch.zeros(4, 2), places=torch.zeros(3)), r"places must be \[4\], got \(3,\)"),
        (
            lambda: LanguageStates(features=torch.zeros(4, 2), attention=torch.zeros(3), entered=4, depth=2),
            r"attention mu",
        ),
        (
            lambda: TokenStates(
                features=torch.zeros(3, 4, 5),
                keys=torch.zeros(3, 4, 2),
                sizes=torch.zeros(4),
                grid=GRID,
                patches=4,
                depth=2,
            ),
            r"sizes must be \[3, 4\]",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(make, message) -> None:
    with pytest.raises(MethodError, match=message):
        make()


@pytest.mark.parametrize(
    ("asked", "layer"),
    [
        ({}, None),
        ({"merge_layers": (2, 4), "attention_layer": 6}, None),
        ({"frame_similarity": True}, 0),
        ({"frame_similarity": True, "attention_layer": 6}, 6),
        ({"frame_similarity": True, "merge_layers": (2, 4)}, 4),
        ({"frame_similarity": True, "merge_layers": (2, 4), "attention_layer": 4}, 4),
        ({"frame_similarity": True, "merge_layers": (2, 7), "attention_layer": 6}, 7),
        ({"frame_similarity": True, "attention_layer": 6, "cell_layer": 3}, 3),
        ({"frame_similarity": True, "merge_layers": (1,), "cell_layer": 3}, 1),
        ({"frame_similarity": True, "merge_layers": (1,), "cell_layer": 3, "cell_similarity": True}, 3),
        ({"cell_layer": 3, "cell_similarity": True}, 3),
        ({"cell_layer": 3}, None),
    ],
)
def test_grids_are_compared_behind_the_last_layer_at_which_anything_is_asked_for(asked, layer) -> None:
    assert EncoderPlan(**asked).similarity_layer == layer


@pytest.mark.parametrize("span", [0, -3, 2.5, "5"])
def test_a_span_is_a_whole_number(span) -> None:
    with pytest.raises(MethodError, match="similarity_span must be a whole number from 1 on or None, got"):
        EncoderPlan(similarity_span=span)


def test_comparing_values_never_asks_tensors_for_one_truth() -> None:
    tokens = torch.zeros(3, 4, 5)
    makers = [
        lambda: FrameStates(features=tokens, attention=None, origin=ORIGIN),
        lambda: visual(features=tokens),
        cells,
        lambda: KeptTokens(features=tokens[0], places=torch.arange(4)),
        lambda: LanguageStates(features=tokens[0], attention=torch.zeros(4), entered=4, depth=2),
        lambda: PrefillInputs(arguments={"inputs_embeds": tokens}, visual_positions=(), dropped=()),
    ]
    for make in makers:
        one, other = make(), make()
        assert one == one
        assert one != other
        assert len({one, other}) == 2
    assert Decision(reduction=Reduction.identity(3)) == Decision(reduction=Reduction.identity(3))
    assert Decision(reduction=Reduction.identity(3)) != Decision(reduction=Reduction.keep(torch.tensor([0, 1]), 3))


def test_no_frozen_dataclass_with_tensors_compares_them_field_by_field() -> None:
    """Wherever one is written: the generated __eq__ would raise for two that are not the same object."""
    found = []
    for module in pkgutil.walk_packages(earlytom.__path__, "earlytom."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.name:
                kinds = [str(field.type) for field in dataclasses.fields(value)]
                generated = getattr(value, "__dataclass_params__").eq  # noqa: B009
                if generated and any("Tensor" in kind or "NDArray" in kind for kind in kinds):
                    found.append(f"{module.name}.{value.__name__}")
    assert found == []
