"""The algebra of `Reduction`: a dense matrix says what each operation must give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from earlytom import MethodError, Reduction
from reference.maps import DTYPES, bits, on_a_device, sparse_rows
from reference.strategies import quick


def matrix(rows: list[list[tuple[int, float]]], inputs: int) -> Tensor:
    dense = torch.zeros(len(rows), inputs, dtype=torch.float64)
    for number, row in enumerate(rows):
        for source, weight in row:
            dense[number, source] += weight
    return dense


def general(reduction: Reduction, rows: Tensor) -> Tensor:
    """What `apply` gives on its general path: one column at a time, as rows without further dimensions."""
    columns = rows.flatten(1).unbind(1)
    return torch.stack([on_a_device(reduction).apply(column) for column in columns], dim=1).view(-1, *rows.shape[1:])


def with_extremes(dtype: torch.dtype) -> Tensor:
    rows = torch.randn(6, 3, 4).to(dtype)
    rows[1, 0] = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    rows[2, 1, 0] = torch.finfo(dtype).smallest_normal / 2
    return rows


@pytest.mark.parametrize("dtype", DTYPES)
def test_identity_changes_no_bit(dtype) -> None:
    rows = with_extremes(dtype)
    assert torch.equal(bits(Reduction.identity(6).apply(rows)), bits(rows))


@pytest.mark.parametrize("dtype", DTYPES)
def test_keep_copies_bit_for_bit(dtype) -> None:
    rows, indices = with_extremes(dtype), torch.tensor([1, 2, 5])
    assert torch.equal(bits(Reduction.keep(indices, 6).apply(rows)), bits(rows[indices]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_single_sources_of_weight_one_are_exact_copies_beside_weighted_rows(dtype) -> None:
    rows = with_extremes(dtype)
    reduction = Reduction.from_rows([[(0, 1.0)], [(1, 1.0)], [(3, 0.5), (4, 0.5)], [(2, 1.0)]], 6)
    assert torch.equal(bits(reduction.apply(rows)[[0, 1, 3]]), bits(rows[[0, 1, 2]]))


@quick
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n))), st.integers(0, 1000))
def test_apply_equals_the_dense_matrix(case, seed) -> None:
    inputs, rows = case
    reduction = Reduction.from_rows(rows, inputs)
    values = torch.randn(inputs, 2, 3, generator=torch.Generator().manual_seed(seed))
    expected = torch.einsum("kn,nab->kab", matrix(rows, inputs), values.double())
    torch.testing.assert_close(reduction.apply(values).double(), expected, atol=1e-5, rtol=1e-5)
    assert (reduction.inputs, reduction.outputs) == (inputs, len(rows))


@quick
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n))), st.sampled_from(DTYPES))
def test_the_row_path_of_the_cpu_equals_the_general_path(case, dtype) -> None:
    inputs, rows = case
    reduction = Reduction.from_rows(rows, inputs)
    values = torch.randn(inputs, 2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert torch.equal(reduction.apply(values), general(reduction, values))


@quick
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n))), st.sampled_from(DTYPES))
def test_runs_repeat_bit_for_bit_and_leave_the_input_alone(case, dtype) -> None:
    inputs, rows = case
    reduction = Reduction.from_rows(rows, inputs)
    values = torch.randn(inputs, 5).to(dtype)
    before = values.clone()
    assert torch.equal(bits(reduction.apply(values)), bits(reduction.apply(values)))
    assert torch.equal(bits(values), bits(before))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sums_run_in_float32_and_round_once(dtype) -> None:
    # Seeded: a sum in float32 may lie on the other side of a rounding border than the exact one, if seldom.
    values = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)).to(dtype)
    reduction = Reduction.from_rows([[(i, 1 / 40) for i in range(40)]], 40)
    exact = values.double().mean(dim=0)
    assert torch.equal(reduction.apply(values)[0], exact.to(dtype))


def test_from_rows_round_trips() -> None:
    rows = [[(2, 0.5), (0, 0.25)], [(1, 1.0)], [(1, -2.0)]]
    assert Reduction.from_rows(rows, 3).to_rows() == rows
    assert Reduction.from_rows(rows, 3).counts() == [2, 1, 1]


def test_from_rows_of_copies_is_a_pure_selection() -> None:
    assert Reduction.from_rows([[(2, 1.0)], [(0, 1.0)]], 3).weight is None
    assert Reduction.from_rows([[(2, 0.5)], [(0, 1.0)]], 3).weight is not None


def test_a_reduction_to_nothing_gives_no_rows() -> None:
    empty = Reduction.from_rows([], 3)
    assert empty.outputs == 0
    assert empty.apply(torch.randn(3, 4)).shape == (0, 4)


@quick
@given(st.integers(1, 12), st.data())
def test_groups_equal_the_dense_matrix(inputs, data) -> None:
    outputs = data.draw(st.integers(1, inputs))
    rest = st.lists(st.integers(0, outputs - 1), min_size=inputs - outputs, max_size=inputs - outputs)
    assignment = data.draw(st.permutations([*range(outputs), *data.draw(rest)]))
    weight = torch.tensor(data.draw(st.lists(st.floats(-1, 1, width=32), min_size=inputs, max_size=inputs)))
    anchor = torch.tensor([assignment.index(output) for output in range(outputs)])
    reduction = Reduction.groups(torch.tensor(assignment), weight, anchor)
    rows = [[(i, float(weight[i])) for i in range(inputs) if assignment[i] == j] for j in range(outputs)]
    assert reduction.to_rows() == rows
    assert (reduction.inputs, reduction.outputs) == (inputs, outputs)
    assert torch.equal(reduction.survivors(), anchor)
    values = torch.randn(inputs, 3, generator=torch.Generator().manual_seed(0))
    expected = matrix(rows, inputs) @ values.double()
    torch.testing.assert_close(reduction.apply(values).double(), expected, atol=1e-5, rtol=1e-5)


@quick
@given(st.data())
def test_then_equals_applying_one_after_the_other(data) -> None:
    inputs = data.draw(st.integers(1, 7))
    first = Reduction.from_rows(data.draw(sparse_rows(inputs)), inputs)
    second = Reduction.from_rows(data.draw(sparse_rows(first.outputs)), first.outputs)
    both = first.then(second)
    values = torch.randn(inputs, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(both.apply(values), second.apply(first.apply(values)), atol=1e-4, rtol=1e-4)
    assert torch.equal(both.survivors(), first.survivors()[second.survivors()])
    assert (both.inputs, both.outputs) == (inputs, second.outputs)


@quick
@given(st.data())
def test_composition_is_associative(data) -> None:
    inputs = data.draw(st.integers(1, 6))
    first = Reduction.from_rows(data.draw(sparse_rows(inputs)), inputs)
    second = Reduction.from_rows(data.draw(sparse_rows(first.outputs)), first.outputs)
    third = Reduction.from_rows(data.draw(sparse_rows(second.outputs)), second.outputs)
    left, right = first.then(second).then(third), first.then(second.then(third))
    assert left.counts() == right.counts()
    torch.testing.assert_close(matrix(left.to_rows(), inputs), matrix(right.to_rows(), inputs), atol=1e-4, rtol=1e-5)
    assert torch.equal(left.survivors(), right.survivors())


@quick
@given(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n))))
def test_the_identity_is_neutral_in_compositions(case) -> None:
    inputs, rows = case
    reduction = Reduction.from_rows(rows, inputs)
    for same in (Reduction.identity(inputs).then(reduction), reduction.then(Reduction.identity(reduction.outputs))):
        assert same.to_rows() == reduction.to_rows()
        assert torch.equal(same.survivors(), reduction.survivors())


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n))), st.data())
def test_among_more_rows_is_choosing_some_first(case, data) -> None:
    inputs, rows = case
    whole = inputs + data.draw(st.integers(0, 4))
    chosen = torch.tensor(data.draw(st.permutations(range(whole)))[:inputs])
    second = Reduction.from_rows(rows, inputs)
    anchored = replace(second, anchor=second.survivors().flip(0))
    for reduction in (second, anchored):
        assert reduction.among(chosen, whole) == Reduction.keep(chosen, whole).then(reduction)
    with pytest.raises(MethodError, match=rf"rows must have {inputs}, one an input row value\(s\), got {inputs + 1}"):
        second.among(torch.zeros(inputs + 1, dtype=torch.int64), whole)


def test_composed_selections_stay_bit_exact_copies() -> None:
    both = Reduction.keep(torch.tensor([4, 2, 0]), 5).then(Reduction.keep(torch.tensor([0, 2]), 3))
    assert both.weight is None
    assert both.source.tolist() == [4, 0]


def test_the_first_source_lends_its_place_unless_there_is_an_anchor() -> None:
    reduction = Reduction.from_rows([[(1, 0.5), (2, 0.5)], [(0, 1.0)]], 3)
    assert reduction.survivors().tolist() == [1, 0]
    anchored = replace(reduction, anchor=torch.tensor([2, 0]))
    assert anchored.survivors().tolist() == [2, 0]
    assert anchored.then(Reduction.keep(torch.tensor([0]), 2)).survivors().tolist() == [2]


def test_a_wrong_number_of_rows_raises() -> None:
    with pytest.raises(ValueError, match="rows has 4 rows, but the reduction was made for 3"):
        Reduction.identity(3).apply(torch.randn(4, 2))


def test_reductions_that_do_not_fit_do_not_compose() -> None:
    with pytest.raises(ValueError, match="takes 2 rows, but the first one gives 3"):
        Reduction.identity(3).then(Reduction.identity(2))


@quick
@given(st.data())
def test_scattered_entries_are_sorted_by_row_and_those_without_a_row_left_out(data) -> None:
    inputs = data.draw(st.integers(1, 8))
    rows = data.draw(sparse_rows(inputs))
    entries = [(number, source, weight) for number, row in enumerate(rows) for source, weight in row]
    entries += [(len(rows), source, 7.0) for source in data.draw(st.lists(st.integers(0, inputs - 1), max_size=4))]
    order = data.draw(st.permutations(range(len(entries))))
    row, source, weight = (torch.tensor([entries[i][part] for i in order]) for part in range(3))
    anchor = torch.arange(len(rows)) % inputs
    left = sum(len(part) for part in rows)
    reduction = Reduction.sparse(row, source, weight, entries=left, inputs=inputs, anchor=anchor)
    features = torch.randn(inputs, 3, dtype=torch.float64)
    assert reduction.counts() == [len(part) for part in rows]
    torch.testing.assert_close(
        reduction.apply(features.float()).double(), matrix(rows, inputs) @ features, atol=1e-5, rtol=1e-5
    )
    assert torch.equal(reduction.survivors(), anchor)


@pytest.mark.parametrize("shape", [(300,), (30, 10)])
def test_wide_sums_are_made_by_parts_of_the_columns(shape, monkeypatch) -> None:
    reduction = Reduction.from_rows([[(0, 0.5), (1, 0.5)], [(2, 1.0)], [(3, 0.25), (0, 0.75)]], 4)
    rows = torch.randn(4, *shape)
    whole = reduction.apply(rows)
    monkeypatch.setattr("earlytom.reduction._CHUNK_VALUES", 1)
    assert torch.equal(reduction.apply(rows), whole)


@quick
@given(st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_destination_undoes_a_merge(assignment) -> None:
    used = sorted(set(assignment))
    groups = torch.tensor([used.index(group) for group in assignment])
    anchor = torch.tensor([assignment.index(group) for group in used])
    reduction = Reduction.groups(groups, torch.ones(len(assignment)), anchor)
    assert reduction.destination().tolist() == groups.tolist()
    assert Reduction.identity(len(assignment)).destination().tolist() == list(range(len(assignment)))


@pytest.mark.parametrize("kept", [[0, 2], [0, 1, 1, 2]])
def test_rows_that_go_nowhere_or_twice_have_no_destination(kept) -> None:
    with pytest.raises(ValueError, match=f"3 input rows are used {len(kept)} times"):
        Reduction.keep(torch.tensor(kept), 3).destination()


TWO = torch.tensor([0, 1])
HALVES = torch.tensor([0.5, 0.5])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (dict(offsets=torch.tensor([0, 1, 1, 2]), source=TWO, weight=HALVES), r"each output with one at least"),
        (dict(offsets=torch.tensor([0, 2, 1]), source=TWO, weight=HALVES), r"must rise from 0 to the 2 sources"),
        (dict(offsets=torch.tensor([1, 2]), source=TWO, weight=HALVES), r"must rise from 0"),
        (dict(offsets=torch.tensor([0, 1]), source=TWO, weight=HALVES), r"must rise from 0 to the 2 sources"),
        (dict(offsets=torch.tensor([], dtype=torch.int64), source=TWO, weight=HALVES), r"offsets must have at least 1"),
        (dict(offsets=torch.tensor([0, 1, 2]), source=torch.tensor([0, 3]), weight=None), r"\(0 to 2\), got \[0, 3\]"),
        (dict(offsets=torch.tensor([0, 1, 2]), source=torch.tensor([-1, 0]), weight=None), r"source must name rows"),
        (dict(offsets=torch.tensor([0, 2]), source=TWO, weight=None), r"source must have 1, one an output"),
        (dict(offsets=torch.tensor([0, 2]), source=TWO, weight=torch.tensor([0.5])), r"weight must have 2 like source"),
        (
            dict(offsets=torch.tensor([0, 2]), source=TWO, weight=torch.tensor([0.5, float("nan")])),
            r"weights must be fin",
        ),
        (
            dict(offsets=torch.tensor([0, 2]), source=TWO, weight=HALVES.double()),
            r"weight must be one-dimensional, torch",
        ),
        (
            dict(offsets=torch.tensor([0, 2]), source=TWO.int(), weight=HALVES),
            r"source must be one-dimensional, torch.int",
        ),
        (dict(offsets=torch.tensor([0, 2]), source=TWO[None], weight=HALVES), r"source must be one-dimensional"),
        (
            dict(offsets=torch.tensor([0, 2]), source=TWO.to("meta"), weight=HALVES),
            r"on cpu like offsets; got .* on meta",
        ),
        (
            dict(offsets=torch.tensor([0, 2]), source=TWO, weight=HALVES, anchor=torch.tensor([3])),
            r"anchor must name rows",
        ),
        (dict(offsets=torch.tensor([0, 2]), source=TWO, weight=HALVES, anchor=TWO), r"anchor must have 1, one an outp"),
        (dict(offsets=torch.tensor([0, 2]), source=TWO, weight=HALVES, inputs=-1), r"inputs must be a number of rows"),
    ],
)
def test_what_is_no_map_is_refused_when_it_is_made(parts, message) -> None:
    with pytest.raises(MethodError, match=message):
        Reduction(**({"inputs": 3} | parts))


def test_every_maker_refuses_rows_out_of_range() -> None:
    for make in (
        lambda: Reduction.keep(torch.tensor([5]), 3),
        lambda: Reduction.from_rows([[(0, 0.5), (7, 0.5)]], 3),
        lambda: Reduction.from_rows([[(0, 1.0)], []], 3),
        lambda: Reduction.groups(torch.tensor([0, 0]), HALVES, torch.tensor([2])),
        lambda: Reduction.groups(torch.tensor([0, 0]), HALVES, TWO),
    ):
        with pytest.raises(MethodError):
            make()


def test_values_on_a_device_are_looked_at_when_asked() -> None:
    """Making one there must not wait for the device."""
    made = Reduction.keep(torch.tensor([5], device="meta"), 3)
    assert made.outputs == 1


def test_equal_are_those_that_do_the_same() -> None:
    kept = Reduction.keep(torch.tensor([0, 2]), 3)
    written = Reduction(torch.tensor([0, 1, 2]), torch.tensor([0, 2]), torch.ones(2), 3, torch.tensor([0, 2]))
    assert kept == written
    assert hash(kept) == hash(written)
    assert kept == Reduction.from_rows([[(0, 1.0)], [(2, 1.0)]], 3)
    for other in (
        Reduction.keep(torch.tensor([0, 1]), 3),
        Reduction.keep(torch.tensor([0, 2]), 4),
        Reduction.keep(torch.tensor([0]), 3),
        replace(written, anchor=torch.tensor([1, 2])),
        replace(written, weight=torch.tensor([1.0, 0.5])),
        Reduction(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 2]), torch.tensor([0.5, 0.5, 1.0]), 3),
        "something else",
    ):
        assert kept != other


@quick
@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), sparse_rows(n), sparse_rows(n))))
def test_equality_is_that_of_rows_and_places(case) -> None:
    inputs, first, second = case
    one, other = Reduction.from_rows(first, inputs), Reduction.from_rows(second, inputs)
    assert one == Reduction.from_rows(first, inputs)
    assert (one == other) == (one.to_rows() == other.to_rows())


def test_a_row_without_a_place_has_no_destination() -> None:
    twice = Reduction(torch.tensor([0, 1, 2]), torch.tensor([0, 0]), None, 2)
    with pytest.raises(MethodError, match="each input row must go into one output row"):
        twice.destination()


def test_what_is_no_tensor_is_named() -> None:
    with pytest.raises(MethodError, match=r"offsets must be a tensor, got \[0, 1\]"):
        Reduction([0, 1], torch.tensor([0]), None, 1)
    with pytest.raises(MethodError, match="inputs must be a number of rows, got True"):
        Reduction(torch.tensor([0, 1]), torch.tensor([0]), None, True)
    with pytest.raises(MethodError, match="assignment must name the 2 output rows"):
        Reduction.groups(torch.tensor([0, 0, 2]), torch.ones(3), torch.tensor([0, 1]))
