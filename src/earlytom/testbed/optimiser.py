"""Muon for the matrices and AdamW for everything else, with one learning rate schedule for both."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_MATRIX_RATE = 0.02
_OTHER_RATE = 1.5e-3
_WEIGHT_DECAY = 0.02
_BLOCKS = ("layers.", "blocks.", "linear_", "mlp.")


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised by Newton-Schulz steps, batched over matrices of one shape.

    Unlike ``torch.optim.Muon`` it works in float32 and on all matrices of a shape at once, which is several times
    faster for many small matrices on a processor.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        """Take the two-dimensional parameters to train and their learning rate."""
        super().__init__(list(matrices), {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all matrices that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    by_shape.setdefault(matrix.shape, []).append(matrix)
            for shape, matrices in by_shape.items():
                directions = torch.stack([self._direction(matrix, group["momentum"]) for matrix in matrices])
                scale = group["lr"] * math.sqrt(max(1.0, shape[0] / shape[1]))
                for matrix, update in zip(matrices, orthogonalise(directions), strict=True):
                    matrix.mul_(1.0 - group["lr"] * _WEIGHT_DECAY).add_(update, alpha=-scale)

    def _direction(self, matrix: nn.Parameter, momentum: float) -> torch.Tensor:
        """Return the Nesterov momentum of one matrix."""
        if matrix.grad is None:
            raise ValueError("the matrix has no gradient")
        state = self.state[matrix]
        if "buffer" not in state:
            state["buffer"] = torch.zeros_like(matrix)
        buffer: torch.Tensor = state["buffer"]
        buffer.lerp_(matrix.grad, 1.0 - momentum)
        direction: torch.Tensor = matrix.grad.lerp(buffer, momentum)
        return direction


def orthogonalise(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Bring the singular values of ``matrices`` [N, rows, columns] close to one; float32 of the same shape."""
    first, second, third = _COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    result: torch.Tensor = matrices.transpose(1, 2) if tall else matrices
    result = result / (result.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(steps):
        square = result @ result.transpose(1, 2)
        result = first * result + (second * square + third * (square @ square)) @ result
    return result.transpose(1, 2) if tall else result


class JointOptimiser:
    """Muon and AdamW side by side; their rates follow one factor between 0 and 1."""

    def __init__(self, matrices: list[nn.Parameter], others: list[nn.Parameter], scale: float = 1.0) -> None:
        """Take the parameters of each kind; ``scale`` multiplies both base rates."""
        self._base = (_MATRIX_RATE * scale, _OTHER_RATE * scale)
        self._muon = Muon(matrices, lr=self._base[0])
        self._adamw = torch.optim.AdamW(others, lr=self._base[1], betas=(0.9, 0.98), weight_decay=0.0)
        self._parameters = [*matrices, *others]

    def step(self, factor: float, largest_norm: float = 1.0) -> float:
        """Clip the gradients, update with ``factor`` times the base rates, clear; returns the gradient's norm."""
        norm = float(nn.utils.clip_grad_norm_(self._parameters, largest_norm))
        for optimiser, base in zip((self._muon, self._adamw), self._base, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = base * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        return norm

    @contextmanager
    def alone(self, model: nn.Module) -> Iterator[None]:
        """No other parameter of ``model`` gets a gradient inside, which saves the way back to it."""
        own = {id(parameter) for parameter in self._parameters}
        others = [part for part in model.parameters() if id(part) not in own and part.requires_grad]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def state_dict(self) -> dict[str, object]:
        """Return what is needed to resume."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, dict[str, object]]) -> None:
        """Restore what ``state_dict`` returned."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def split_parameters(
    *modules: nn.Module, skip: Iterable[nn.Parameter] = ()
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return (matrices of the blocks, all other parameters) of ``modules``, without those in ``skip``.

    Embeddings, convolutions, biases, norms and the small output heads count as other parameters.
    """
    skipped = {id(parameter) for parameter in skip}
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules:
        for name, parameter in module.named_parameters():
            if id(parameter) in skipped:
                continue
            in_block = parameter.ndim == 2 and any(part in name for part in _BLOCKS)
            (matrices if in_block else others).append(parameter)
    return matrices, others


def schedule(progress: float, step: int, warm_up: int = 100, decay_from: float = 0.4) -> float:
    """Return the learning rate factor: linear warm-up over steps, constant, then a cosine to zero at progress 1."""
    rise = min(1.0, (step + 1) / warm_up)
    if progress <= decay_from:
        return rise
    share = min(1.0, (progress - decay_from) / (1.0 - decay_from))
    return rise * 0.5 * (1.0 + math.cos(math.pi * share))
