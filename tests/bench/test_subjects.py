"""Who is compared."""

from __future__ import annotations

from earlytom import parse_method
from earlytom.bench.subjects import make_subjects


def methods(*texts: str) -> list[tuple[str, object]]:
    return [(text.partition(":")[0], parse_method(text)) for text in texts]


def test_the_plain_model_runs_with_both_attentions_and_methods_with_one() -> None:
    made = make_subjects(methods("none", "earlytom:retention=0.1", "earlytom:visual_tokens=50"), [8, 16])
    assert [(one.name, one.frames) for one in made] == [
        (name, frames)
        for frames in (8, 16)
        for name in ("none sdpa", "none eager", "earlytom 10%", "earlytom 50 tokens")
    ]
    assert [one.attention for one in made[:4]] == ["sdpa", "eager", "sdpa", "sdpa"]
    assert [one.retention for one in made[:4]] == [None, None, 0.1, None]
    assert [one.is_reference for one in made[:4]] == [True, True, False, False]


def test_another_attention_is_a_reference_too() -> None:
    made = make_subjects(methods("earlytom:retention=0.125"), [8], "flash_attention_2")
    assert [one.name for one in made] == ["none sdpa", "none eager", "none flash_attention_2", "earlytom 12.5%"]
    assert made[-1].attention == "flash_attention_2"


def test_a_method_that_keeps_what_it_likes_has_no_amount() -> None:
    (made,) = make_subjects(methods("fastv:ratio=0.5"), [8])[2:]
    assert (made.name, made.retention) == ("fastv", None)
