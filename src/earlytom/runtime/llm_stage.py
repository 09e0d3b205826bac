"""Stage III: reducing visual tokens inside the language model, during one call.

Before the chosen layer the visual hidden states of each sample are reduced; from there on every layer gets the shorter
sequence: hidden states, rotary embeddings and masks are cut to it, at prefill and in every decoding step (where only
the mask still speaks of the full length). Kept tokens keep their positions, or close ranks where the method's plan asks
to renumber; newer tokens then follow in every layer at that layer's own length. The cache of the later layers is
shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, ModelError
from earlytom.models.caches import given_cache
from earlytom.ops import last_query_attention
from earlytom.reduction import Reduction
from earlytom.runtime.generation import check_cache_grows
from earlytom.stages.decisions import checked
from earlytom.trace import LanguageReduction
from earlytom.types import LanguageStates

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.language_model import LanguageModel
    from earlytom.trace import CallTrace
    from earlytom.types import LanguagePlan

__all__ = ["LlmStage"]


_Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Positions, and a tensor whose dtype and device to take, to cosines and sines."""


@dataclass(eq=False)
class _Kept:
    """What is left of the prefilled sequence: [B, S'] indices into it, and which of them only pad."""

    index: Tensor
    filler: Tensor | None

    def to(self, device: torch.device) -> _Kept:
        return _Kept(self.index.to(device), None if self.filler is None else self.filler.to(device))


class LlmStage:
    """State of one call: which positions of the prefilled sequence each layer still has.

    Args:
        language: the language model.
        method: the method.
        plan: what it wants from this language model, at least one boundary.
        visual_positions: for each sample the positions of its visual tokens in the prompt that will be prefilled.
        trace: of the call.
    """

    def __init__(
        self,
        language: LanguageModel,
        method: Method,
        plan: LanguagePlan,
        visual_positions: Sequence[Sequence[int]],
        trace: CallTrace,
    ) -> None:
        self._language, self._method = language, method
        self._reduce_before, self._first, self._trace = set(plan.reduce_before), plan.reduce_before[0], trace
        self._attends_behind = plan.attention_of == "layer behind"
        self._rotary: _Rotary | None = language.rotary_embedding if plan.renumber else None
        self._visual = [torch.tensor(row, dtype=torch.int64) for row in visual_positions]
        self._entered: list[int] = []
        self._prefilled = 0
        self._repeats = 1
        self._attention: list[Tensor] = []
        self._kept: dict[int, _Kept] = {}
        self._prefilling = True
        self._cut: tuple[tuple[int, int, int], dict[str, Any], dict[str, Any]] | None = None

    def before_layer(
        self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Decoder layer ``index`` is about to run: cut what it gets, and reduce where the method asks for it.

        Returns:
            The arguments that it is to get instead.

        Raises:
            CompressionError: the call uses what the stage cannot work with.
            ModelError: the layer's weights are elsewhere.
        """
        if index < self._first - 1:
            return args, kwargs
        hidden, kwargs = self._on_device_of(layer, args[0], kwargs)
        if index == self._first - 1:
            self._begin_step(hidden, kwargs)
        earlier = [boundary for boundary in self._kept if boundary <= index]
        if earlier:
            kwargs = self._cut_once(max(earlier), kwargs, layer)
        if self._prefilling and index in self._reduce_before:
            if self._attends_behind:
                self._attention = self._attend(layer, hidden, kwargs)
            hidden, kwargs = self._reduce(index, layer, hidden, kwargs)
        if self._prefilling and index + 1 in self._reduce_before and not self._attends_behind:
            self._attention = self._attend(layer, hidden, kwargs)
        return (hidden, *args[1:]), kwargs

    def _on_device_of(self, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Bring everything to the layer's device: where layers lie on several, stock moves it behind this."""
        device = next(layer.parameters()).device
        if device.type == "meta":
            raise ModelError("tokens cannot be reduced inside a language model with offloaded layers; load it whole")
        self._visual = [row.to(device, non_blocking=True) for row in self._visual]
        self._attention = [row.to(device, non_blocking=True) for row in self._attention]
        moved = {
            name: tuple(part.to(device) for part in value) if name == "position_embeddings" else value.to(device)
            for name, value in kwargs.items()
            if name == "position_embeddings" or isinstance(value, Tensor)
        }
        return hidden.to(device), kwargs | moved

    def _cut_once(self, boundary: int, kwargs: dict[str, Any], layer: nn.Module) -> dict[str, Any]:
        """All layers behind a boundary are given the same mask and rotary embeddings in one forward: cut them once."""
        given = (boundary, id(kwargs["position_embeddings"][0]), id(kwargs.get("attention_mask")))
        if self._cut is None or self._cut[0] != given:
            # The originals are kept beside their ids, so that these stay theirs.
            cut = _cut_arguments(kwargs, self._kept[boundary], self._prefilled, layer, self._rotary)
            self._cut = (given, dict(kwargs), cut)
        cut = self._cut[2]
        return kwargs | {name: cut[name] for name in ("position_embeddings", "position_ids", "attention_mask")}

    def _counts(self) -> tuple[int, ...]:
        """Visual tokens of each sample; beams of one sample agree and count once."""
        return tuple(len(positions) for positions in self._visual[:: self._repeats])

    def _begin_step(self, hidden: Tensor, kwargs: dict[str, Any]) -> None:
        """Tell prefill from decoding: the first forward of the call is the prefill."""
        if self._prefilled:
            self._prefilling = False
            return
        check_cache_grows(given_cache(kwargs))
        self._prefilled = hidden.shape[1]
        self._repeats = hidden.shape[0] // len(self._visual)
        self._visual = [row for row in self._visual for _ in range(self._repeats)]
        self._entered = [len(row) for row in self._visual]

    @torch.no_grad()
    def _attend(self, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]) -> list[Tensor]:
        """Attention of the last prompt token of each sample on its visual tokens, from this layer's own projections."""
        cos, sin = kwargs["position_embeddings"]
        visible = _visible(kwargs.get("attention_mask"), hidden)
        last = _last_positions(visible)
        queries, keys, scale = self._language.query_and_keys(layer, hidden, cos, sin, last)
        return [
            last_query_attention(query, key, scale=scale, visible=row)[positions]
            for query, key, row, positions in zip(queries, keys, visible, self._visual, strict=True)
        ]

    def _states(self, features: Tensor, attention: Tensor, entered: int) -> LanguageStates:
        return LanguageStates(features=features, attention=attention, entered=entered, depth=self._trace.decoder_layers)

    @torch.no_grad()
    def _decide(self, index: int, hidden: Tensor) -> list[Reduction | None]:
        """What the method makes of each sample's visual tokens before layer ``index``."""
        reductions = [
            self._method.reduce_in_llm(self._states(row[positions], attention, entered), index)
            if positions.numel()
            else None
            for row, positions, attention, entered in zip(
                hidden, self._visual, self._attention, self._entered, strict=True
            )
        ]
        for reduction, positions in zip(reductions, self._visual, strict=True):
            if reduction is not None:
                checked(self._method, reduction, positions.numel(), distinct=True)
        return reductions

    def _reduce(
        self, index: int, layer: nn.Module, hidden: Tensor, kwargs: dict[str, Any]
    ) -> tuple[Tensor, dict[str, Any]]:
        reductions = self._decide(index, hidden)
        before = self._counts()
        rows, kept = _shorten(hidden, self._visual, reductions)
        self._visual = _new_positions(self._visual, reductions, kept)
        self._trace.language.append(LanguageReduction(layer=index, tokens_before=before, tokens_after=self._counts()))
        kwargs = _cut_arguments(kwargs, kept, hidden.shape[1], layer, self._rotary)
        self._kept[index] = _compose(self._kept[max(self._kept)], kept) if self._kept else kept
        return rows, kwargs


def _shorten(hidden: Tensor, visual: Sequence[Tensor], reductions: Sequence[Reduction | None]) -> tuple[Tensor, _Kept]:
    """Replace each sample's visual rows by their reduction; samples that get shorter than others pad on the left."""
    batch, length, _ = hidden.shape
    rows, indices = [], []
    for sample, positions, reduction in zip(hidden, visual, reductions, strict=True):
        index = torch.arange(length, device=hidden.device)
        if reduction is not None:
            merged = sample.clone()
            survivors = positions[reduction.survivors().to(hidden.device)]
            merged[survivors] = reduction.apply(sample[positions])
            gone = torch.zeros(length, dtype=torch.uint8, device=hidden.device)
            gone[positions] = 1
            gone[survivors] = 0
            left = length - (reduction.inputs - reduction.outputs)
            index = torch.sort(gone, stable=True).indices[:left]
            sample = merged
        rows.append(sample[index])
        indices.append(index)
    longest = max(len(index) for index in indices)
    if all(len(index) == longest for index in indices):
        return torch.stack(rows), _Kept(torch.stack(indices), None)
    short = hidden.new_zeros(batch, longest, hidden.shape[-1])
    kept = torch.zeros(batch, longest, dtype=torch.int64, device=hidden.device)
    filler = torch.ones(batch, longest, dtype=torch.bool, device=hidden.device)
    for number, (row, index) in enumerate(zip(rows, indices, strict=True)):
        short[number, longest - len(index) :] = row
        kept[number, longest - len(index) :] = index
        filler[number, longest - len(index) :] = False
    return short, _Kept(kept, filler)


def _new_positions(visual: Sequence[Tensor], reductions: Sequence[Reduction | None], kept: _Kept) -> list[Tensor]:
    """Positions of the visual tokens that are left, in the shorter sequence."""
    moved = []
    for number, (positions, reduction) in enumerate(zip(visual, reductions, strict=True)):
        survivors = positions if reduction is None else positions[reduction.survivors().to(positions.device)]
        # Padding lies on the left with index -1 here, so the row is ascending and can be searched.
        row = kept.index[number] if kept.filler is None else kept.index[number].masked_fill(kept.filler[number], -1)
        moved.append(torch.searchsorted(row, survivors))
    return moved


def _compose(first: _Kept, second: _Kept) -> _Kept:
    """Two reductions of one prefill, one behind the other."""
    first = first.to(second.index.device)
    index = first.index.gather(1, second.index)
    if first.filler is None:
        return _Kept(index, second.filler)
    filler = first.filler.gather(1, second.index)
    return _Kept(index, filler if second.filler is None else filler | second.filler)


def _cut_arguments(
    kwargs: dict[str, Any], kept: _Kept, prefilled: int, layer: nn.Module, rotary: _Rotary | None
) -> dict[str, Any]:
    """Cut what a decoder layer receives beside hidden states to the positions that it still has.

    While decoding only the mask speaks of prefilled positions; it then covers ``prefilled`` keys and the newer ones.
    With ``rotary`` the tokens are renumbered as well.
    """
    kwargs = dict(kwargs)
    cos, sin = kwargs["position_embeddings"]
    kept = kept.to(cos.device)
    decoding = cos.shape[1] != prefilled
    if decoding and rotary is not None:
        left = kept.index.shape[1] - _fillers(kept)
        kwargs["position_embeddings"] = rotary(kwargs["position_ids"] - (prefilled - left)[:, None], cos)
    elif not decoding:
        index = (kept.index if rotary is None else _closed_ranks(kept))[..., None]
        kwargs["position_embeddings"] = tuple(
            part.expand(kept.index.shape[0], -1, -1).gather(1, index.expand(-1, -1, part.shape[-1]))
            for part in (cos, sin)
        )
    # Rotary embeddings are given; flash attention would only misread gaps in position_ids as packed sequences.
    kwargs["position_ids"] = None
    mask = kwargs.get("attention_mask")
    if mask is None and kept.filler is not None:
        cache = given_cache(kwargs)
        keys = prefilled if not decoding or cache is None else cache.get_seq_length()
        mask = _full_mask(kept, keys, 1 if decoding else prefilled, layer)
    kwargs["attention_mask"] = None if mask is None else _cut_mask(mask, kept, prefilled, decoding)
    return kwargs


def _fillers(kept: _Kept) -> Tensor:
    """[B] int64: how many positions only pad each sample, always on the left."""
    if kept.filler is None:
        return torch.zeros(kept.index.shape[0], dtype=torch.int64, device=kept.index.device)
    return kept.filler.sum(dim=1)


def _closed_ranks(kept: _Kept) -> Tensor:
    """[B, S'] int64: the position of the longer sequence that has the number which each position left gets.

    The number of the n-th token left is that of the n-th token before, whatever was dropped between.
    """
    places = torch.arange(kept.index.shape[1], device=kept.index.device)
    return (places - _fillers(kept)[:, None]).clamp_min(0)


def _full_mask(kept: _Kept, keys: int, queries: int, layer: nn.Module) -> Tensor:
    """The mask that stock leaves out because nothing is padded; samples of unequal length need it after all."""
    device, batch = kept.index.device, kept.index.shape[0]
    implementation: str = layer.self_attn.config._attn_implementation  # type: ignore[union-attr, assignment]
    if "flash" in implementation:
        return torch.ones(batch, keys, dtype=torch.int64, device=device)
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries).expand(batch, 1, -1, -1)


def _cut_mask(mask: Any, kept: _Kept, prefilled: int, decoding: bool) -> Tensor:
    """Cut a [B, keys] or [B, 1, queries, keys] mask to the kept positions, and hide the padding."""
    if not isinstance(mask, Tensor) or mask.dim() not in (2, 4):
        raise CompressionError(
            "inner-LLM merging works with eager, sdpa and flash attention, not with masks of type "
            f"{type(mask).__name__}"
        )
    batch = kept.index.shape[0]
    newer = torch.arange(prefilled, mask.shape[-1], device=mask.device).expand(batch, -1)
    columns = torch.cat([kept.index, newer], dim=1)
    gap = torch.zeros_like(columns, dtype=torch.bool)
    if kept.filler is not None:
        gap[:, : kept.filler.shape[1]] = kept.filler
    if mask.dim() == 2:
        return mask.gather(1, columns).masked_fill(gap, 0)
    mask = mask.expand(batch, -1, -1, -1)
    if not decoding:
        mask = mask.gather(2, kept.index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[-1]))
    cut = mask.gather(3, columns[:, None, None].expand(-1, mask.shape[1], mask.shape[2], -1))
    return cut.masked_fill(gap[:, None, None], False if cut.dtype == torch.bool else torch.finfo(cut.dtype).min)


def _visible(mask: Tensor | None, hidden: Tensor) -> Tensor:
    """[B, S] bool: the positions that the last query may attend to."""
    if mask is None:
        return torch.ones(hidden.shape[:2], dtype=torch.bool, device=hidden.device)
    row = mask if mask.dim() == 2 else mask[:, 0, -1].expand(hidden.shape[0], -1)
    return row.bool() if row.dtype == torch.bool or mask.dim() == 2 else row == 0


def _last_positions(visible: Tensor) -> Tensor:
    """[B] int64: the last position of each sample that is not padding."""
    positions = torch.arange(visible.shape[1], device=visible.device)
    return torch.where(visible, positions, -1).amax(dim=1)
