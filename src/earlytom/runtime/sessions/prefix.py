"""The part of a session's prompt that never changes: everything up to its videos, encoded and prefilled once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from earlytom.errors import CompressionError, MethodError
from earlytom.models.caches import cache_argument
from earlytom.runtime.plans import Plans
from earlytom.runtime.preparing import prepare_call
from earlytom.runtime.sessions.kept_cache import KeptCache, check_keeps_all

if TYPE_CHECKING:
    from earlytom.methods.base import Method
    from earlytom.models.base import Host
    from earlytom.trace import CallTrace
    from earlytom.types import PrefillInputs

__all__ = ["Placement", "VideoPrefix", "check_head", "check_session_method", "placement", "prefill_videos"]

Placement = tuple[tuple[torch.device, torch.dtype] | None, ...]
"""Device and number type of each layer of the language model; ``None`` for one that is elsewhere until it runs."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPrefix:
    """What is known of the prompt's first part besides its cache.

    Attributes:
        head: the template's ids up to the last video's placeholder, each video one.
        ids: [1, S'] the ids of the shortened prompt up to the end of its last video, on the input device.
        positions: [A, 1, S'] of these where positions have several axes; ``None``: numbers from 0.
        next_position: where the text behind it goes on.
        prompt_tokens: the length before it was shortened.
        placement: of the model that its cache was made by.
    """

    head: tuple[int, ...]
    ids: Tensor
    positions: Tensor | None
    next_position: int
    prompt_tokens: int
    placement: Placement

    @property
    def length(self) -> int:
        """Its tokens in the cache."""
        return self.ids.shape[1]

    def arguments(self, tail: Sequence[int]) -> dict[str, Tensor]:
        """Ids, mask and positions of the whole prompt for ``generate``, with ``tail`` behind the videos."""
        ids = torch.cat([self.ids, self.ids.new_tensor([tail])], dim=1)
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.positions is None:
            return arguments
        steps = torch.arange(len(tail), device=ids.device)
        behind = (self.next_position + steps).expand(self.positions.shape[0], 1, -1).clone()
        if len(behind) == 4:  # the first axis numbers the tokens of the sequence
            behind[0] = self.length + steps
        return arguments | {"position_ids": torch.cat([self.positions, behind], dim=2)}


def placement(layers: Sequence[nn.Module]) -> Placement:
    """Where the layers of a language model are now."""
    first = (next((weight for weight in layer.parameters() if not weight.is_meta), None) for layer in layers)
    return tuple(None if weight is None else (weight.device, weight.dtype) for weight in first)


def check_session_method(method: Method, host: Host) -> Plans:
    """What a method wants of a model.

    Raises:
        MethodError: it acts inside the language model.
        ModelError: the language model forgets, or cannot do what the method wants.
    """
    check_keeps_all(host.config)
    plans = Plans.of(method, host)
    if plans.acts_in_llm:
        raise MethodError(
            f"method {method.name!r} acts inside the language model (before layer {plans.language.reduce_before[0]}) "
            "by what the question attends to, so that what it keeps would hold for one question only; open the session "
            " with a method that acts before the language model, or ask one question at a time by ask()"
        )
    return plans


def check_head(known: Sequence[int], head: Sequence[int]) -> None:
    """Raise `CompressionError` where a prompt begins otherwise than the one whose videos have been prefilled."""
    if tuple(known) != tuple(head):
        raise CompressionError(
            "the chat template writes other text before the video when more is said behind it, so that nothing of the "
            "prompt can be kept; ask one question at a time by ask()"
        )


def prefill_videos(
    host: Host, method: Method, inputs: Mapping[str, Any], head: Sequence[int], tail: Sequence[int], trace: CallTrace
) -> tuple[VideoPrefix, KeptCache]:
    """Encode, compress and prefill the videos of a prompt, and what stands before them.

    Args:
        host: of the model.
        method: which must pass `check_session_method`.
        inputs: the processor's output for any prompt about the videos.
        head: the template's ids of that prompt up to the last placeholder.
        tail: those behind.
        trace: gets what happened and the times.

    Raises:
        CompressionError: the processor changed what comes behind the videos; or see `earlytom.runtime.encode`.
    """
    plans = check_session_method(method, host)
    _check_tail(inputs["input_ids"], tail)
    call = host.open(inputs)
    if call is None:
        raise CompressionError("the chat template wrote a prompt without a video")
    with torch.no_grad():
        prepared = prepare_call(call, method, plans.encoder, trace)
        length = prepared.arguments["inputs_embeds"].shape[1] - len(tail)
        with trace.clock.stage("prefill"):
            cache = _prefill(host.model.model.language_model, prepared, length)
    trace.prompt_tokens, trace.prefill_tokens = trace.prompt_tokens - len(tail), length
    positions = prepared.arguments.get("position_ids")
    prefix = VideoPrefix(
        head=tuple(head),
        ids=_short_ids(call.prompt.ids, prepared)[:, :length].to(inputs["input_ids"].device),
        positions=None if positions is None else positions[..., :length],
        # Of the text behind a video all axes agree; where it goes on is the family's to say.
        next_position=length if positions is None else int(positions[-1, 0, length]),
        prompt_tokens=trace.prompt_tokens,
        placement=placement(host.language.layers),
    )
    return prefix, cache


def _check_tail(ids: Tensor, tail: Sequence[int]) -> None:
    if not tail or ids[0, -len(tail) :].tolist() != list(tail):
        raise CompressionError(
            "the processor changed the text behind the videos, so that nothing of the prompt can be kept; ask one "
            "question at a time by ask()"
        )


def _prefill(language_model: Any, prepared: PrefillInputs, length: int) -> KeptCache:
    """Run the language model alone on the first positions: what its head would say of a video is not asked for."""
    from transformers import DynamicCache

    arguments = prepared.arguments
    given = {name: arguments[name][:, :length] for name in ("inputs_embeds", "attention_mask")}
    if arguments.get("position_ids") is not None:
        given["position_ids"] = arguments["position_ids"][..., :length]
    for name, make in prepared.language_arguments.items():
        value = make(1)
        whole = isinstance(value, Tensor) and value.shape == arguments["attention_mask"].shape
        given[name] = value[:, :length] if whole else value
    cache = DynamicCache()
    language_model(**given, **{cache_argument(language_model.forward): cache}, use_cache=True)
    return KeptCache.of(cache)


def _short_ids(ids: Tensor, prepared: PrefillInputs) -> Tensor:
    """[1, S'] on the host."""
    if prepared.prompt_positions is None:
        raise CompressionError("this model family does not say which tokens are left, which a session has to know")
    return ids.gather(1, prepared.prompt_positions)
