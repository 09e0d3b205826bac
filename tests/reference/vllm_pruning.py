"""What vLLM's own EVS and VidCom2 keep of random clips, recorded in ``vllm_pruning.json``.

Where vLLM (0.32.0 was used) can be imported: ``PYTHONPATH=tests python -m reference.vllm_pruning`` writes the file. The
embeddings stand in it as whole hundredths, so that they are the same wherever it is read. For a clip of T grids of
H x W pooled tokens the two functions get [T * H * W, C] float32 embeddings, and sides of 2 * H and 2 * W patches that a
merger joins two by two.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

RECORDED = Path(__file__).with_suffix(".json")
METHODS = ("evs", "vidcom2")
# Frames, rows, columns, width, pruning rate: also rates that leave less than a frame or less than a token of each, one
# frame, one token a frame, nothing pruned, and 0.9, of which 1 - 0.9 is less than a tenth.
_CLIPS = (
    (6, 4, 4, 12, 0.75), (8, 3, 5, 12, 0.5), (12, 2, 3, 16, 0.9), (5, 4, 5, 12, 0.9), (16, 1, 4, 12, 0.8),
    (7, 5, 5, 9, 0.63), (1, 3, 4, 8, 0.5), (7, 1, 1, 6, 0.4), (4, 3, 3, 10, 0.0), (10, 2, 5, 12, 0.3),
)  # fmt: skip
_SCENE = 3


def recorded() -> list[dict[str, Any]]:
    """The recorded cases: ``grid`` and ``rate``, ``hundredths`` of the embeddings, and the kept places by method."""
    return json.loads(RECORDED.read_text(encoding="utf-8"))["cases"]


def embeddings(case: dict[str, Any]) -> Tensor:
    """[T, H * W, C] float32."""
    frames, rows, columns = case["grid"]
    return (torch.tensor(case["hundredths"]) / 100).view(frames, rows * columns, -1)


def kept_by_vllm(method: str, features: Tensor, grid: tuple[int, int, int], rate: float) -> list[int]:
    """The places that vLLM's own function keeps. Raises ImportError where vLLM cannot be imported."""
    frames, rows, columns = grid
    module = importlib.import_module(f"vllm.multimodal.video_prune.{method}")
    mask = module.compute_retention_mask(features.flatten(0, 1), (frames, 2 * rows, 2 * columns), 2, rate)
    found: list[int] = mask.nonzero().flatten().tolist()
    return found


def drawn(seed: int, frames: int, tokens: int, width: int) -> list[int]:
    """Hundredths of a clip: scenes of three frames, every token a little or wholly another in every frame."""
    random = Random(seed)
    found: list[int] = []
    for frame in range(frames):
        for token in range(tokens):
            scene = Random(f"{seed} {frame // _SCENE} {token}")
            still, moving = [scene.randint(-200, 300) for _ in range(width)], random.random() < 0.3
            found += [random.randint(-200, 300) if moving else value + random.randint(-30, 30) for value in still]
    return found


def _case(seed: int, frames: int, rows: int, columns: int, width: int, rate: float) -> dict[str, Any]:
    grid = (frames, rows, columns)
    case = {"grid": grid, "rate": rate, "hundredths": drawn(seed, frames, rows * columns, width)}
    kept = {method: kept_by_vllm(method, embeddings(case), grid, rate) for method in METHODS}
    return {"grid": grid, "rate": rate, "kept": kept, "hundredths": case["hundredths"]}


if __name__ == "__main__":
    made = "tests/reference/vllm_pruning.py, compute_retention_mask of vllm.multimodal.video_prune in vLLM 0.32.0"
    content = {"made_by": made, "cases": [_case(seed, *clip) for seed, clip in enumerate(_CLIPS)]}
    lines = json.dumps(content).replace('{"grid"', '\n{"grid"')
    RECORDED.write_text(lines + "\n", encoding="utf-8")
