"""EarlyTom: training-free token compression for video LLMs on stock Hugging Face models.

Everything public is imported when it is first used, so that ``import earlytom`` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earlytom.errors import CompressionError, EarlyTomError, MethodError, ModelError, VideoError
    from earlytom.methods import make_method, parse_method
    from earlytom.methods.average_pooling import AveragePooling
    from earlytom.methods.base import Method
    from earlytom.methods.compose import Composition, compose
    from earlytom.methods.dycoke import DyCoke
    from earlytom.methods.earlytom import EarlyTom
    from earlytom.methods.evs import EVS
    from earlytom.methods.fastv import FastV
    from earlytom.methods.fastvid import FastVID
    from earlytom.methods.holitom import HoliTom
    from earlytom.methods.inner_merging import InnerMerging
    from earlytom.methods.none import Uncompressed
    from earlytom.methods.prunevid import PruneVid
    from earlytom.methods.pyramiddrop import PyramidDrop
    from earlytom.methods.random import RandomSelection
    from earlytom.methods.tome import ToMe
    from earlytom.methods.uniform import UniformSubsampling
    from earlytom.methods.vidcom2 import VidCom2
    from earlytom.methods.visionzip import VisionZip
    from earlytom.reduction import Reduction
    from earlytom.runtime import compress, prepare
    from earlytom.runtime.answer import Answer
    from earlytom.runtime.pipeline import VideoQA, load
    from earlytom.runtime.sessions import VideoSession
    from earlytom.shipped import sample_questions, sample_videos, shipped_model
    from earlytom.trace import Trace
    from earlytom.video import Limits, Sampling, Video, read_video

__version__ = "0.1.0"

_HOMES = {
    "Answer": "earlytom.runtime.answer",
    "AveragePooling": "earlytom.methods.average_pooling",
    "Composition": "earlytom.methods.compose",
    "CompressionError": "earlytom.errors",
    "DyCoke": "earlytom.methods.dycoke",
    "EVS": "earlytom.methods.evs",
    "EarlyTom": "earlytom.methods.earlytom",
    "EarlyTomError": "earlytom.errors",
    "FastV": "earlytom.methods.fastv",
    "FastVID": "earlytom.methods.fastvid",
    "HoliTom": "earlytom.methods.holitom",
    "InnerMerging": "earlytom.methods.inner_merging",
    "Limits": "earlytom.video",
    "Method": "earlytom.methods.base",
    "MethodError": "earlytom.errors",
    "ModelError": "earlytom.errors",
    "PruneVid": "earlytom.methods.prunevid",
    "PyramidDrop": "earlytom.methods.pyramiddrop",
    "RandomSelection": "earlytom.methods.random",
    "Reduction": "earlytom.reduction",
    "Sampling": "earlytom.video",
    "ToMe": "earlytom.methods.tome",
    "Trace": "earlytom.trace",
    "Uncompressed": "earlytom.methods.none",
    "UniformSubsampling": "earlytom.methods.uniform",
    "VidCom2": "earlytom.methods.vidcom2",
    "Video": "earlytom.video",
    "VideoError": "earlytom.errors",
    "VideoQA": "earlytom.runtime.pipeline",
    "VideoSession": "earlytom.runtime.sessions",
    "VisionZip": "earlytom.methods.visionzip",
    "compose": "earlytom.methods.compose",
    "compress": "earlytom.runtime",
    "load": "earlytom.runtime.pipeline",
    "make_method": "earlytom.methods",
    "parse_method": "earlytom.methods",
    "prepare": "earlytom.runtime",
    "read_video": "earlytom.video",
    "sample_questions": "earlytom.shipped",
    "sample_videos": "earlytom.shipped",
    "shipped_model": "earlytom.shipped",
}

__all__ = [
    "EVS",
    "Answer",
    "AveragePooling",
    "Composition",
    "CompressionError",
    "DyCoke",
    "EarlyTom",
    "EarlyTomError",
    "FastV",
    "FastVID",
    "HoliTom",
    "InnerMerging",
    "Limits",
    "Method",
    "MethodError",
    "ModelError",
    "PruneVid",
    "PyramidDrop",
    "RandomSelection",
    "Reduction",
    "Sampling",
    "ToMe",
    "Trace",
    "Uncompressed",
    "UniformSubsampling",
    "VidCom2",
    "Video",
    "VideoError",
    "VideoQA",
    "VideoSession",
    "VisionZip",
    "__version__",
    "compose",
    "compress",
    "load",
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
