"""A device that is none: tensors of the host that say they lie on ``cuda``, and what would happen on a real one.

Operations on them would be launches; values that the host reads would be waits; tensors that go there, uploads.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("cuda:0")

# What changes no value, so that nothing is launched for it.
_VIEWS = (
    "view", "_unsafe_view", "alias", "detach", "expand", "select.int", "slice.Tensor", "split.Tensor", "unbind.int",
    "split_with_sizes", "t.default", "transpose.int", "permute", "unsqueeze", "squeeze", "as_strided", "unfold",
    "is_same_size", "lift_fresh",
)  # fmt: skip
# What gives a result whose shape depends on values, or a plain number.
_READING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "unique", "item", "masked_select")


class Claimed(torch.Tensor):
    """A tensor that says it lies on `DEVICE`."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE, requires_grad=False
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise RuntimeError(f"{function} was called outside ClaimedDevice")

    def tolist(self):
        return self.cpu().tolist()


class Event:
    """Stands for one of CUDA; waiting for it is counted."""

    counting: ClaimedDevice

    def __init__(self, **options) -> None:
        pass

    def record(self, stream=None) -> None:
        pass

    def synchronize(self) -> None:
        self.counting.waits["event"] += 1

    def elapsed_time(self, end) -> float:
        return 0.0


class ClaimedDevice(TorchDispatchMode):
    """Inside, `DEVICE` works, and what would happen on it is counted.

    Attributes:
        launches: by operation.
        waits: by operation.
        uploads: number of copies from the host.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reset()
        self._patches = pytest.MonkeyPatch()

    def reset(self) -> None:
        """Count from here."""
        self.launches, self.waits, self.uploads = Counter(), Counter(), 0

    def __enter__(self):
        torch._C._ensureCUDADeviceGuardSet()
        self._patches.setattr(torch.cuda, "_initialized", True)
        self._patches.setattr(torch.cuda, "Event", type("Counted", (Event,), {"counting": self}))
        self._patches.setattr(torch.cuda, "current_stream", lambda device=None: None)
        self._patches.setattr(torch.cuda, "synchronize", lambda device=None: None)
        return super().__enter__()

    def __exit__(self, *error):
        self._patches.undo()
        return super().__exit__(*error)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = str(function).removeprefix("aten.")
        target = kwargs.get("device")
        there = any(isinstance(leaf, Claimed) for leaf in tree_leaves((args, kwargs)))
        to_there = isinstance(target, torch.device) and target.type == DEVICE.type
        if to_there:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if not there and not to_there:
            return function(*args, **kwargs)
        leaving = (isinstance(target, torch.device) and not to_there) or self._copies_to_host(name, args)
        plain_args, plain_kwargs = tree_map_only(Claimed, lambda tensor: tensor.held, (args, kwargs))
        self._count(name, there, to_there, leaving)
        result = function(*plain_args, **plain_kwargs)
        if name.partition(".")[0].endswith("_") and isinstance(args[0], Claimed):
            return args[0]
        return result if leaving else tree_map_only(torch.Tensor, Claimed, result)

    @staticmethod
    def _copies_to_host(name: str, args) -> bool:
        return name.startswith("copy_") and not isinstance(args[0], Claimed)

    def _count(self, name: str, there: bool, to_there: bool, leaving: bool) -> None:
        if leaving and name.startswith("copy_"):
            return  # queued; whoever reads it waits for an event
        if leaving or name.startswith(_READING):
            self.waits[name] += 1
        elif to_there and not there and name.startswith("_to_copy"):
            self.uploads += 1
        elif not name.startswith(_VIEWS):
            self.launches[name] += 1


def claim(tensor: torch.Tensor) -> Claimed:
    """The same values, on `DEVICE`."""
    return Claimed(tensor.detach().clone())


def claim_model(model: torch.nn.Module) -> torch.nn.Module:
    """Put all weights of a model on `DEVICE`, in place."""
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, value in store.items():
                if value is not None:
                    store[name] = claim(value)
    return model
