"""What ``earlytom bench`` and its relatives share: a model, a clip, methods, and files for what was found."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earlytom.bench.files import make_folder, write_texts
from earlytom.cli import choices
from earlytom.cli.display import status
from earlytom.errors import VideoError, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earlytom.bench.clips import ClipSettings
    from earlytom.bench.whole import Clip
    from earlytom.methods.base import Method
    from earlytom.runtime.pipeline import VideoQA

__all__ = [
    "QUESTION",
    "attention_of",
    "build_configured",
    "check_there",
    "describe_opened",
    "make_folder",
    "open_clip",
    "with_preset",
    "write_texts",
]

QUESTION = "What happens in this video, and in which order? Describe it in a few sentences."


def check_there(video: Path | None) -> None:
    """Raise `VideoError` for a file that was named and is not there."""
    if video is not None and not video.is_file():
        raise VideoError(f"{shortened(video)}: no such file")


def attention_of(qa: VideoQA) -> str:
    """The attention implementation that a model runs with."""
    config: Any = qa.model.config
    return config._attn_implementation or "eager"


def describe_opened(qa: VideoQA, config: str | None, model: str | None, seed: int) -> dict[str, Any]:
    """A model that ``--config`` or ``--model`` asked for, as plain data for JSON."""
    from earlytom.bench.whole import describe_model

    if config is not None:
        return describe_model(qa.model, config, f"random, seed {seed}")
    # A folder's place is nobody's business.
    name = "the test model" if model is None else Path(model).name if Path(model).exists() else model
    return describe_model(qa.model, name, "checkpoint")


def with_preset(texts: list[str], preset: str | None) -> list[str]:
    """The methods, with the preset for those that have presets and name none."""
    return texts if preset is None else [_preset_added(text, preset) for text in texts]


def _preset_added(text: str, preset: str) -> str:
    from earlytom.methods import parse_method
    from earlytom.methods.grammar import written_option

    method = parse_method(text)
    takes = any(hasattr(part, "preset") for part in _parts(method))
    if not takes or written_option(text, "preset") is not None:
        return text
    last = text.rpartition("+")[2]
    return f"{text}{',' if ':' in last else ':'}preset={preset}"


def _parts(method: Method) -> list[Method]:
    """A method, and the methods that it was put together from."""
    stages = (getattr(method, stage, None) for stage in ("encoder", "tokens", "llm"))
    return [method, *(part for part in stages if part is not None)]


def build_configured(config: str, choice: choices.ModelChoice, seed: int) -> VideoQA:
    """An architecture with random weights."""
    from earlytom.bench.configurations import build_video_qa, find_configuration

    find_configuration(config)
    with status(f"making {config}"):
        import torch

        from earlytom.runtime.loading import find_device, find_dtype

        device = find_device(choice.device)
        usual = torch.bfloat16 if device.type == "cuda" else torch.float32
        dtype = find_dtype(choice.dtype.value) or usual
        return build_video_qa(config, device=device, dtype=dtype, attention=choice.attention or "sdpa", seed=seed)


@contextmanager
def open_clip(video: Path | None, settings: ClipSettings) -> Iterator[Clip]:
    """The video that was given, or a made one that is gone afterwards."""
    from tempfile import TemporaryDirectory

    from earlytom.bench.clips import write_clip
    from earlytom.bench.whole import Clip

    if video is not None:
        yield Clip(path=video)
        return
    with TemporaryDirectory(prefix="earlytom-") as folder:
        path = Path(folder) / "generated.mp4"
        with status("making a video"):
            write_clip(path, settings)
        yield Clip(path=path, made=settings)
