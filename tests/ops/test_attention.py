"""Attention scores against the whole softmax, on the chunked paths too."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from earlytom.ops import attention, last_query_attention, received_attention
from reference.attention import last_query_attention_naively, received_attention_naively
from reference.strategies import quick


class LargestTensor(TorchDispatchMode):
    """Remembers the size of the largest tensor that any operation gave."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


@quick
@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(1, 13), st.integers(1, 5), st.sampled_from([1, 17, 64, 1 << 24]),
    st.integers(0, 1000),
)  # fmt: skip
def test_received_attention_equals_the_whole_softmax_for_every_chunk(frames, heads, tokens, width, chunk, seed) -> None:
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (2 * torch.randn(frames, heads, tokens, width, generator=generator) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "_CHUNK_VALUES", chunk)
        received = received_attention(queries, keys, scale=0.7)
        assert torch.equal(received, received_attention(queries, keys, scale=0.7))
    torch.testing.assert_close(received.double(), received_attention_naively(queries, keys, 0.7), atol=1e-6, rtol=1e-5)
    assert received.dtype == torch.float32
    torch.testing.assert_close(received.sum(dim=1), torch.ones(frames), atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunk", [1, 17, 1 << 24])
def test_a_token_of_a_size_receives_what_as_many_equal_tokens_receive(chunk, monkeypatch) -> None:
    monkeypatch.setattr(attention, "_CHUNK_VALUES", chunk)
    queries, keys = torch.randn(3, 2, 6, 4), torch.randn(3, 2, 6, 4)
    sizes = torch.randint(1, 5, (3, 6))
    received = received_attention(queries, keys, scale=0.7, sizes=sizes.float())
    for frame in range(3):
        copies = torch.repeat_interleave(torch.arange(6), sizes[frame])
        every = received_attention_naively(
            queries[frame : frame + 1, :, copies], keys[frame : frame + 1, :, copies], 0.7
        )
        expected = torch.zeros(6, dtype=torch.float64).index_add_(0, copies, every[0])
        torch.testing.assert_close(received[frame].double(), expected, atol=1e-6, rtol=1e-5)
    ones = received_attention(queries, keys, scale=0.7, sizes=torch.ones(3, 6))
    torch.testing.assert_close(ones, received_attention(queries, keys, scale=0.7))


def test_received_attention_runs_in_bounded_memory(monkeypatch) -> None:
    frames, heads, tokens, width = 3, 4, 64, 4
    monkeypatch.setattr(attention, "_CHUNK_VALUES", 1024)
    queries, keys = torch.randn(frames, heads, tokens, width), torch.randn(frames, heads, tokens, width)
    with LargestTensor() as seen:
        received = received_attention(queries, keys, scale=0.5)
    assert seen.largest <= 1024  # one frame's map alone is 16,384 values
    torch.testing.assert_close(received.double(), received_attention_naively(queries, keys, 0.5), atol=1e-6, rtol=0)


def test_a_batch_of_frames_equals_each_frame_alone() -> None:
    queries, keys = torch.randn(5, 2, 9, 4), torch.randn(5, 2, 9, 4)
    alone = torch.cat([received_attention(queries[i : i + 1], keys[i : i + 1], scale=0.5) for i in range(5)])
    torch.testing.assert_close(received_attention(queries, keys, scale=0.5), alone, atol=1e-7, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_float32_probabilities(dtype) -> None:
    queries, keys = torch.randn(2, 3, 50, 8).to(dtype), torch.randn(2, 3, 50, 8).to(dtype)
    received = received_attention(queries, keys, scale=8**-0.5)
    assert received.dtype == torch.float32
    torch.testing.assert_close(received.sum(dim=1), torch.ones(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        received.double(), received_attention_naively(queries, keys, 8**-0.5), atol=1e-6, rtol=1e-5
    )


def test_attention_is_what_keys_receive_not_what_queries_give() -> None:
    queries, keys = torch.ones(1, 1, 3, 2), torch.zeros(1, 1, 3, 2)
    keys[0, 0, 1] = 20.0
    torch.testing.assert_close(received_attention(queries, keys, scale=1.0), torch.tensor([[0.0, 1.0, 0.0]]))


def test_huge_logits_do_not_overflow() -> None:
    received = received_attention(torch.full((1, 1, 4, 2), 1e4), torch.full((1, 1, 4, 2), 1e4), scale=1.0)
    torch.testing.assert_close(received, torch.full((1, 4), 0.25))


@quick
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(0, 1000), st.data())
def test_last_query_attention_equals_the_naive_loop(groups, per_group, tokens, seed, data) -> None:
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(groups * per_group, 4, generator=generator)
    keys = torch.randn(groups, tokens, 4, generator=generator)
    seen = data.draw(st.lists(st.booleans(), min_size=tokens, max_size=tokens).filter(any))
    visible = None if all(seen) else torch.tensor(seen)
    row = last_query_attention(query, keys, scale=0.5, visible=visible)
    torch.testing.assert_close(row.double(), last_query_attention_naively(query, keys, 0.5, seen), atol=1e-6, rtol=1e-5)
    assert float(row.sum()) == pytest.approx(1, abs=1e-5)
    assert all(float(row[i]) == 0.0 for i in range(tokens) if not seen[i])
