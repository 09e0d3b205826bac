"""A session in a file: safetensors, with JSON among its metadata. Nothing of it is ever run; all of it is checked."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from earlytom.errors import CompressionError, shown, shown_cause
from earlytom.models import open_model
from earlytom.runtime.devices import input_device
from earlytom.runtime.sessions.fingerprint import fingerprint
from earlytom.runtime.sessions.kept_cache import KeptCache
from earlytom.runtime.sessions.prefix import Placement, VideoPrefix, placement
from earlytom.runtime.sessions.record import SessionRecord
from earlytom.runtime.sessions.session import SessionState, VideoSession
from earlytom.runtime.sessions.turn import Behind
from earlytom.runtime.turns import turns_of
from earlytom.trace import Trace

if TYPE_CHECKING:
    from torch import nn

    from earlytom.models.base import Host

__all__ = ["read_session", "write_session"]

_RECORD = "earlytom_session"
_HIGHEST = 1 << 31


def write_session(path: Path, state: SessionState, model: nn.Module) -> None:
    """Write a session; a file that is there already is replaced at the end, in one step.

    Args:
        path: of the file.
        state: of the session.
        model: the stock model.

    Raises:
        CompressionError: it cannot be written.
    """
    from safetensors.torch import save_file

    record = SessionRecord.of(state, fingerprint(model))
    tensors = {"ids": state.prefix.ids}
    if state.prefix.positions is not None:
        tensors["positions"] = state.prefix.positions
    for number, (keys, values) in enumerate(state.behind.cache.layers):
        tensors |= {f"keys.{number}": keys, f"values.{number}": values}
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".earlytom-") as folder:
            written = Path(folder, path.name)
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            save_file(contiguous, written, metadata={_RECORD: json.dumps(record.to_dict())})
            os.replace(written, path)
    except OSError as error:
        raise CompressionError(f"the session cannot be written to {shown(str(path))}: {shown_cause(error)}") from error


def read_session(path: Path, model: nn.Module, processor: Any) -> VideoSession:
    """Read a session back.

    Args:
        path: of the file.
        model: the model, or a wrapper around it.
        processor: its processor.

    Raises:
        CompressionError: it cannot be read, is damaged, or belongs to another model.
    """
    host = open_model(model)
    try:
        record, tensors = _read(path)
        with turns_of(host.model).take():
            record.check_model(fingerprint(host.model))
        state = _state(record, tensors, host)
    except CompressionError as error:
        raise CompressionError(f"{shown(str(path))} cannot be opened as a session: {error}") from error.__cause__
    return VideoSession(model, processor, state, Trace(method=state.method))


def _read(path: Path) -> tuple[SessionRecord, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            record = SessionRecord.from_text((file.metadata() or {}).get(_RECORD))
            return record, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except (OSError, SafetensorError) as error:
        raise CompressionError(f"it cannot be read ({shown_cause(error)})") from error


def _state(record: SessionRecord, tensors: dict[str, Tensor], host: Host) -> SessionState:
    places = placement(host.language.layers)
    cache = _cache(tensors, host, places)
    device, vocabulary = input_device(host.model), host.model.get_input_embeddings().num_embeddings
    ids = _whole_numbers(tensors, "ids", (1, cache.length - len(record.tail)), vocabulary)
    if any(not 0 <= token < vocabulary for token in (*record.tail, *record.head)):
        raise CompressionError(f"it holds tokens that are none of the model's {vocabulary}")
    positions = _positions(tensors, host, ids.shape[1], record.next_position)
    prefix = VideoPrefix(
        head=record.head,
        ids=ids.to(device),
        positions=None if positions is None else positions.to(device),
        next_position=record.next_position,
        prompt_tokens=record.prompt_tokens,
        placement=places,
    )
    behind = Behind(cache, record.tail)
    return SessionState(method=record.method, prefix=prefix, seen=record.seen, talk=record.talk, behind=behind)


def _cache(tensors: dict[str, Tensor], host: Host, places: Placement) -> KeptCache:
    """The cache, each layer where the model's is."""
    config = host.config.get_text_config(decoder=True)
    heads = config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    first = tensors.get("keys.0")
    if first is None or first.dim() != 4 or not first.shape[2] or not first.is_floating_point():
        raise CompressionError("it holds no cache")
    shape, layers = (1, heads, first.shape[2], size), []
    for number, place in enumerate(places):
        # Weights that are no floating-point numbers are quantised, and say nothing of the cache.
        dtype = place[1] if place is not None and place[1].is_floating_point else first.dtype
        device = torch.device("cpu") if place is None else place[0]
        keys, values = (_numbers(tensors, f"{kind}.{number}", shape, dtype) for kind in ("keys", "values"))
        layers.append((keys.to(device), values.to(device)))
    return KeptCache(tuple(layers))


def _numbers(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of the file."""
    tensor = tensors.get(name)
    if tensor is None or (tuple(tensor.shape), tensor.dtype) != (shape, dtype):
        found = None if tensor is None else f"{tensor.dtype} {tuple(tensor.shape)}"
        raise CompressionError(f"its {name} must be {dtype} {shape}, got {found}")
    return tensor


def _positions(tensors: dict[str, Tensor], host: Host, length: int, next_position: int) -> Tensor | None:
    if host.sequential_positions:
        if next_position != length or "positions" in tensors:
            raise CompressionError("its positions are not numbers in the sequence, as this model's are")
        return None
    axes = tensors["positions"].shape[0] if "positions" in tensors and tensors["positions"].dim() == 3 else 4
    if axes not in (3, 4):
        raise CompressionError(f"its positions have {axes} axes, not 3 or 4")
    return _whole_numbers(tensors, "positions", (axes, 1, length), _HIGHEST)


def _whole_numbers(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...], stop: int) -> Tensor:
    """A tensor of integers from 0, below ``stop``."""
    tensor = _numbers(tensors, name, shape, torch.int64)
    if bool((tensor < 0).any()) or bool((tensor >= stop).any()):
        raise CompressionError(f"its {name} must be numbers from 0 below {stop}")
    return tensor
