"""Every error this package raises on purpose.

::

    EarlyTomError
    ├── MethodError (ValueError)       unknown method, a knob out of range, a knob that does not fit the model, a
    │                                  decision that is none
    ├── ModelError (TypeError)         a model class that is not supported, a model in a state that cannot be compressed
    ├── CompressionError (RuntimeError)  compression did not run where it was promised, or a budget was missed
    └── VideoError (ValueError)        a video that is missing, empty, corrupt, truncated or has no picture
"""

__all__ = [
    "CompressionError",
    "EarlyTomError",
    "MethodError",
    "ModelError",
    "VideoError",
    "shortened",
    "shown",
    "shown_cause",
]

_MOST_CHARACTERS = 200


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


def shown(value: object) -> str:
    """A value as error messages quote it: its ``repr``, cut after 200 characters."""
    try:
        text = repr(value)
    except Exception:  # integers of thousands of digits, for one, have none
        text = f"<{type(value).__name__} that cannot be written>"
    return shortened(text)


def shown_cause(error: BaseException) -> str:
    """The first line of what somebody else's error says, cut after 200 characters; its type where it says nothing."""
    return shortened((str(error).strip() or type(error).__name__).splitlines()[0])


def shortened(value: object) -> str:
    """A path or other text as error messages have it: cut after 200 characters."""
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 3]}..."
