"""Keeping time, recording the training curve and saving the state, so that a killed run can go on."""

import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

_SAVE_SECONDS = 120.0


class StageRecord:
    """Budget, history and saved state of one training stage.

    The budget is wall-clock time: ``progress`` runs from 0 to 1 over ``minutes`` of training, time spent before an
    interruption included.
    """

    def __init__(self, name: str, folder: Path, minutes: float) -> None:
        """Start the stage ``name``; its state is kept in ``folder``."""
        self.name = name
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self._path = folder / f"{name}.pt"
        self._budget = minutes * 60.0
        self._before = 0.0
        self._started = time.monotonic()
        self._saved = self._started
        self._bar = tqdm(total=100, desc=name, unit="%", mininterval=5.0, bar_format="{l_bar}{bar}| {postfix}")

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return self._before + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0 to 1."""
        return min(1.0, self.elapsed / self._budget)

    def advance(self, values: dict[str, float]) -> None:
        """Count one step and show the running ``values``."""
        self.step += 1
        self._bar.n = round(100 * self.progress, 1)
        text = " ".join(f"{name} {value:.2f}" for name, value in values.items())
        self._bar.set_postfix_str(f"step {self.step} {text}", refresh=False)
        self._bar.update(0)

    def note(self, values: dict[str, Any]) -> None:
        """Append one row to the training curve and print it above the bar."""
        row = {"stage": self.name, "step": self.step, "minutes": round(self.elapsed / 60.0, 2), **values}
        self.history.append(row)
        self._bar.write(json.dumps(row))

    def save_if_due(self, state: dict[str, Any]) -> None:
        """Save the state if two minutes have passed since the last time."""
        if time.monotonic() - self._saved >= _SAVE_SECONDS:
            self.save(state)

    def save(self, state: dict[str, Any], finished: bool = False) -> None:
        """Write the state atomically."""
        content = {"state": state, "step": self.step, "elapsed": self.elapsed, "history": self.history}
        temporary = self._path.with_suffix(".partial")
        torch.save(content | {"finished": finished}, temporary)
        os.replace(temporary, self._path)
        self._saved = time.monotonic()

    def load(self) -> tuple[dict[str, Any], bool] | None:
        """Return the saved state and whether the stage had finished, or None; takes over its time and history."""
        if not self._path.exists():
            return None
        content = torch.load(self._path, map_location="cpu", weights_only=True)
        self.step, self._before = content["step"], content["elapsed"]
        self.history = content["history"]
        self._started = time.monotonic()
        return content["state"], content["finished"]

    def close(self) -> None:
        """Remove the progress bar."""
        self._bar.close()


class RunningMean:
    """Exponential means of named values."""

    def __init__(self, decay: float = 0.95) -> None:
        """Start empty; ``decay`` is the weight of the past."""
        self.values: dict[str, float] = {}
        self._decay = decay

    def update(self, values: dict[str, float]) -> None:
        """Take in new values; a name not seen before starts at its value."""
        for name, value in values.items():
            past = self.values.get(name, value)
            self.values[name] = self._decay * past + (1.0 - self._decay) * value

    def rounded(self) -> dict[str, float]:
        """Return the means with three decimals."""
        return {name: round(value, 3) for name, value in self.values.items()}
