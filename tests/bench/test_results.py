"""Results as plain data, and as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.documents_of_results import example, result
from earlytom.bench.report import NOTES, facts, tables, to_markdown
from earlytom.bench.results import Tokens
from earlytom.bench.running import with_paper_flops
from earlytom.bench.tables import Table, plain_table


def rows(title: str, found=None) -> dict[tuple[str, str], dict[str, str]]:
    (table,) = [one for one in tables(found or example()) if one.title == title]
    return {row[:2]: dict(zip(table.columns, row, strict=True)) for row in table.cells}


def test_speed_ups_are_over_sdpa_of_the_same_frames() -> None:
    found = rows("Time to first token")
    assert found["none sdpa", "8"]["speed-up"] == "1.00x"
    assert found["none eager", "8"]["speed-up"] == "0.50x"
    assert found["earlytom 25%", "8"]["speed-up"] == "4.00x"
    assert found["earlytom 25%", "16"]["speed-up"] == "-"  # no plain model there
    assert found["earlytom 25%", "8"]["TTFT (ms)"] == "25.0"
    assert found["earlytom 25%", "8"]["quartiles"] == "[22.5, 27.5]"
    assert found["earlytom 25%", "8"]["vision encoding"] == "5.0"
    wait = rows("The wait from the file to the first token")
    assert wait["earlytom 25%", "8"]["quartiles"] == "-"  # of a single run


def test_what_was_not_measured_is_no_zero() -> None:
    bare = example(results=[result("earlytom 25%", "earlytom", 25.0, bare=True)])
    assert rows("Peak memory (MiB)", bare)["earlytom 25%", "8"]["all"] == "-"
    assert rows("Work up to the first token", bare)["earlytom 25%", "8"]["TFLOP"] == "-"
    assert rows("The wait from the file to the first token", bare)["earlytom 25%", "8"]["wait (ms)"] == "-"
    plain = bare.to_dict()["results"][0]
    assert plain["flops"] is None
    assert plain["milliseconds"]["wait"] is None
    assert plain["peak_bytes"]["all"] is None


def test_memory_tokens_and_work_are_those_of_the_result() -> None:
    assert rows("Peak memory (MiB)")["earlytom 25%", "8"]["prefill"] == "3.0"
    tokens = rows("Tokens")["earlytom 25%", "8"]
    assert (tokens["visual tokens"], tokens["left behind layers"]) == ("32 of 128", "6 (3), 5 (10)")
    work = rows("Work up to the first token")["earlytom 25%", "8"]
    assert (work["TFLOP"], work["encoder"], work["paper's"]) == ("10", "4", "7")
    assert (work["operations"], work["waits"]) == ("123", "4")


def test_the_document_holds_facts_tables_and_what_was_left_out() -> None:
    text = to_markdown(example())
    assert text.startswith("# Time, memory and work\n")
    for words in (
        "- model: tiny (random, seed 0, 0.5 B parameters)",
        "- clip: generated, 40% of the sampled frames nearly repeat the one before (50% of its time stands still)",
        "- left out: fastv 25%, 8 frames: no room",
        "- command: `earlytom bench`",
        "## Peak memory (MiB)",
        "| none sdpa | 8 |",
    ):
        assert words in text, words
    assert dict(facts(example()))["runs"] == "3 of each in turns, after 1 warm-up(s)"


def test_speed_ups_tell_what_they_are_over_where_that_is_not_sdpa() -> None:
    given = example()
    text = to_markdown(replace(given, results=given.results[1:3]))
    assert "| none eager | 8 | 200.0 | [180.0, 220.0] | 1.00x over none eager |" in text
    assert "8.00x over none eager" in text
    assert " over none" not in to_markdown(given).replace(NOTES, "")


def test_frames_that_were_asked_for_are_told_where_the_clip_has_fewer() -> None:
    short = replace(result("none sdpa", "none", 100.0, frames=24), frames_asked=64)
    (before, after) = (replace(short, frames_asked=32), short)
    found = replace(example(), results=[before, after])
    assert (found.reference(32), found.reference(64), found.reference(24)) == (before, after, None)
    assert "| none sdpa | 24 of 64 asked for |" in to_markdown(found)


def test_results_as_plain_data_follow_the_schema() -> None:
    plain = example().to_dict()
    assert plain["schema"] == "earlytom.bench/1"
    entry = plain["results"][2]
    assert entry["tokens"]["grids_after"] == {"3": 6, "10": 5}
    assert entry["flops"] == {
        "encoder": 4 * 10**12,
        "projection": 1 * 10**12,
        "decisions": 2 * 10**12,
        "prefill": 3 * 10**12,
        "total": 10 * 10**12,
        "paper": {"language": 3 * 10**12, "vision": 4 * 10**12, "total": 7 * 10**12},
    }
    assert entry["milliseconds"]["ttft"] == {
        "median": 25.0,
        "lower_quartile": 22.5,
        "upper_quartile": 27.5,
        "values": [20.0, 25.0, 30.0],
    }


def test_the_papers_accounting_follows_tokens_and_the_encoders_share() -> None:
    """LLaVA-OneVision-7B at 32 frames: 82.6 T plain, 50.5 T for VisionZip at 25%."""
    whole = Tokens(uncompressed=6272, visual=6272, prefill=6310, average_per_layer=6272, temporal_grids=32)
    plain = replace(result("none sdpa", "none", 100.0, frames=32), tokens=whole)
    short = replace(result("visionzip 25%", "visionzip", 50.0, frames=32), tokens=replace(whole, visual=1568))
    half = replace(short, flops=replace(short.flops, encoder=short.flops.encoder // 2))
    inside = replace(short, tokens=replace(short.tokens, inside={14: 100}))
    alone = replace(short, frames=64)  # no plain model of so many frames to compare with
    found = [one.flops.paper for one in with_paper_flops([plain, short, half, inside, alone], "llava-onevision-7b", 28)]
    assert found[0]["total"] == pytest.approx(82.6e12, rel=0.01)
    assert found[1]["total"] == pytest.approx(50.5e12, rel=0.01)
    assert found[2]["vision"] == pytest.approx(found[1]["vision"] / 2)
    assert found[2]["language"] == found[1]["language"] > found[3]["language"]
    assert found[4] == short.flops.paper  # as it was


def test_tables_are_written_plainly_and_as_markdown() -> None:
    made = Table(title="T", columns=("", "a|b"), right=("a|b",), cells=(("one", "1"), ("three", "33")))
    assert made.to_markdown() == "## T\n\n|  | a\\|b |\n| --- | ---: |\n| one | 1 |\n| three | 33 |"
    assert plain_table(["", "n"], [["one", "1"], ["three", "33"]]).splitlines() == [
        "        n",
        "-----  --",
        "one     1",
        "three  33",
    ]
