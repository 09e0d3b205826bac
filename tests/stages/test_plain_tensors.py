"""Sessions driven by plain tensors, in a process without transformers, decide what the whole model decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import earlytom
from conftest import batch, clip, tiny_model
from stages.plain_siglip import decide

PROGRAM = Path(__file__).with_name("plain_siglip.py")

# Of each clip: temporal grids, seed, method.
MIXTURES = [
    [(12, 0, "earlytom:retention=0.1"), (7, 1, "visionzip:retention=0.3")],
    [(12, 0, "earlytom:retention=0.25,preset=fast,cell_share=1"), (16, 1, "earlytom:visual_tokens=20"), (5, 3, "none")],
    [(9, 2, "earlytom+visionzip:retention=0.2"), (14, 0, "holitom:retention=0.25"), (1, 0, "earlytom")],
    [(6, 1, "random:retention=0.3"), (11, 4, "earlytom:retention=0.3,compat=official")],
]


def task_of(mixture) -> dict:
    """What `plain_siglip.decide` takes."""
    model = tiny_model()
    return {
        "weights": dict(model.state_dict()),
        "clips": [clip(frames, seed) for frames, seed, _ in mixture],
        "methods": [method for _, _, method in mixture],
        "depth": len(model.model.vision_tower.encoder.layers),
        "side": 8,
    }


def check(mixture, decided) -> None:
    """Against the whole model, one clip a call."""
    model = tiny_model()
    for (frames, seed, method), found in zip(mixture, decided, strict=True):
        with earlytom.compress(model, method) as trace:
            model(**batch([[clip(frames, seed)]]))
        (video,) = trace.videos
        left = video.temporal_grids_left * video.grid.tokens_per_frame
        rows = torch.arange(left) if video.selection is None else video.selection.survivors()
        assert found["budget"] == video.budget
        assert found["merges"] == [(one.layer, one.grids_before, one.grids_after) for one in video.merges]
        assert found["sources"] == video.sources()
        firsts = video.origin.survivors()[rows // 16]
        assert torch.equal(found["places"], firsts * 16 + rows % 16)


@pytest.mark.parametrize("mixture", MIXTURES, ids=lambda mixture: " and ".join(method for *_, method in mixture))
def test_a_batch_of_sessions_decides_what_the_whole_model_decides(mixture) -> None:
    check(mixture, decide(task_of(mixture)))


def test_no_model_and_no_transformers_are_needed(tmp_path) -> None:
    task, result = tmp_path / "task.pt", tmp_path / "result.pt"
    torch.save(task_of(MIXTURES[0]), task)
    paths = os.pathsep.join([str(PROGRAM.parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(task), str(result)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check(MIXTURES[0], torch.load(result))


def test_a_clip_decides_the_same_alone_and_beside_others() -> None:
    for mixture in MIXTURES:
        together = decide(task_of(mixture))
        for number, found in enumerate(together):
            (alone,) = decide(task_of([mixture[number]]))
            assert torch.equal(alone["places"], found["places"])
            assert alone["merges"] == found["merges"]
            torch.testing.assert_close(alone["features"], found["features"], atol=1e-4, rtol=1e-4)
