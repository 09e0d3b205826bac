"""What plots read from a document."""

from __future__ import annotations

from bench.documents import document, result
from earlytom.bench.plots.readings import find_baseline, median, names_of, peak, quartiles, retentions_of, usual_frames


def test_what_was_not_measured_is_none() -> None:
    made = result("earlytom", 0.1, 8)
    assert median(made, "ttft") == made["milliseconds"]["ttft"]["median"]
    assert median(made, "throughput", None) == made["throughput"]["median"]
    lower, upper = quartiles(made, "ttft") or (0.0, 0.0)
    assert lower < (median(made, "ttft") or 0.0) < upper
    made |= {"milliseconds": {"ttft": None}, "throughput": None, "peak_bytes": {"all": None}}
    assert (median(made, "ttft"), median(made, "decode"), quartiles(made, "ttft")) == (None, None, None)
    assert (median(made, "throughput", None), peak(made), peak({})) == (None, None, None)


def test_the_reference_is_the_plain_model_with_torch_s_attention() -> None:
    made = document(attentions=("eager", "sdpa"))["results"]
    assert find_baseline(made) is made[1]
    assert find_baseline(made[:1]) is made[0]
    assert find_baseline(made[2:]) is None


def test_names_tell_apart_what_stands_side_by_side() -> None:
    eager, sdpa, method, other = (
        result("none", None, 8, "eager"), result("none", None, 8), result("earlytom", 0.1, 8), result("mine", 0.1, 8)
    )  # fmt: skip
    assert names_of([sdpa, method, other]) == ["no compression", "EarlyTom", "mine"]
    assert names_of([eager, sdpa]) == ["no compression, eager", "no compression, sdpa"]
    again = method | {"name": "earlytom 10% again"}
    assert names_of([method, again]) == ["earlytom 10%", "earlytom 10% again"]


def test_retentions_ascend_and_methods_without_one_come_last() -> None:
    made = document(retentions=(0.25, 0.1))["results"]
    assert retentions_of(made) == [0.1, 0.25]
    assert retentions_of([*made, result("earlytom", None, 32)]) == [0.1, 0.25, None]


def test_the_usual_number_of_frames_has_the_most_results() -> None:
    made = document(frames=(8, 32))
    assert usual_frames(made) == 8
    assert usual_frames({"results": [*made["results"], result("mine", 0.1, 32)]}) == 32
    assert usual_frames({"results": []}) is None
