"""Folders and files for what was found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from earlytom.errors import EarlyTomError, shortened

__all__ = ["make_folder", "write_texts"]


def make_folder(folder: Path | None) -> None:
    """Make a folder for results where it is missing, and try whether files can be made in it; ``None``: nothing to do.

    Raises:
        EarlyTomError: the folder, or a file in it, cannot be made.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write texts into a folder, which is made where it is missing.

    Args:
        folder: where they go.
        texts: by the name of the file.

    Returns:
        The files, in the order of the texts.

    Raises:
        EarlyTomError: the folder or a file cannot be written.
    """
    make_folder(folder)
    for name, text in texts.items():
        try:
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise _unwritable(folder / name, error) from error
    return [folder / name for name in texts]


def _unwritable(path: Path, error: OSError) -> EarlyTomError:
    return EarlyTomError(f"{shortened(path)}: cannot be written: {error.strerror or error}")
