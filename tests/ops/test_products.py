"""True float32 whatever the process allows: TF32, bfloat16, autocast."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from earlytom.ops import (
    center_similarity,
    dominant_and_contextual,
    exact_product,
    frame_similarity,
    last_query_attention,
    match_tokens,
    merge_dropped_tokens,
    novelty_in_time,
    paired_cosines,
    received_attention,
    squared_distances,
)


@pytest.fixture(params=["medium", "high", "cuda", "mkldnn", "everywhere"])
def loosened(request) -> Iterator[str]:
    """Each way to let the process round float32 products, put back afterwards."""
    backends = torch.backends
    before = backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision, backends.fp32_precision
    backends.cuda.matmul.fp32_precision = backends.mkldnn.matmul.fp32_precision = "none"
    if request.param == "cuda":
        backends.cuda.matmul.fp32_precision = "tf32"
    elif request.param == "mkldnn":
        backends.mkldnn.matmul.fp32_precision = "bf16"
    elif request.param == "everywhere":
        backends.fp32_precision = "tf32"
    else:
        torch.set_float32_matmul_precision(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")
    backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision, backends.fp32_precision = before


def exactly(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return (first.double() @ second.double()).float()


def test_products_are_exact_however_loosened(loosened) -> None:
    rows = torch.randn(64, 5000)
    if loosened == "cuda":  # says nothing of this device
        torch.testing.assert_close(exact_product(rows, rows.T), exactly(rows, rows.T), rtol=1e-5, atol=1e-3)
    else:
        assert torch.equal(exact_product(rows, rows.T), exactly(rows, rows.T))


def test_the_setting_of_the_process_stays_and_is_never_changed_meanwhile(monkeypatch) -> None:
    """Another thread's products run at the same time, under the user's setting."""
    torch.set_float32_matmul_precision("medium")
    try:
        monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda value: pytest.fail("changed"))
        exact_product(torch.randn(8, 8), torch.randn(8, 8))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        monkeypatch.undo()
        torch.set_float32_matmul_precision("highest")


ROWS = torch.randn(6, 40, 96, generator=torch.Generator().manual_seed(1))
USES: dict[str, Callable[[], object]] = {
    "frame_similarity": lambda: frame_similarity(ROWS),
    "paired_cosines": lambda: paired_cosines(ROWS[:3], ROWS[3:]),
    "novelty_in_time": lambda: novelty_in_time(ROWS),
    "similarity_to_clip": lambda: center_similarity(ROWS)[0],
    "similarity_to_frame": lambda: center_similarity(ROWS)[1],
    "squared_distances": lambda: squared_distances(ROWS),
    "match_tokens": lambda: match_tokens(ROWS, 12),
    "merge_dropped_tokens": lambda: merge_dropped_tokens(ROWS[0], ROWS[1, :, 0], ratio=0.5, sequential=False).to_rows(),
    "contextual": lambda: dominant_and_contextual(ROWS[..., 0], ROWS, [8] * 6, [4] * 6, raster=True).to_rows(),
    "received_attention": lambda: received_attention(ROWS[:, None], ROWS[:, None] + 1, scale=0.1),
    "received_attention_of_sizes": lambda: received_attention(
        ROWS[:, None], ROWS[:, None] + 1, scale=0.1, sizes=1 + ROWS[..., 0].abs()
    ),
    "last_query": lambda: last_query_attention(ROWS[0, :2, :96], ROWS[:2], scale=0.1),
}


@pytest.mark.parametrize("name", USES)
def test_similarities_do_not_depend_on_autocast(name) -> None:
    expected = USES[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = USES[name]()
    assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


@pytest.mark.parametrize("name", USES)
def test_similarities_agree_however_loosened(name, loosened) -> None:
    found = USES[name]()
    torch.set_float32_matmul_precision("highest")
    expected = USES[name]()
    if isinstance(found, torch.Tensor) and found.is_floating_point():
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    else:
        assert torch.equal(found, expected) if isinstance(found, torch.Tensor) else found == expected


@pytest.mark.parametrize(
    "method",
    ["earlytom:retention=0.25", "visionzip", "holitom", "fastvid:scores=received", "prunevid", "dycoke", "tome",
     "evs", "vidcom2",
     "earlytom:retention=0.5,inner_merging=true,inner_layer=3", "fastv", "pyramiddrop"],
)  # fmt: skip
def test_every_method_runs_under_autocast(method) -> None:
    model, inputs = tiny_model(), batch([[clip(12, 0)]])
    with torch.autocast("cpu", dtype=torch.bfloat16), earlytom.compress(model, method) as trace:
        output = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    assert trace.videos[0].tokens == trace.videos[0].budget


def test_a_static_clip_stays_one_under_any_setting(loosened) -> None:
    """Ties are decided at 1e-5: equal frames must be equal."""
    still = torch.randn(1, 49, 48).expand(33, 49, 48).contiguous()
    similarity = frame_similarity(still)
    assert float((similarity - 1).abs().max()) < 1e-6


def test_threads_with_other_settings_do_not_meet() -> None:
    rows, found = torch.randn(32, 2000), []

    def work() -> None:
        for _ in range(50):
            found.append(exact_product(rows, rows.T))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        torch.set_float32_matmul_precision("medium")
        torch.set_float32_matmul_precision("highest")
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.stack(found), exactly(rows, rows.T).expand(200, -1, -1), atol=1e-3, rtol=1e-5)
