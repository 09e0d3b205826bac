"""Starting from a trained checkpoint: the same answers at first, and room to learn more."""

from pathlib import Path

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Config

from earlytom.errors import EarlyTomError
from earlytom.testbed.architecture_llava_onevision import build_config, build_model, build_processor
from earlytom.testbed.architectures import find_architecture
from earlytom.testbed.checkpoint import save_checkpoint
from earlytom.testbed.starting import is_of, start_from


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> tuple[LlavaOnevisionForConditionalGeneration, Path]:
    """Return a model with six layers in its language model, and the folder it was saved in."""
    processor = build_processor()
    config = build_config(processor.tokenizer)
    text = config.text_config.to_dict() | {"num_hidden_layers": 6, "layer_types": None}
    config.text_config = Qwen2Config(**text)
    torch.manual_seed(3)
    model = LlavaOnevisionForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("start") / "checkpoint"
    save_checkpoint(model, processor, folder, torch.float32)
    return model, folder


def test_a_deeper_model_answers_as_the_one_it_starts_from(
    shallow: tuple[LlavaOnevisionForConditionalGeneration, Path],
) -> None:
    old, folder = shallow
    tokenizer = build_processor().tokenizer
    model = build_model(tokenizer, seed=7).eval()
    start_from(model, tokenizer, folder)
    assert len(model.model.language_model.layers) == 8
    ids = tokenizer("What colour is the circle?", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.allclose(model(input_ids=ids).logits, old(input_ids=ids).logits, atol=1e-5)
        pixels = torch.randn(1, 3, 96, 96)
        towers = [item.model.vision_tower(pixels).last_hidden_state for item in (model, old)]
        assert torch.equal(*towers)


def test_the_new_layers_can_learn(shallow: tuple[LlavaOnevisionForConditionalGeneration, Path]) -> None:
    tokenizer = build_processor().tokenizer
    model = build_model(tokenizer, seed=7)
    start_from(model, tokenizer, shallow[1])
    ids = tokenizer("What colour is the circle?", return_tensors="pt").input_ids
    torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
    new = model.model.language_model.layers[7]
    assert float(new.self_attn.o_proj.weight.grad.abs().max()) > 0
    assert float(new.mlp.down_proj.weight.grad.abs().max()) > 0


def test_new_words_keep_their_own_embeddings(
    shallow: tuple[LlavaOnevisionForConditionalGeneration, Path], tmp_path: Path
) -> None:
    old, folder = shallow
    tokenizer = build_processor().tokenizer
    tokenizer.add_tokens(["zebra"])
    model = build_model(tokenizer, seed=7)
    before = model.get_input_embeddings().weight.detach().clone()
    start_from(model, tokenizer, folder)
    after, known = model.get_input_embeddings().weight, old.get_input_embeddings().weight
    assert torch.equal(after[:-1], known)
    assert torch.equal(after[-1], before[-1])


def test_another_architecture_takes_the_language_model_and_says_the_same_about_texts(
    shallow: tuple[LlavaOnevisionForConditionalGeneration, Path],
) -> None:
    old, folder = shallow
    architecture = find_architecture("qwen2_5_vl")
    tokenizer, words = architecture.build_processor().tokenizer, build_processor().tokenizer
    model = architecture.build_model(tokenizer, seed=7).eval()
    encoder = {name: weight.clone() for name, weight in architecture.encoder(model).state_dict().items()}
    start_from(model, tokenizer, folder)
    for name, weight in architecture.encoder(model).state_dict().items():
        assert torch.equal(weight, encoder[name]), name
    text = "What colour is the circle?"
    with torch.no_grad():
        mine = model(input_ids=tokenizer(text, return_tensors="pt").input_ids).logits
        theirs = old(input_ids=words(text, return_tensors="pt").input_ids).logits
    both = [word for word in words.get_vocab() if word in tokenizer.get_vocab()]
    places = [[known.get_vocab()[word] for word in both] for known in (tokenizer, words)]
    assert torch.allclose(mine[..., places[0]], theirs[..., places[1]], atol=1e-5)


def test_the_folder_says_which_architecture_it_is_of(
    shallow: tuple[LlavaOnevisionForConditionalGeneration, Path],
) -> None:
    assert is_of(shallow[1], "llava_onevision")
    assert not is_of(shallow[1], "qwen2_5_vl")
    with pytest.raises(EarlyTomError, match="nowhere: no checkpoint there"):
        is_of(Path("nowhere"), "qwen2_5_vl")


def test_another_width_is_refused(shallow: tuple[LlavaOnevisionForConditionalGeneration, Path]) -> None:
    tokenizer = build_processor().tokenizer
    config = build_config(tokenizer)
    config.text_config.intermediate_size = 256
    with pytest.raises(ValueError, match=r"has the shape .* is needed"):
        start_from(LlavaOnevisionForConditionalGeneration(config), tokenizer, shallow[1])
