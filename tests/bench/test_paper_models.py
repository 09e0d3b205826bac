"""The paper's models, told by their shape."""

from __future__ import annotations

import pytest

from earlytom.bench.accounting import PAPER_MODELS
from earlytom.bench.configurations import CONFIGURATIONS
from earlytom.bench.paper_models import find_paper_model


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_published_sizes_are_found_and_no_others(name) -> None:
    config = CONFIGURATIONS[name].configure()
    assert find_paper_model(config) == (name if name in PAPER_MODELS else None)


@pytest.mark.parametrize("field", ["num_hidden_layers", "hidden_size", "intermediate_size", "num_key_value_heads"])
def test_another_shape_is_another_model(field) -> None:
    config = CONFIGURATIONS["llava-onevision-7b"].configure()
    setattr(config.get_text_config(), field, 2 * getattr(config.get_text_config(), field))
    assert find_paper_model(config) is None
