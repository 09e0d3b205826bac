"""Conversations about videos that are read, encoded and prefilled once.

A session is a cache, the prompt's shape and the positions; the model is left as it was, and knows nothing of it.
"""

from earlytom.runtime.sessions.session import VideoSession

__all__ = ["VideoSession"]
