"""First stage: the encoder learns single grids, of one frame or of a few, from dense labels.

Linear heads on the last hidden state of every patch name its colour, its shape, its place, the way to the centre of
its object and the number of objects in the frame, for every frame of the grid: a patch that stands for two frames has
to keep what each of them shows, and heads of their own need no rule for patches that change between them. The heads
are thrown away afterwards.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from earlytom.testbed.architectures import Architecture
from earlytom.testbed.labels import IGNORED, PatchLabels, patch_labels
from earlytom.testbed.optimiser import JointOptimiser, schedule, split_parameters
from earlytom.testbed.progress import RunningMean, StageRecord
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import COLOURS, PATCH_GRID, SHAPES, SLOT_COUNT, ByteArray
from earlytom.testbed.scenes import draw_clip

ENCODER_SEED = 1_000_000
_CLIPS_PER_STEP = 16
_GRIDS_PER_CLIP = 3
_FRAME_GAPS = (0.5, 2.0)


class DenseHeads(nn.Module):
    """The linear heads over the patches' hidden states."""

    def __init__(self, width: int, frames: int = 1) -> None:
        """Build the heads for hidden states of ``width`` channels that stand for so many frames."""
        super().__init__()
        self._frames = frames
        self.colour = nn.Linear(width, frames * (len(COLOURS) + 1))
        self.shape = nn.Linear(width, frames * (len(SHAPES) + 1))
        self.row = nn.Linear(width, frames * PATCH_GRID)
        self.column = nn.Linear(width, frames * PATCH_GRID)
        self.offset = nn.Linear(width, frames * 2)
        self.count = nn.Linear(width, frames * 5)

    def losses(self, hidden: torch.Tensor, labels: PatchLabels) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the total loss and the accuracies for ``hidden`` [N / frames, 144, width] and labels of N frames."""
        device, patches = hidden.device, hidden.shape[1]
        place = torch.arange(PATCH_GRID * PATCH_GRID, device=device).expand(len(labels.count), -1)
        count = torch.from_numpy(labels.count).to(device)[:, None].expand(-1, patches)
        targets = {
            "colour": (self.colour, torch.from_numpy(labels.colour).to(device)),
            "shape": (self.shape, torch.from_numpy(labels.shape).to(device)),
            "row": (self.row, place // PATCH_GRID),
            "column": (self.column, place % PATCH_GRID),
            "count": (self.count, count.clamp(max=4)),
        }
        weights = {"colour": 1.0, "shape": 1.0, "row": 0.2, "column": 0.2, "count": 0.3}
        total = hidden.new_zeros(())
        accuracies: dict[str, float] = {}
        for name, (head, target) in targets.items():
            logits = self._by_frame(head(hidden))
            total = total + weights[name] * _class_loss(logits, target)
            counted = target > 0 if name in ("colour", "shape") else target != IGNORED
            accuracies[name] = float((logits.argmax(-1) == target)[counted].float().mean())
        on_object = targets["colour"][1] > 0
        offset = self._by_frame(self.offset(hidden))
        error = offset[on_object] - torch.from_numpy(labels.offset).to(device)[on_object]
        accuracies["offset_error"] = float(error.detach().abs().mean()) * 12.0
        return total + 2.0 * error.square().clamp(max=1.0).mean(), accuracies

    def _by_frame(self, outputs: torch.Tensor) -> torch.Tensor:
        """Turn outputs for all frames of the grids, [G, 144, frames * C], into those of frames, [N, 144, C]."""
        return outputs.unflatten(-1, (self._frames, -1)).transpose(1, 2).flatten(0, 1)


def _class_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy; patches of objects, one in eight, weigh four times a background patch."""
    losses = functional.cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORED, reduction="none")
    background = (target == 0) & (logits.shape[-1] != PATCH_GRID)
    weight = torch.where(background, 0.25, 1.0) * (target != IGNORED)
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)


def frame_batch(step: int, clips: int = _CLIPS_PER_STEP, frames_per_grid: int = 1) -> tuple[ByteArray, PatchLabels]:
    """Draw the frames of one training step, those of a grid behind one another, and their labels.

    It is a pure function of its arguments. Three grids a clip; the frames of a grid lie half a slot to two slots apart,
    since videos are sampled more and less densely than the clips of the second stage.
    """
    pictures: list[ByteArray] = []
    labels: list[PatchLabels] = []
    for index in range(clips):
        seed = ENCODER_SEED + step * clips + index
        generator = np.random.default_rng([31, seed])
        slots = _slots(generator, frames_per_grid)
        frames, truth = draw_clip(sample_clip(seed), np.minimum(slots, SLOT_COUNT - 1.0).astype(np.float32))
        pictures.append(frames)
        labels.append(patch_labels(truth))
    return np.concatenate(pictures), PatchLabels(
        colour=np.concatenate([label.colour for label in labels]),
        shape=np.concatenate([label.shape for label in labels]),
        offset=np.concatenate([label.offset for label in labels]),
        count=np.concatenate([label.count for label in labels]),
    )


def _slots(generator: np.random.Generator, frames_per_grid: int) -> np.ndarray:
    """Draw the times of the frames of one clip, one grid in every third of it; rising."""
    third = SLOT_COUNT / _GRIDS_PER_CLIP
    random = generator.random(_GRIDS_PER_CLIP)
    if frames_per_grid == 1:
        return (np.arange(_GRIDS_PER_CLIP) + random) * third
    times = generator.uniform(*_FRAME_GAPS) * np.arange(frames_per_grid)
    firsts = np.arange(_GRIDS_PER_CLIP) * third + random * (third - 1.0 - times[-1])
    return (firsts[:, None] + times).reshape(-1)


def train_encoder(
    architecture: Architecture,
    encoder: PreTrainedModel,
    folder: Path,
    minutes: float,
    resume: bool,
    device: torch.device,
    fresh: bool = True,
) -> list[dict[str, Any]]:
    """Train the encoder in place for ``minutes``, a ``fresh`` one or one that has learnt; returns the curve."""
    record = StageRecord("encoder", folder, minutes)
    if fresh:
        architecture.initialise_encoder(encoder)
    heads = DenseHeads(encoder.config.hidden_size, architecture.frames_per_grid).to(device)
    optimiser = JointOptimiser(*split_parameters(encoder, heads, skip=architecture.unlabelled_parameters(encoder)))
    saved = record.load() if resume else None
    if saved is not None:
        encoder.load_state_dict(saved[0]["tower"])
        heads.load_state_dict(saved[0]["heads"])
        optimiser.load_state_dict(saved[0]["optimiser"])
        if saved[1]:
            record.close()
            return record.history
    means = RunningMean()

    def state() -> dict[str, Any]:
        return {"tower": encoder.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict()}

    encoder.train()
    while record.progress < 1.0:
        loss, accuracies = encoder_loss(architecture, encoder, heads, record.step, device)
        torch.autograd.backward(loss)
        optimiser.step(schedule(record.progress, record.step, warm_up=40))
        means.update({"loss": float(loss.detach()), **accuracies})
        record.advance(means.values)
        if record.step % 50 == 0:
            record.note(means.rounded())
        record.save_if_due(state())
    record.note(means.rounded())
    record.save(state(), finished=True)
    record.close()
    encoder.eval()
    return record.history


def encoder_loss(
    architecture: Architecture, encoder: PreTrainedModel, heads: DenseHeads, step: int, device: torch.device
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss and the accuracies of the batch of one step."""
    frames, labels = frame_batch(step, frames_per_grid=architecture.frames_per_grid)
    return heads.losses(architecture.encode(encoder, frames, device), labels)
