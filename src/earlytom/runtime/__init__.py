"""Joins a method with a model family for one call."""

from earlytom.runtime.compress import compress, prepare

__all__ = ["compress", "prepare"]
