"""Joins a method with a model family for one call."""

from earlytom.runtime.compression import Compression, compress
from earlytom.runtime.preparing import prepare

__all__ = ["Compression", "compress", "prepare"]
