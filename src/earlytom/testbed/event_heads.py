"""What the second stage wants to be known of every video token in the middle of the language model."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from earlytom.testbed.checkpoint import TOKENS_PER_FRAME
from earlytom.testbed.labels import IGNORED, TOKEN_GRID, token_labels
from earlytom.testbed.pool import View

_EVENT_CLASSES = {"motion": 5, "brief": 2, "object": 2, "count": 5, "scene": 3, "frame": 16, "row": 6, "column": 6}


class EventHeads(nn.Module):
    """Linear heads over the hidden states of the video tokens; thrown away after training."""

    def __init__(self, width: int) -> None:
        """Build one head for every label."""
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(width, classes) for name, classes in _EVENT_CLASSES.items()})

    def loss(self, hidden: torch.Tensor, labels: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the summed cross-entropy for ``hidden`` [B, G * 36, width] and labels int64 [B, G * 36]."""
        hidden = functional.rms_norm(hidden, (hidden.shape[-1],))
        total = hidden.new_zeros(())
        for name, head in self.heads.items():
            total = total + mean_loss(head(hidden), labels[name])
        brief = labels["brief"].masked_fill(labels["brief"] == 0, IGNORED)
        return total + mean_loss(self.heads["brief"](hidden), brief)

    def named_loss(self, hidden: torch.Tensor, named: torch.Tensor) -> torch.Tensor:
        """Return the loss of knowing scene and motion of the objects that questions name, from [B, L, width]."""
        chosen = functional.rms_norm(hidden[named[:, 0], named[:, 1]], (hidden.shape[-1],))
        return mean_loss(self.heads["scene"](chosen), named[:, 2]) + mean_loss(
            self.heads["motion"](chosen), named[:, 3]
        )


def mean_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy over the labels that are not ignored; zero if there are none."""
    total = functional.cross_entropy(logits.flatten(0, -2), target.flatten(), ignore_index=IGNORED, reduction="sum")
    return total / (target != IGNORED).sum().clamp(min=1)


def event_labels(views: Sequence[View]) -> dict[str, torch.Tensor]:
    """Return the labels of every video token of the views of G grids, int64 [B, G * 36] each."""
    rows: dict[str, list[np.ndarray]] = {name: [] for name in (*_EVENT_CLASSES, "colour", "shape")}
    cell = np.arange(TOKENS_PER_FRAME)
    for view in views:
        labels = token_labels(view.truth, len(view.truth.scene) // len(view.features))
        grids = np.arange(len(labels.scene))
        for name in ("motion", "brief", "object", "colour", "shape"):
            rows[name].append(getattr(labels, name).reshape(-1))
        # A grid of two frames with a cut between them shows the objects of both scenes.
        count = np.minimum(labels.count, _EVENT_CLASSES["count"] - 1)
        for name, values in (("count", count), ("scene", labels.scene), ("frame", grids)):
            rows[name].append(np.repeat(values, TOKENS_PER_FRAME))
        rows["row"].append(np.tile(cell // TOKEN_GRID, len(grids)))
        rows["column"].append(np.tile(cell % TOKEN_GRID, len(grids)))
    return {name: torch.from_numpy(np.stack(values)) for name, values in rows.items()}
