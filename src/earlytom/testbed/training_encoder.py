"""First stage: the SigLIP tower learns single frames from dense labels.

Linear heads on the last hidden state of every patch name its colour, its shape, its place, the way to the centre of
its object and the number of objects in the frame. The heads are thrown away afterwards.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import SiglipVisionModel

from earlytom.testbed.labels import IGNORED, PatchLabels, patch_labels
from earlytom.testbed.optimiser import JointOptimiser, schedule, split_parameters
from earlytom.testbed.progress import RunningMean, StageRecord
from earlytom.testbed.scene_sampling import sample_clip
from earlytom.testbed.scene_types import COLOURS, PATCH_GRID, SHAPES, SLOT_COUNT, ByteArray
from earlytom.testbed.scenes import draw_clip

ENCODER_SEED = 1_000_000
_CLIPS_PER_STEP = 16
_FRAMES_PER_CLIP = 3
_PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
_PIXEL_DEVIATION = (0.26862954, 0.26130258, 0.27577711)


class DenseHeads(nn.Module):
    """The linear heads over the patches' hidden states."""

    def __init__(self, width: int) -> None:
        """Build the heads for hidden states of ``width`` channels."""
        super().__init__()
        self.colour = nn.Linear(width, len(COLOURS) + 1)
        self.shape = nn.Linear(width, len(SHAPES) + 1)
        self.row = nn.Linear(width, PATCH_GRID)
        self.column = nn.Linear(width, PATCH_GRID)
        self.offset = nn.Linear(width, 2)
        self.count = nn.Linear(width, 5)

    def losses(self, hidden: torch.Tensor, labels: PatchLabels) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the total loss and the accuracies for ``hidden`` [N, 144, width]."""
        device = hidden.device
        place = torch.arange(PATCH_GRID * PATCH_GRID, device=device).expand(hidden.shape[0], -1)
        count = torch.from_numpy(labels.count).to(device)[:, None].expand(-1, hidden.shape[1])
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
            logits = head(hidden)
            total = total + weights[name] * _class_loss(logits, target)
            counted = target > 0 if name in ("colour", "shape") else target != IGNORED
            accuracies[name] = float((logits.argmax(-1) == target)[counted].float().mean())
        on_object = targets["colour"][1] > 0
        error = self.offset(hidden)[on_object] - torch.from_numpy(labels.offset).to(device)[on_object]
        accuracies["offset_error"] = float(error.detach().abs().mean()) * 12.0
        return total + 2.0 * error.square().clamp(max=1.0).mean(), accuracies


def _class_loss(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy; patches of objects, one in eight, weigh four times a background patch."""
    losses = functional.cross_entropy(logits.transpose(1, 2), target, ignore_index=IGNORED, reduction="none")
    background = (target == 0) & (logits.shape[-1] != PATCH_GRID)
    weight = torch.where(background, 0.25, 1.0) * (target != IGNORED)
    return (losses * weight).sum() / weight.sum().clamp(min=1.0)


def initialise_positions(tower: SiglipVisionModel) -> None:
    """Start the learned position embedding [144, width] from two-dimensional sines, so that neighbours look alike."""
    table = tower.embeddings.position_embedding.weight
    quarter = table.shape[1] // 4
    frequency = torch.exp(-math.log(40.0) * torch.arange(quarter) / quarter)
    angle = torch.arange(PATCH_GRID)[:, None] * frequency[None]
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = wave[:, None].expand(-1, PATCH_GRID, -1)
    columns = wave[None].expand(PATCH_GRID, -1, -1)
    with torch.no_grad():
        table.copy_(0.5 * torch.cat([rows, columns], dim=-1).reshape(PATCH_GRID * PATCH_GRID, -1))


def pixels_from_frames(frames: ByteArray, device: torch.device) -> torch.Tensor:
    """Normalise frames, uint8 [N, 96, 96, 3], as the processor does; float32 [N, 3, 96, 96]."""
    pixels = torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255.0
    mean = torch.tensor(_PIXEL_MEAN, device=device)[None, :, None, None]
    deviation = torch.tensor(_PIXEL_DEVIATION, device=device)[None, :, None, None]
    return ((pixels - mean) / deviation).contiguous()


def encode_frames(tower: SiglipVisionModel, frames: ByteArray, device: torch.device) -> torch.Tensor:
    """Return what LLaVA-OneVision takes from the tower: the last hidden state before the last norm, [N, 144, 128]."""
    output = tower(pixels_from_frames(frames, device), output_hidden_states=True)
    hidden: torch.Tensor = output.hidden_states[-1]
    return hidden


def frame_batch(step: int, clips: int = _CLIPS_PER_STEP) -> tuple[ByteArray, PatchLabels]:
    """Draw the frames of one training step and their labels; a pure function of ``step``."""
    pictures: list[ByteArray] = []
    labels: list[PatchLabels] = []
    for index in range(clips):
        seed = ENCODER_SEED + step * clips + index
        generator = np.random.default_rng([31, seed])
        third = SLOT_COUNT / _FRAMES_PER_CLIP
        slots = (np.arange(_FRAMES_PER_CLIP) + generator.random(_FRAMES_PER_CLIP)) * third
        frames, truth = draw_clip(sample_clip(seed), np.minimum(slots, SLOT_COUNT - 1.0).astype(np.float32))
        pictures.append(frames)
        labels.append(patch_labels(truth))
    return np.concatenate(pictures), PatchLabels(
        colour=np.concatenate([label.colour for label in labels]),
        shape=np.concatenate([label.shape for label in labels]),
        offset=np.concatenate([label.offset for label in labels]),
        count=np.concatenate([label.count for label in labels]),
    )


def train_encoder(
    tower: SiglipVisionModel, folder: Path, minutes: float, resume: bool, device: torch.device, fresh: bool = True
) -> list[dict[str, Any]]:
    """Train the tower in place for ``minutes``, a ``fresh`` one or one that has learnt; returns the training curve."""
    record = StageRecord("encoder", folder, minutes)
    if fresh:
        initialise_positions(tower)
    heads = DenseHeads(tower.config.hidden_size).to(device)
    optimiser = JointOptimiser(*split_parameters(tower, heads, skip=tower.post_layernorm.parameters()))
    saved = record.load() if resume else None
    if saved is not None:
        tower.load_state_dict(saved[0]["tower"])
        heads.load_state_dict(saved[0]["heads"])
        optimiser.load_state_dict(saved[0]["optimiser"])
        if saved[1]:
            record.close()
            return record.history
    means = RunningMean()

    def state() -> dict[str, Any]:
        return {"tower": tower.state_dict(), "heads": heads.state_dict(), "optimiser": optimiser.state_dict()}

    tower.train()
    while record.progress < 1.0:
        frames, labels = frame_batch(record.step)
        loss, accuracies = heads.losses(encode_frames(tower, frames, device), labels)
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
    tower.eval()
    return record.history
