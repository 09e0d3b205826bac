"""Starting from a trained checkpoint, whose language model may be shallower and know fewer words.

A checkpoint of another architecture gives its language model, as a vision language model usually starts from one.
"""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from earlytom.errors import EarlyTomError
from earlytom.testbed.checkpoint import load_checkpoint

_LANGUAGE_MODEL = "model.language_model."
_EMBEDDING = "embed_tokens.weight"
# A layer whose outputs are zero passes on what it gets, and still learns.
_OUTPUTS = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


@torch.no_grad()
def start_from(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Take over the weights of the checkpoint in ``folder``; of another architecture those of the language model.

    Words that it knows keep their embeddings, new words keep those of ``model``, and layers that it does not have pass
    on what they get.

    Raises:
        ValueError: a weight has another shape.
    """
    old_model, old_processor = load_checkpoint(folder)
    whole = type(old_model) is type(model)
    known = old_model.state_dict()
    old_words, words = old_processor.tokenizer.get_vocab(), tokenizer.get_vocab()
    shared = [word for word in words if word in old_words]
    for name, weight in model.state_dict().items():
        if not whole and not name.startswith((_LANGUAGE_MODEL, "lm_head.")):
            continue
        if name.endswith((_EMBEDDING, "lm_head.weight")):
            rows = torch.tensor([words[word] for word in shared])
            weight[rows] = known[name][[old_words[word] for word in shared]].to(weight)
        elif name in known:
            if known[name].shape != weight.shape:
                raise ValueError(
                    f"{name} has the shape {tuple(known[name].shape)} in {folder}, {tuple(weight.shape)} is needed"
                )
            weight.copy_(known[name])
        elif name.endswith(_OUTPUTS):
            weight.zero_()


def is_of(folder: Path, architecture: str) -> bool:
    """Tell whether the checkpoint in ``folder`` is of the architecture of that name.

    Raises:
        EarlyTomError: there is no checkpoint.
    """
    if not (folder / "config.json").is_file():
        raise EarlyTomError(f"{folder}: no checkpoint there (config.json is missing)")
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return bool(settings["model_type"] == architecture)
