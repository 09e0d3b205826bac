"""What a call's cache is called, whatever the release of transformers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from conftest import cache_name
from earlytom.models.caches import given_cache, returned_cache

NAMES = ("cache", "past_key_values")


@pytest.mark.parametrize("name", NAMES)
def test_the_cache_is_found_by_either_name(name) -> None:
    cache = DynamicCache()
    assert given_cache({name: cache}) is cache
    assert given_cache({"cache": None, "past_key_values": None} | {name: cache}) is cache
    assert given_cache({name: None}) is None
    assert returned_cache(SimpleNamespace(**{name: cache})) is cache


def test_outputs_without_a_cache() -> None:
    assert given_cache({}) is None
    assert returned_cache((torch.zeros(1),)) is None


def test_the_output_of_a_model(model) -> None:
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert returned_cache(model(input_ids=ids, use_cache=False)) is None
        cache = returned_cache(model(input_ids=ids, use_cache=True))
        assert cache.get_seq_length() == 3
        assert returned_cache(model(input_ids=ids, **{cache_name(): cache})) is cache
        assert cache.get_seq_length() == 6
