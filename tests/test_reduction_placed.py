"""Several maps at once, and one map for several tensors: what each does on its own, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import earlytom.reduction
from claimed_device import Claimed, ClaimedDevice, claim
from earlytom import MethodError, Reduction
from reference.maps import DTYPES, bits, on_a_device, sparse_rows
from reference.strategies import quick

# As a device, another one than that of tensors made here: what goes there is packed into one transfer.
ELSEWHERE = torch.device("cpu", 0)


@st.composite
def reductions(draw: st.DrawFn) -> Reduction:
    """Any map: the identity, a selection, copies beside sums, groups with places of their own, sums alone, or none."""
    inputs = draw(st.integers(1, 7))
    kind = draw(st.sampled_from(["identity", "selection", "rows", "groups", "sparse", "sums", "nothing"]))
    if kind == "identity":
        return Reduction.identity(inputs)
    if kind == "nothing":
        return Reduction.keep(torch.arange(0), inputs)
    if kind == "selection":
        return Reduction.keep(torch.tensor(draw(st.lists(st.integers(0, inputs - 1), min_size=1, max_size=6))), inputs)
    rows = draw(sparse_rows(inputs))
    if kind == "sums":
        rows = [[*row, (0, 0.5)] for row in rows]
    if kind == "groups":
        assignment = draw(st.lists(st.integers(0, 2), min_size=inputs, max_size=inputs))
        used = sorted(set(assignment))
        groups = torch.tensor([used.index(group) for group in assignment])
        anchor = torch.tensor([draw(st.integers(0, inputs - 1)) for _ in used])
        return Reduction.groups(groups, torch.linspace(0.25, 1, inputs), anchor)
    if kind == "sparse":
        entries = [(number, source, weight) for number, row in enumerate(rows) for source, weight in row]
        row, source, weight = (torch.tensor([entry[part] for entry in entries]) for part in range(3))
        anchor = torch.tensor([draw(st.integers(0, inputs - 1)) for _ in rows])
        return Reduction.sparse(row, source, weight, entries=len(entries), inputs=inputs, anchor=anchor)
    return Reduction.from_rows(rows, inputs)


def rows_for(parts: list[Reduction], dtype: torch.dtype, seed: int) -> list[Tensor]:
    """[inputs, 2, 3] for each part, zeros of both signs and an infinite value among them."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(part.inputs, 2, 3, generator=generator).to(dtype) for part in parts]
    for rows in made:
        rows[0, 0, 0], rows[-1, 1, 1], rows[rows.shape[0] // 2, 1, 2] = -0.0, 0.0, float("inf")
    return made


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Whether all values are the same, those that are no numbers included."""
    return found.dtype == expected.dtype and torch.equal(bits(found), bits(expected))


several = st.lists(reductions(), min_size=1, max_size=5)


@quick
@given(several, st.sampled_from(DTYPES), st.integers(0, 1000))
def test_maps_side_by_side_equal_each_on_its_own_bit_for_bit(parts, dtype, seed) -> None:
    whole, rows = Reduction.side_by_side(parts), rows_for(parts, dtype, seed)
    expected = torch.cat([part.apply(own) for part, own in zip(parts, rows, strict=True)])
    assert same_bits(whole.apply(torch.cat(rows)), expected)
    assert (whole.inputs, whole.outputs) == (sum(part.inputs for part in parts), sum(part.outputs for part in parts))


@quick
@given(several)
def test_maps_side_by_side_keep_their_rows_and_places(parts) -> None:
    whole, first = Reduction.side_by_side(parts), 0
    rows, places = [], []
    for part in parts:
        rows += [[(source + first, weight) for source, weight in row] for row in part.to_rows()]
        places += [place + first for place in part.survivors().tolist()]
        first += part.inputs
    assert whole.to_rows() == rows
    assert whole.survivors().tolist() == places
    assert (whole.weight is None) == all(part.weight is None for part in parts)
    whole.check_values()


@quick
@given(several, st.sampled_from(DTYPES), st.integers(0, 1000))
def test_maps_side_by_side_laid_out_as_on_a_device_equal_each_on_its_own(parts, dtype, seed) -> None:
    """All outputs are sums there once any are, so that a copied -0.0 may come out as 0.0; nothing else differs."""
    whole, rows = Reduction.side_by_side(parts), rows_for(parts, dtype, seed)
    found = on_a_device(whole).apply(torch.cat(rows))
    alike = [part if whole.weight is None else replace(part, weight=part._weights()) for part in parts]
    summed = torch.cat([on_a_device(part).apply(own) for part, own in zip(alike, rows, strict=True)])
    assert same_bits(found, summed)
    own = torch.cat([part.apply(own) for part, own in zip(parts, rows, strict=True)])
    torch.testing.assert_close(found, own, rtol=0, atol=0, equal_nan=True)


def test_one_map_alone_stays_itself() -> None:
    alone = Reduction.from_rows([[(0, 0.5), (1, 0.5)]], 2)
    assert Reduction.side_by_side([alone]) is alone


@pytest.mark.parametrize("first", [0, 1], ids=["the host first", "the device first"])
@pytest.mark.parametrize("weighted", [False, True])
def test_maps_on_host_and_device_meet_on_the_device(first, weighted) -> None:
    weights = torch.ones(2) if weighted else None
    there = Reduction(*(part.to("meta") for part in (torch.arange(3), torch.arange(2))), None, 4)
    there = replace(there, weight=None if weights is None else weights.to("meta"))
    parts = [Reduction.keep(torch.tensor([2, 0, 1]), 3), there]
    whole = Reduction.side_by_side(parts[first:] + parts[:first])
    assert (whole.inputs, whole.outputs) == (7, 5)
    laid = [whole.offsets, whole.source, whole.anchor, *([whole.weight] if weighted else [])]
    assert {part.device.type for part in laid} == {"meta"}
    assert (whole.weight is None) == (not weighted)
    assert whole.apply(torch.zeros(7, 3, device="meta")).shape == (5, 3)


@quick
@given(reductions(), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_a_map_brought_somewhere_in_one_piece_does_the_same(reduction, dtype, seed) -> None:
    (rows,) = rows_for([reduction], dtype, seed)
    placed = reduction.at(ELSEWHERE)
    for values in (rows, rows.flatten(1), rows[:, 0, 1], rows.flip(0)):
        assert same_bits(placed.apply(values), reduction.apply(values))


@quick
@given(reductions(), st.sampled_from(DTYPES))
def test_a_placed_map_serves_many_tensors_and_leaves_them_alone(reduction, dtype) -> None:
    placed = reduction.at(torch.device("cpu"))
    for seed, shape in enumerate([(), (1,), (5,), (2, 3)]):
        rows = torch.randn(reduction.inputs, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        before = rows.clone()
        found = placed.apply(rows)
        assert found.shape == (reduction.outputs, *shape)
        assert same_bits(found, reduction.apply(rows))
        assert same_bits(rows, before)


def test_only_what_is_summed_is_gathered(monkeypatch) -> None:
    """Where the map lies on the host, rows that are copied take no part in the sums."""
    gathered: list[int] = []
    original = earlytom.reduction._weighted_sums
    monkeypatch.setattr(
        "earlytom.reduction._weighted_sums",
        lambda rows, source, *others: gathered.append(source.shape[0]) or original(rows, source, *others),
    )
    rows = torch.randn(6, 4)
    Reduction.from_rows([[(0, 1.0)], [(3, 0.5), (4, 0.5)], [(2, 1.0)], [(1, 0.5)]], 6).apply(rows)
    written = Reduction(torch.arange(3), torch.tensor([5, 1]), torch.ones(2), 6)
    assert torch.equal(written.apply(rows), rows[[5, 1]])
    assert gathered == [3]


def test_a_placed_map_refuses_another_number_of_rows() -> None:
    for placed in (Reduction.identity(3).at(ELSEWHERE), on_a_device(Reduction.from_rows([[(0, 0.5)]], 3))):
        with pytest.raises(MethodError, match="rows has 4 rows, but the reduction was made for 3"):
            placed.apply(torch.randn(4, 2))


@quick
@given(several, st.integers(0, 31), st.sampled_from(DTYPES), st.integers(0, 1000))
def test_maps_of_which_some_lie_on_a_device_do_there_what_they_do_on_the_host(parts, claimed, dtype, seed) -> None:
    """Whichever of them do: nothing waits for the device."""
    rows = rows_for(parts, dtype, seed)
    expected = torch.cat([part.apply(own) for part, own in zip(parts, rows, strict=True)])
    with ClaimedDevice() as device:
        there = [_claimed(part) if claimed >> number & 1 else part for number, part in enumerate(parts)]
        together = claim(torch.cat(rows))
        device.reset()
        found = Reduction.side_by_side(there).apply(together)
        assert not device.waits
    assert isinstance(found, Claimed)
    torch.testing.assert_close(found.held, expected, rtol=0, atol=0, equal_nan=True)


def _claimed(reduction: Reduction) -> Reduction:
    parts = (reduction.offsets, reduction.source, reduction.weight)
    return Reduction(
        *(None if part is None else claim(part) for part in parts), reduction.inputs, claim(reduction.survivors())
    )


@quick
@given(reductions())
def test_a_map_of_the_host_goes_to_a_device_in_one_upload(reduction) -> None:
    rows = claim(torch.randn(reduction.inputs, 3, generator=torch.Generator().manual_seed(0)))
    with ClaimedDevice() as device:
        placed = reduction.at(rows.device)
        assert (device.uploads, device.waits) == (1, {})
        device.reset()
        first, second = placed.apply(rows), placed.apply(rows)
        assert (device.uploads, device.waits) == (0, {})
    assert same_bits(first.held, reduction.apply(rows.held))
    assert same_bits(second.held, first.held)


@pytest.mark.gpu
def test_maps_on_a_gpu_do_what_they_do_on_the_host() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    parts = [
        Reduction.keep(torch.tensor([2, 0]), 3),
        Reduction.from_rows([[(0, 0.5), (1, 0.5)], [(2, 1.0)]], 3),
        Reduction.from_rows([[(1, 0.25), (0, 0.5), (2, 0.25)]], 3),
    ]
    rows = torch.randn(9, 2, 5, generator=torch.Generator().manual_seed(0))
    expected = Reduction.side_by_side(parts).apply(rows)
    for there in range(4):
        moved = [_moved(part) if number < there else part for number, part in enumerate(parts)]
        torch.testing.assert_close(Reduction.side_by_side(moved).apply(rows.cuda()).cpu(), expected)


def _moved(reduction: Reduction) -> Reduction:
    weight, anchor = reduction.weight, reduction.survivors().cuda()
    moved = (reduction.offsets.cuda(), reduction.source.cuda(), None if weight is None else weight.cuda())
    return Reduction(*moved, reduction.inputs, anchor)


def test_nothing_cannot_be_put_side_by_side() -> None:
    with pytest.raises(MethodError, match="there is none"):
        Reduction.side_by_side([])
