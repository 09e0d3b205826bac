"""`Reduction`: the one value of every compression decision.

Merging frames, dropping tokens, pooling and clustering are all sparse linear maps from input rows to output rows,
``y[j] = sum_i weight[j, i] * x[i]``. A method returns such a map; the runtime applies it to features and to attention
alike, composes the maps into provenance, and shows them in the trace.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from earlytom.errors import MethodError

__all__ = ["PlacedReduction", "Reduction"]

# Weighted rows held at once, in float32 values (256 MiB), and the fewest columns that are worth a pass.
_CHUNK_VALUES, _LEAST_COLUMNS = 1 << 26, 64


# eq=False: a generated __eq__ would ask tensors for one truth value.
@dataclass(frozen=True, eq=False)
class Reduction:
    """A sparse map from ``inputs`` rows to K rows, stored by output row (CSR).

    Equal are two that do the same: the same sources and weights in the same order, in the same places (comparing reads
    them from their device).

    Attributes:
        offsets: [K + 1] int64; the sources of output j are ``source[offsets[j]:offsets[j + 1]]``. At least one each.
        source: [M] int64, input rows.
        weight: [M] float32, or ``None`` when every output is an exact copy of its only source (a pure selection).
        inputs: number of input rows.
        anchor: [K] int64, the input row that lends each output its place (frame, position); the first source if
            ``None``.

    Raises:
        MethodError: they do not belong together. Values are looked at where they lie on the host; on a device that
            would wait for it: `check_values`.
    """

    offsets: Tensor
    source: Tensor
    weight: Tensor | None
    inputs: int
    anchor: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, int) or isinstance(self.inputs, bool) or self.inputs < 0:
            raise MethodError(f"inputs must be a number of rows, got {self.inputs!r}")
        for name, part, kind in self._parts():
            if not isinstance(part, Tensor):
                raise MethodError(f"{name} must be a tensor, got {part!r}")
            if part.dim() != 1 or part.dtype != kind or part.device != self.offsets.device:
                raise MethodError(
                    f"{name} must be one-dimensional, {kind}, on {self.offsets.device} like offsets; got "
                    f"{tuple(part.shape)}, {part.dtype}, on {part.device}"
                )
        entries = self.source.shape[0]
        self._check_length("offsets", self.offsets, "at least 1", self.offsets.shape[0] >= 1)
        if self.weight is None:
            self._check_length("source", self.source, f"{self.outputs}, one an output", entries == self.outputs)
        else:
            self._check_length("weight", self.weight, f"{entries} like source", self.weight.shape[0] == entries)
        if self.anchor is not None:
            fits = self.anchor.shape[0] == self.outputs
            self._check_length("anchor", self.anchor, f"{self.outputs}, one an output", fits)
        if self.offsets.device.type == "cpu":
            self.check_values()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reduction):
            return NotImplemented
        if (self.inputs, self.outputs) != (other.inputs, other.outputs):
            return False
        pairs = zip(self._canonical(), other._canonical(), strict=True)
        return all(torch.equal(one.cpu(), another.cpu()) for one, another in pairs)

    def __hash__(self) -> int:
        return hash((self.inputs, self.outputs))

    def check_values(self) -> None:
        """Raise `MethodError` for offsets, rows or weights that make no map; on a device this waits for it.

        Applying one with a row out of range would do worse than fail there: it ends the process's use of the device.
        """
        lengths = self.offsets.diff()
        first, last = int(self.offsets[0]), int(self.offsets[-1])
        if first != 0 or last != self.source.shape[0] or bool((lengths < 1).any()):
            raise MethodError(
                f"offsets must rise from 0 to the {self.source.shape[0]} sources, each output with one at least; got "
                f"{_in_short(self.offsets)}"
            )
        for name, rows in (("source", self.source), ("anchor", self.anchor)):
            if rows is not None and bool(((rows < 0) | (rows >= self.inputs)).any()):
                raise MethodError(
                    f"{name} must name rows of the {self.inputs} inputs (0 to {self.inputs - 1}), got {_in_short(rows)}"
                )
        if self.weight is None and bool((lengths != 1).any()):
            raise MethodError(f"without weights each output has one source, got offsets {_in_short(self.offsets)}")
        if self.weight is not None and not bool(self.weight.isfinite().all()):
            raise MethodError(f"weights must be finite, got {_in_short(self.weight)}")

    def _parts(self) -> list[tuple[str, Tensor, torch.dtype]]:
        parts = [("offsets", self.offsets, torch.int64), ("source", self.source, torch.int64)]
        parts += [] if self.weight is None else [("weight", self.weight, torch.float32)]
        return parts + ([] if self.anchor is None else [("anchor", self.anchor, torch.int64)])

    def _canonical(self) -> tuple[Tensor, ...]:
        """Everything that it does, written in one way."""
        return self.offsets, self.source, self._weights(), self.survivors()

    def _weights(self) -> Tensor:
        return torch.ones_like(self.source, dtype=torch.float32) if self.weight is None else self.weight

    @staticmethod
    def _check_length(name: str, part: Tensor, wanted: str, fits: bool) -> None:
        if not fits:
            raise MethodError(f"{name} must have {wanted} value(s), got {part.shape[0]}")

    @classmethod
    def identity(cls, inputs: int) -> Reduction:
        """The map that changes nothing."""
        return cls.keep(torch.arange(inputs), inputs)

    @classmethod
    def keep(cls, indices: Tensor, inputs: int) -> Reduction:
        """Select rows: ``indices`` [K] int64 on any device. Applying it is a gather, bit for bit."""
        offsets = torch.arange(indices.shape[0] + 1, device=indices.device)
        return cls(offsets=offsets, source=indices, weight=None, inputs=inputs)

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[tuple[int, float]]], inputs: int) -> Reduction:
        """Build from host data: for each output row its ``(source, weight)`` pairs."""
        source = torch.tensor([index for row in rows for index, _ in row], dtype=torch.int64)
        lengths = torch.tensor([0, *(len(row) for row in rows)], dtype=torch.int64)
        if all(len(row) == 1 and row[0][1] == 1.0 for row in rows):
            return cls.keep(source, inputs)
        weight = torch.tensor([value for row in rows for _, value in row], dtype=torch.float32)
        return cls(offsets=lengths.cumsum(0), source=source, weight=weight, inputs=inputs)

    @classmethod
    def groups(cls, assignment: Tensor, weight: Tensor, anchor: Tensor) -> Reduction:
        """Every input row joins one output row. Needs no device-to-host copy.

        Args:
            assignment: [N] int64, the output row that each input row joins; every output row has at least one.
            weight: [N] float32, the weight of each input row in its output row.
            anchor: [K] int64, the input row that lends each output row its place.
        """
        if assignment.device.type == "cpu" and bool(((assignment < 0) | (assignment >= anchor.shape[0])).any()):
            raise MethodError(
                f"assignment must name the {anchor.shape[0]} output rows that anchor speaks of, got "
                f"{_in_short(assignment)}"
            )
        order = torch.argsort(assignment, stable=True)
        counts = torch.zeros(anchor.shape[0] + 1, dtype=torch.int64, device=assignment.device)
        counts.scatter_add_(0, assignment + 1, torch.ones_like(assignment))
        return cls(
            offsets=counts.cumsum(0),
            source=order,
            weight=weight[order].float(),
            inputs=assignment.shape[0],
            anchor=anchor,
        )

    @classmethod
    def sparse(
        cls, row: Tensor, source: Tensor, weight: Tensor, *, entries: int, inputs: int, anchor: Tensor
    ) -> Reduction:
        """Build from entries in any order, ``y[row[m]] += weight[m] * x[source[m]]``. Needs no device-to-host copy.

        Args:
            row: [M] int64, the output row of each entry; entries of row K (one past the last) are left out.
            source: [M] int64, the input row of each entry; the entries of a row keep their order.
            weight: [M] float32.
            entries: number of entries that are not left out (host data).
            inputs: number of input rows.
            anchor: [K] int64, the input row that lends each output row its place; every output row has an entry.
        """
        order = torch.argsort(row, stable=True)[:entries]
        counts = torch.zeros(anchor.shape[0] + 2, dtype=torch.int64, device=row.device)
        counts.scatter_add_(0, row + 1, torch.ones_like(row))
        return cls(
            offsets=counts[:-1].cumsum(0),
            source=source[order],
            weight=weight[order].float(),
            inputs=inputs,
            anchor=anchor,
        )

    @classmethod
    def side_by_side(cls, parts: Sequence[Reduction]) -> Reduction:
        """One map for rows that lie behind one another, each part's by that part; outputs likewise.

        Args:
            parts: at least one. Where some are on a device all go there.

        Raises:
            MethodError: there is none.
        """
        if not parts:
            raise MethodError("no reductions can be put side by side where there is none")
        if len(parts) == 1:
            return parts[0]
        device = next((part.offsets.device for part in parts if part.offsets.device.type != "cpu"), torch.device("cpu"))
        sources = itertools.accumulate((part.inputs for part in parts), initial=0)
        entries = itertools.accumulate((part.source.shape[0] for part in parts), initial=0)
        shifts = list(zip(parts, sources, entries, strict=False))
        selects = all(part.weight is None for part in parts)
        ends = [(part.offsets[1:] + entry).to(device) for part, _, entry in shifts]
        return cls(
            offsets=torch.cat([torch.zeros(1, dtype=torch.int64, device=device), *ends]),
            source=torch.cat([(part.source + first).to(device) for part, first, _ in shifts]),
            weight=None if selects else torch.cat([part._weights().to(device) for part in parts]),
            inputs=sum(part.inputs for part in parts),
            anchor=torch.cat([(part.survivors() + first).to(device) for part, first, _ in shifts]),
        )

    @property
    def outputs(self) -> int:
        """Number of output rows."""
        return self.offsets.shape[0] - 1

    def apply(self, rows: Tensor) -> Tensor:
        """Reduce ``rows`` [inputs, ...] to [K, ...].

        Sums run in float32 and are rounded once to the dtype of ``rows``; rows with one source of weight 1 are exact
        copies. Repeated runs give the same bits.
        """
        return self.at(rows.device).apply(rows)

    def at(self, device: torch.device) -> PlacedReduction:
        """The map ready to be applied on a device, for those who apply it to several tensors: one upload at most."""
        if self.weight is None:
            (source,) = _uploaded([self.source], device)
            return PlacedReduction(self.inputs, source, None, ())
        if self.offsets.device.type == "cpu":
            return self._by_rows(self.weight, device)
        sums = _uploaded([self.source, self.offsets, self.weight], device)
        return PlacedReduction(self.inputs, None, None, tuple(sums))

    def _by_rows(self, weight: Tensor, device: torch.device) -> PlacedReduction:
        """Copy the rows with one source and sum only the others: the layout is on the host, so this costs no wait."""
        lengths, first = self.offsets.diff(), self.offsets[:-1]
        single = (lengths == 1) & (weight[first] == 1)
        copied, summed = self.source[first], torch.nonzero(~single).flatten()
        if not summed.numel():
            (copied,) = _uploaded([copied], device)
            return PlacedReduction(self.inputs, copied, None, ())
        entries = torch.repeat_interleave(~single, lengths)
        offsets = torch.cat([lengths.new_zeros(1), lengths[summed].cumsum(0)])
        parts = [copied, summed, self.source[entries], offsets, weight[entries]]
        copied, summed, *sums = _uploaded(parts, device)
        return PlacedReduction(self.inputs, copied, summed, tuple(sums))

    def destination(self) -> Tensor:
        """[inputs] int64: the output row that each input row goes into; ``y[destination]`` undoes a merge ("unmerge").

        Only for maps that use each input row once, as those of `groups` do.

        Raises:
            MethodError: they are used fewer or more times.
        """
        if self.source.shape[0] != self.inputs:
            raise MethodError(
                f"only where each input row goes into one output row it has a destination; here {self.inputs} input "
                f"rows are used {self.source.shape[0]} times"
            )
        outputs = torch.arange(self.outputs, device=self.offsets.device)
        rows = torch.repeat_interleave(outputs, self.offsets.diff(), output_size=self.source.shape[0])
        # Where rows are used twice others are missing; on a device that is not looked at, and output 0 stands for them.
        on_host = self.source.device.type == "cpu"
        found = torch.full_like(self.source, -1 if on_host else 0).scatter_(0, self.source, rows)
        if on_host and bool((found < 0).any()):
            raise MethodError(f"each input row must go into one output row, got sources {_in_short(self.source)}")
        return found

    def then(self, other: Reduction) -> Reduction:
        """Composition: first this map, then ``other`` (on the host; meant for provenance, not for the hot path)."""
        if other.inputs != self.outputs:
            raise MethodError(f"the second reduction takes {other.inputs} rows, but the first one gives {self.outputs}")
        first, second = self.to_rows(), other.to_rows()
        rows = [
            [(source, weight * share) for middle, weight in row for source, share in first[middle]] for row in second
        ]
        composed = Reduction.from_rows(rows, self.inputs)
        anchor = self.survivors().cpu()[other.survivors().cpu()]
        return Reduction(composed.offsets, composed.source, composed.weight, self.inputs, anchor)

    def among(self, rows: Tensor, inputs: int) -> Reduction:
        """The same map where its input rows were chosen out of more: `keep`, then this one, without waiting.

        Args:
            rows: [self.inputs] int64, which of the ``inputs`` rows each input row is.
            inputs: number of rows to choose from.

        Raises:
            MethodError: there is not one for each input row.
        """
        self._check_length("rows", rows, f"{self.inputs}, one an input row", rows.shape[0] == self.inputs)
        offsets, source = (part.to(rows.device, non_blocking=True) for part in (self.offsets, self.source))
        weight, anchor = (
            None if part is None else part.to(rows.device, non_blocking=True) for part in (self.weight, self.anchor)
        )
        anchor = None if anchor is None else rows[anchor]
        return Reduction(offsets=offsets, source=rows[source], weight=weight, inputs=inputs, anchor=anchor)

    def survivors(self) -> Tensor:
        """[K] int64: the input row whose place (frame, position, row, column) each output row takes."""
        return self.source.index_select(0, self.offsets[:-1]) if self.anchor is None else self.anchor

    def counts(self) -> list[int]:
        """For each output row the number of input rows it was made of (on the host)."""
        lengths: list[int] = self.offsets.diff().tolist()
        return lengths

    def to_rows(self) -> list[list[tuple[int, float]]]:
        """The map as host data: for each output row its ``(source, weight)`` pairs."""
        offsets, source = self.offsets.tolist(), self.source.tolist()
        weight = [1.0] * len(source) if self.weight is None else self.weight.tolist()
        return [
            list(zip(source[start:end], weight[start:end], strict=True)) for start, end in itertools.pairwise(offsets)
        ]


@dataclass(frozen=True, eq=False)
class PlacedReduction:
    """A `Reduction` on one device; see `Reduction.at`.

    Attributes:
        inputs: number of input rows.
        copied: [K] int64, the row that each output copies; ``None`` where all are sums.
        summed: [S] int64, the outputs that are sums instead; ``None`` where all are, or none.
        sums: sources, offsets and weights of the sums.
    """

    inputs: int
    copied: Tensor | None
    summed: Tensor | None
    sums: tuple[Tensor, ...]

    def apply(self, rows: Tensor) -> Tensor:
        """See `Reduction.apply`. Raises `MethodError` for another number of rows."""
        if rows.shape[0] != self.inputs:
            raise MethodError(f"rows has {rows.shape[0]} rows, but the reduction was made for {self.inputs}")
        if self.copied is None:
            return _weighted_sums(rows, *self.sums)
        output = rows.index_select(0, self.copied)
        if self.summed is not None:
            output.index_copy_(0, self.summed, _weighted_sums(rows, *self.sums))
        return output


def _uploaded(parts: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Vectors of int64, the last perhaps float32, brought to a device in one transfer."""
    if len(parts) == 1 or parts[0].device == device:
        return [part.to(device, non_blocking=True) for part in parts]
    packed = torch.cat([part if part.dtype == torch.int64 else part.double().view(torch.int64) for part in parts])
    there = packed.to(device, non_blocking=True).split([part.shape[0] for part in parts])
    return [
        part if like.dtype == torch.int64 else part.view(torch.float64).float()
        for part, like in zip(there, parts, strict=True)
    ]


def _in_short(values: Tensor) -> str:
    """A few values of a vector, its extremes among them."""
    shown: list[float] = values.flatten()[:6].tolist()
    dots = ", ..." if values.numel() > len(shown) else ""
    return f"[{', '.join(map(str, shown))}{dots}] (from {values.min().item()} to {values.max().item()})"


def _weighted_sums(rows: Tensor, source: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Sum ``weight * rows[source]`` over each CSR row; sequential inside a row, so the result is deterministic.

    Where tokens join several outputs the gathered rows are many times the input: a part of the columns at a time.
    """
    columns = rows.reshape(rows.shape[0], -1)
    step = max(_LEAST_COLUMNS, _CHUNK_VALUES // max(1, source.shape[0]))
    sums = []
    for part in columns.split(step, dim=1):
        gathered = part.index_select(0, source).float()
        gathered *= weight[:, None]
        sums.append(torch.segment_reduce(gathered, "sum", offsets=offsets, axis=0).to(rows.dtype))
    summed = sums[0] if len(sums) == 1 else torch.cat(sums, dim=1)
    return summed.reshape(-1, *rows.shape[1:])
