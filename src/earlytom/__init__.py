"""EarlyTom: training-free token compression for video LLMs on stock Hugging Face models.

Everything public is imported when it is first used, so that ``import earlytom`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earlytom.errors import CompressionError, EarlyTomError, MethodError, ModelError, VideoError
    from earlytom.methods import make_method, parse_method
    from earlytom.methods.base import Method
    from earlytom.methods.earlytom import EarlyTom
    from earlytom.methods.none import Uncompressed
    from earlytom.reduction import Reduction
    from earlytom.runtime import compress, prepare
    from earlytom.runtime.pipeline import Answer, VideoQA
    from earlytom.shipped import sample_questions, sample_videos, shipped_model
    from earlytom.trace import Trace
    from earlytom.video import Sampling, Video, read_video

__version__ = "0.1.0"

_HOMES = {
    "Answer": "earlytom.runtime.pipeline",
    "CompressionError": "earlytom.errors",
    "EarlyTom": "earlytom.methods.earlytom",
    "EarlyTomError": "earlytom.errors",
    "Method": "earlytom.methods.base",
    "MethodError": "earlytom.errors",
    "ModelError": "earlytom.errors",
    "Reduction": "earlytom.reduction",
    "Sampling": "earlytom.video",
    "Trace": "earlytom.trace",
    "Uncompressed": "earlytom.methods.none",
    "Video": "earlytom.video",
    "VideoError": "earlytom.errors",
    "VideoQA": "earlytom.runtime.pipeline",
    "compress": "earlytom.runtime",
    "make_method": "earlytom.methods",
    "parse_method": "earlytom.methods",
    "prepare": "earlytom.runtime",
    "read_video": "earlytom.video",
    "sample_questions": "earlytom.shipped",
    "sample_videos": "earlytom.shipped",
    "shipped_model": "earlytom.shipped",
}

__all__ = [
    "Answer",
    "CompressionError",
    "EarlyTom",
    "EarlyTomError",
    "Method",
    "MethodError",
    "ModelError",
    "Reduction",
    "Sampling",
    "Trace",
    "Uncompressed",
    "Video",
    "VideoError",
    "VideoQA",
    "__version__",
    "compress",
    "make_method",
    "parse_method",
    "prepare",
    "read_video",
    "sample_questions",
    "sample_videos",
    "shipped_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'earlytom' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
