"""Where a model computes: one device, or several that a device map spreads it over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

__all__ = ["computing_devices", "host_first", "input_device", "synchronize"]


def computing_devices(model: nn.Module) -> tuple[torch.device, ...]:
    """The devices that a model's parts run on, in the order of the parts.

    Weights that accelerate keeps elsewhere until their layer runs (then they are on ``meta``) count where they run.
    """
    found = dict.fromkeys(_placed(model))
    return tuple(found) or (torch.device("cpu"),)


def input_device(model: nn.Module) -> torch.device:
    """Where a call's inputs go: to the part that runs first."""
    return next(_placed(model), torch.device("cpu"))


def host_first() -> AbstractContextManager[object]:
    """Inside, tensors made without a device are made on the host, whatever ``torch.set_default_device`` says."""
    return nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")


def synchronize(devices: Iterable[torch.device]) -> None:
    """Wait until all devices have done what was queued; on a CPU there is nothing to wait for."""
    for device in devices:
        if device.type == "cuda":
            torch.cuda.synchronize(device)


def _placed(model: nn.Module) -> Iterator[torch.device]:
    for part in model.modules():
        # accelerate's hook, where there is one, says where the part runs.
        moved = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if moved is not None:
            yield torch.device("cuda", moved) if isinstance(moved, int) else torch.device(moved)
        yield from (weight.device for weight in part.parameters(recurse=False) if not weight.is_meta)
