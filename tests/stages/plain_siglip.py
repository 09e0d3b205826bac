"""A SigLIP encoder, projector and pooling of plain tensor functions, which drives clip sessions without any model.

Run as a program (``python plain_siglip.py task.pt result.pt``) it loads weights and clips, and saves what was decided.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional

from earlytom import parse_method
from earlytom.ops import pool_bilinear, received_attention
from earlytom.stages import ClipSession, FrameBatch, SessionBatch
from earlytom.trace import Stopwatch
from earlytom.types import EncoderShape, FrameGrid

HEADS = 4
_TOWER, _PROJECTOR = "model.vision_tower.", "model.multi_modal_projector."


def norm(weights: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return functional.layer_norm(rows, rows.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], eps=1e-6)


def linear(weights: dict[str, Tensor], name: str, rows: Tensor) -> Tensor:
    return functional.linear(rows, weights[f"{name}.weight"], weights[f"{name}.bias"])


def embed(weights: dict[str, Tensor], pixels: Tensor) -> Tensor:
    kernel, bias = (weights[f"{_TOWER}embeddings.patch_embedding.{part}"] for part in ("weight", "bias"))
    patches = functional.conv2d(pixels, kernel, bias, stride=kernel.shape[-1]).flatten(2).transpose(1, 2)
    return patches + weights[f"{_TOWER}embeddings.position_embedding.weight"]


def heads(rows: Tensor) -> Tensor:
    return rows.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def run_layer(weights: dict[str, Tensor], layer: int, batch: FrameBatch, sessions: SessionBatch) -> FrameBatch:
    name, hidden = f"{_TOWER}encoder.layers.{layer}", batch.hidden
    normed = norm(weights, f"{name}.layer_norm1", hidden)
    queries, keys, values = (heads(linear(weights, f"{name}.self_attn.{part}_proj", normed)) for part in "qkv")
    scale = queries.shape[-1] ** -0.5
    attended = functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
    if layer in sessions.requests.attention_layers:
        sessions.receive_attention(layer, lambda: received_attention(queries, keys, scale=scale))
        if layer in sessions.requests.key_layers:
            sessions.receive_keys(layer, lambda: keys.mean(dim=1))
    hidden = hidden + linear(weights, f"{name}.self_attn.out_proj", attended)
    wide = linear(weights, f"{name}.mlp.fc1", norm(weights, f"{name}.layer_norm2", hidden))
    return batch.with_hidden(hidden + linear(weights, f"{name}.mlp.fc2", functional.gelu(wide, approximate="tanh")))


def encode(weights: dict[str, Tensor], clips: list[Tensor], sessions: SessionBatch, depth: int) -> list:
    """Drive some clips, [T, 3, H, W] pixels each, through the encoder together; the kept tokens of each."""
    pixels = torch.cat(clips)
    if sessions.requests.fingerprint:
        sessions.receive_pixels(pixels)
    batch = FrameBatch(hidden=embed(weights, pixels), grids_per_clip=sessions.grids_per_clip)
    for layer in range(depth):
        batch = sessions.after_layer(layer, run_layer(weights, layer, batch, sessions))
    side = int(batch.hidden.shape[1] ** 0.5)
    wide = functional.gelu(linear(weights, f"{_PROJECTOR}linear_1", batch.hidden))
    tokens = linear(weights, f"{_PROJECTOR}linear_2", wide)
    maps = tokens.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    pooled = functional.interpolate(maps, size=[side // 2, side // 2], mode="bilinear").flatten(2).transpose(1, 2)
    return sessions.select(pooled, lambda scores: pool_bilinear(scores, side=side, pooled=(side // 2, side // 2)))


def decide(task: dict) -> list[dict]:
    """What the sessions of a task decide: ``weights``, ``clips`` and their ``methods``, the encoder's ``depth``."""
    side = task["side"] // 2
    shape = EncoderShape(depth=task["depth"])
    grids = [FrameGrid(frames=len(clip), rows=side, columns=side) for clip in task["clips"]]
    sessions = [ClipSession(parse_method(text), grid, shape) for text, grid in zip(task["methods"], grids, strict=True)]
    with torch.no_grad():
        kept = encode(task["weights"], task["clips"], SessionBatch(sessions, Stopwatch()), task["depth"])
    return [
        {
            "places": tokens.places,
            "features": tokens.features,
            "budget": session.trace.budget,
            "merges": [(merge.layer, merge.grids_before, merge.grids_after) for merge in session.trace.merges],
            "sources": session.trace.sources(),
        }
        for session, tokens in zip(sessions, kept, strict=True)
    ]


if __name__ == "__main__":
    torch.save(decide(torch.load(sys.argv[1])), sys.argv[2])
    if "transformers" in sys.modules:
        sys.exit("transformers was imported")
