"""What is read in a measurement beside what the supplementary says."""

from __future__ import annotations

from bench.documents import document, result
from earlytom.bench.claims import CLAIMS


def measured(figure: str, place: int, made: dict) -> str:
    return CLAIMS[figure][place].measured(made)


def test_shares_and_times_are_told_with_their_range() -> None:
    made = document(retentions=(0.1, 0.25))
    text = measured("figure7", 0, made)
    times = [entry["milliseconds"] for entry in made["results"] if entry["label"] == "visionzip"]
    shares = [100 * entry["vision_encoding"]["median"] / entry["ttft"]["median"] for entry in times]
    assert f"VisionZip {min(shares):.0f} to {max(shares):.0f}%" in text
    assert "EarlyTom" not in text
    assert measured("figure7", 1, made).endswith("VisionZip 41.6 ms, HoliTom 147 ms, EarlyTom 25.6 ms")


def test_the_lowest_of_each_retention_is_counted() -> None:
    made = document()
    assert measured("figure7", 2, made) == "it has the lowest at 4 of 4 retentions"
    slower = next(entry for entry in made["results"] if entry["name"] == "earlytom 10%")
    slower["milliseconds"]["ttft"]["median"] = 5000.0
    assert measured("figure7", 2, made) == "it has the lowest at 3 of 4 retentions"
    slower["milliseconds"]["token_processing"]["median"] = 5000.0
    assert measured("figure8", 1, made) == "it has the lowest at 3 of 4 retentions"


def test_speed_ups_are_over_every_way_to_run_without_compression() -> None:
    made = document(attentions=("sdpa", "eager"))
    sdpa, eager, mine, other = (
        result("none", None, 32), result("none", None, 32, "eager"), result("earlytom", 0.1, 32),
        result("holitom", 0.1, 32),
    )  # fmt: skip
    ttft = [entry["milliseconds"]["ttft"]["median"] for entry in (sdpa, eager, mine, other)]
    expected = f"EarlyTom at 10%: {ttft[0] / ttft[2]:.2f}x over sdpa, {ttft[1] / ttft[2]:.2f}x over eager"
    assert measured("figure7", 3, made) == measured("figure8", 2, made) == expected
    assert measured("figure8", 0, made).startswith(f"HoliTom at 10%: {ttft[0] / ttft[3]:.2f}x over sdpa")


def test_what_was_not_measured_is_told_as_such() -> None:
    made = document(methods=("visionzip",), retentions=(0.25,))
    assert measured("figure7", 3, made) == "not measured"
    assert "HoliTom not measured" in measured("figure7", 0, made)
    assert measured("figure7", 2, made) == "it has the lowest at 0 of 0 retentions"
