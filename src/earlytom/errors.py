"""Every error this package raises on purpose.

::

    EarlyTomError
    ├── MethodError (ValueError)       unknown method, a knob out of range, a knob that does not fit the model, a
    │                                  decision that is none
    ├── ModelError (TypeError)         a model class that is not supported, a model in a state that cannot be compressed
    ├── CompressionError (RuntimeError)  compression did not run where it was promised, or a budget was missed
    └── VideoError (ValueError)        a video that is missing, empty, corrupt, truncated or has no picture
"""

__all__ = ["CompressionError", "EarlyTomError", "MethodError", "ModelError", "VideoError", "brief", "brief_repr"]


class EarlyTomError(Exception):
    """Base class: catch this to catch everything this package raises on purpose."""


class MethodError(EarlyTomError, ValueError):
    """A method is unknown, one of its knobs is out of range or does not fit the model, or its decision is none.

    The last is what `earlytom.Reduction` and the values of `earlytom.types` raise when they are made of what does not
    belong together.
    """


class ModelError(EarlyTomError, TypeError):
    """A model class is not supported, or the model is in a state in which it cannot be compressed."""


class CompressionError(EarlyTomError, RuntimeError):
    """Compression did not run where it was promised, or the promised number of tokens was missed."""


class VideoError(EarlyTomError, ValueError):
    """A video cannot be read; the message names the source and the cause."""


# Longest piece of a caller's own input that an error repeats.
_QUOTED = 200


def brief(text: str) -> str:
    """What a caller gave, fit for one line of an error: at most 200 characters, the middle left out of longer ones."""
    line = " ".join(text.splitlines())
    if len(line) <= _QUOTED:
        return line
    half = (_QUOTED - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def brief_repr(value: object) -> str:
    """``repr`` of what a caller gave, as :func:`brief`; the name of its type where it has none."""
    try:
        return brief(repr(value))
    except Exception:  # integers of more than 4300 digits, objects that fail
        return f"a {type(value).__name__}"
