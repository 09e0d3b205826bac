"""Work counted on what really runs: floating-point operations and bytes of memory of each stage of a call.

A call runs once, untimed, under a dispatch mode that sees every operation of torch with its tensors. The call's own
stopwatch says which stage it is in, so that what is counted is what is timed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Work", "count_work"]

# They make room, and write nothing into it.
_ALLOCATING = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided")
# They read of a table only the rows that they give back.
_LOOKING_UP = ("embedding", "index", "index_select", "gather")
# They change what is there without looking at it.
_OVERWRITING = ("copy_", "fill_", "zero_", "uniform_", "normal_", "random_")


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a stage does.

    Attributes:
        flops: floating-point operations of matrix products, convolutions and attention, two for each multiply-add;
            of causal attention the half that is not masked. Elementwise operations are not among them.
        bytes: what no implementation of the stage can avoid to move: weights and whatever else comes into the stage
            read once, and what another stage reads or is there at the end written once. What is made and used up inside
            the stage costs nothing. Of tables only the rows that are looked up.
        moved_bytes: what its operations move one by one: each reads its tensors and writes its results, caches aside.
        operations: how many change or make values; each is a launch on an accelerator.
        steps: these operations as (operations of arithmetic, bytes moved), each with the number of times it ran.
        uncounted: operations of other libraries, whose arithmetic is not known here, so that ``flops`` lacks it.
    """

    flops: int
    bytes: int
    moved_bytes: int
    operations: int
    steps: Mapping[tuple[int, int], int] = field(default_factory=dict, repr=False)
    uncounted: tuple[str, ...] = ()


def count_work(run: Callable[[], object], stage: Callable[[], str | None], device: torch.device) -> dict[str, Work]:
    """Count what a call does, stage by stage.

    Args:
        run: the call, in this thread; what it returns counts as still there at the end.
        stage: the stage that this thread is in; ``None`` where nothing is to be counted.
        device: whose tensors count; what the host does beside another device is left out.

    Returns:
        The work of each stage that ran at least one operation, in the order of their beginnings.
    """
    counter = _Counter(stage, device)
    with counter:
        result = run()
    work = counter.work()
    del result  # held until here: what it holds has left the stages
    return work


@dataclass
class _Storage:
    """Memory that the operations touched, and by which stages which parts of it."""

    reference: StorageWeakRef
    size: int
    maker: str | None
    reads: dict[str, dict[tuple[object, ...], int]] = field(default_factory=dict)
    writes: dict[str, dict[tuple[object, ...], int]] = field(default_factory=dict)

    def read_by(self, stage: str) -> int:
        """Bytes that come into the stage."""
        return 0 if self.maker == stage else self._within(self.reads, stage)

    def written_by(self, stage: str) -> int:
        """Bytes that leave the stage."""
        leaves = self.maker != stage or any(other != stage for other in self.reads) or not self.reference.expired()
        return self._within(self.writes, stage) if leaves else 0

    def _within(self, touched: Mapping[str, Mapping[tuple[object, ...], int]], stage: str) -> int:
        return min(self.size, sum(touched.get(stage, {}).values()))


@dataclass
class _Tally:
    steps: Counter[tuple[int, int]] = field(default_factory=Counter)
    uncounted: dict[str, None] = field(default_factory=dict)


class _Counter(TorchDispatchMode):
    """See `count_work`."""

    def __init__(self, stage: Callable[[], str | None], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's own carries no annotations
        self._stage, self._device = stage, device
        self._tallies: dict[str, _Tally] = {}
        self._storages: dict[int, _Storage] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function.namespace == "aten":
            # Under torch.inference_mode operations that are made of others come as a whole: those count.
            with self:
                output = function.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = function(*args, **kwargs)
        stage = self._stage()
        if stage is not None and _name(function) not in _ALLOCATING:
            self._count(stage, function, args, kwargs, output)
        return output

    def work(self) -> dict[str, Work]:
        """What has been counted."""
        return {stage: self._work_of(stage, tally) for stage, tally in self._tallies.items()}

    def _work_of(self, stage: str, tally: _Tally) -> Work:
        steps = tally.steps
        return Work(
            flops=sum(flops * times for (flops, _), times in steps.items()),
            bytes=sum(kept.read_by(stage) + kept.written_by(stage) for kept in self._storages.values()),
            moved_bytes=sum(moved * times for (_, moved), times in steps.items()),
            operations=sum(steps.values()),
            steps=dict(steps),
            uncounted=tuple(tally.uncounted),
        )

    def _count(self, stage: str, function: Any, args: Any, kwargs: Any, output: Any) -> None:
        named = dict(_named_arguments(function, args, kwargs))
        written = [*self._written_arguments(function, named), *self._tensors(output)]
        read = self._read_arguments(function, named)
        known = {_key(tensor) for tensor in read}
        if not _written_names(function) and all(_key(tensor) in known for tensor in written):
            return  # a view: nothing moves
        tally = self._tallies.setdefault(stage, _Tally())
        looked_up = _bytes(written) if _name(function) in _LOOKING_UP else None
        reads = [
            self._note(tensor, stage, "reads", looked_up if place == 0 else None) for place, tensor in enumerate(read)
        ]
        writes = [self._note(tensor, stage, "writes") for tensor in _distinct(written)]
        tally.steps[_flops(function, named, args, kwargs, output), sum(reads) + sum(writes)] += 1
        if function.namespace != "aten":
            tally.uncounted[str(function)] = None

    def _tensors(self, values: Any) -> list[Tensor]:
        return [value for value in tree_leaves(values) if isinstance(value, Tensor) and value.device == self._device]

    def _written_arguments(self, function: Any, named: Mapping[str, Any]) -> list[Tensor]:
        return [tensor for name in _written_names(function) for tensor in self._tensors(named.get(name))]

    def _read_arguments(self, function: Any, named: Mapping[str, Any]) -> list[Tensor]:
        """The tensors that come in; those that are overwritten without being looked at are not among them."""
        blind = _written_names(function) if _name(function) in _OVERWRITING else set()
        return _distinct(
            [tensor for name, value in named.items() if name not in blind for tensor in self._tensors(value)]
        )

    def _note(self, tensor: Tensor, stage: str, kind: str, at_most: int | None = None) -> int:
        """Remember that a stage touches a tensor; its bytes, or those of the rows of it that are looked up."""
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        kept = self._storages.get(reference.cdata)
        if kept is None:
            # A weak reference keeps the address from being given to other memory.
            maker = stage if kind == "writes" else None
            kept = self._storages[reference.cdata] = _Storage(reference, storage.nbytes(), maker)
        size = _extent(tensor) if at_most is None else min(_extent(tensor), at_most)
        touched: dict[str, dict[tuple[object, ...], int]] = getattr(kept, kind)
        parts = touched.setdefault(stage, {})
        part = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride())
        # Rows that are looked up may be others every time.
        parts[part] = size if at_most is None else parts.get(part, 0) + size
        return size


def _name(function: Any) -> str:
    name: str = function._schema.name.split("::")[-1]
    return name


def _named_arguments(function: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    names = [argument.name for argument in function._schema.arguments]
    yield from zip(names, args, strict=False)
    yield from kwargs.items()


def _written_names(function: Any) -> set[str]:
    return {
        argument.name
        for argument in function._schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
    }


def _key(tensor: Tensor) -> int:
    key: int = tensor.untyped_storage()._cdata
    return key


def _distinct(tensors: list[Tensor]) -> list[Tensor]:
    """Each part of memory once."""
    return list({(_key(one), one.storage_offset(), tuple(one.shape), one.stride()): one for one in tensors}.values())


def _extent(tensor: Tensor) -> int:
    """Bytes of memory that a tensor's values are in; repeated ones are there once."""
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(size for size, stride in sizes if stride or not size) * tensor.element_size()


def _bytes(tensors: list[Tensor]) -> int:
    return sum(map(_extent, tensors))


def _flops(function: Any, named: Mapping[str, Any], args: Any, kwargs: Mapping[str, Any], output: Any) -> int:
    """Floating-point operations; torch's own formulas, but for attention, which torch counts without its mask."""
    if _name(function).startswith("_scaled_dot_product"):
        return _attention_flops(named)
    formula = flop_registry.get(function._overloadpacket)
    return 0 if formula is None else int(formula(*args, **kwargs, out_val=output))


def _attention_flops(named: Mapping[str, Any]) -> int:
    """Two products of [B, H, Q, E] queries and [B, G, K, E] keys; with ``is_causal`` pairs that see each other."""
    batch, heads, queries, width = named["query"].shape
    keys, value_width = named["key"].shape[-2], named["value"].shape[-1]
    pairs = queries * keys
    if named.get("is_causal"):
        # torch aligns the triangle to the upper left.
        short = min(queries, keys)
        pairs = short * (short + 1) // 2 + (queries - short) * keys
    return 2 * int(batch * heads * pairs * (width + value_width))
