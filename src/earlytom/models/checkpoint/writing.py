"""Writing a checkpoint folder so that there is the old one or the new one, whole, whatever happens meanwhile."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from earlytom.errors import ModelError, shown
from earlytom.models.checkpoint.files import reason

try:
    import fcntl
except ImportError:  # no POSIX
    fcntl = None  # type: ignore[assignment]

__all__ = ["clear_leftovers", "is_disk_full", "replace_folder"]

# What a checkpoint consists of, which must not stay beside another one.
_PARTS = (
    "model*.safetensors",
    "model*.safetensors.index.json",
    "pytorch_model*.bin",
    "pytorch_model*.bin.index.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# safetensors reports errors of the system as text.
_FULL_IN_WORDS = tuple(f"os error {code}" for code in _FULL)


def replace_folder(destination: Path, write: Callable[[Path], None], check: Callable[[Path], object]) -> None:
    """Write a folder beside its destination, check it, bring it onto the disk, and only then put it in its place.

    What the destination held besides a checkpoint stays.

    Args:
        destination: the folder; it and the folders above it are made.
        write: writes everything into an empty folder.
        check: raises when what was written is not whole.

    Raises:
        ModelError: the disk is full, or the folder cannot be written; the destination is as it was.
    """
    destination = destination.resolve()
    token = uuid.uuid4().hex[:12]
    fresh, old = (destination.with_name(f".{destination.name}.{token}.{kind}") for kind in ("partial", "old"))
    with ExitStack() as owned:
        try:
            _make_owned(fresh, owned)
            write(fresh)
            check(fresh)
            if destination.exists():
                owned.enter_context(_owned(destination))
                _keep_others(destination, fresh)
            _synchronize(fresh)
            _swap(fresh, destination, old)
        except Exception as error:
            if not (isinstance(error, OSError) or is_disk_full(error)):
                raise
            raise ModelError(_in_words(destination, error)) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    _synchronize_folder(destination.parent)


def clear_leftovers(destination: Path) -> None:
    """Do away with what writers of this folder left beside it when they were killed; that of living ones stays.

    Where the old folder had been set aside and the new one was not yet in its place, the old one is put back.
    """
    destination = destination.resolve()
    name = re.compile(rf"\.{re.escape(destination.name)}\.[0-9a-f]{{12}}\.(partial|old)")
    if not destination.parent.is_dir():
        return
    with suppress(OSError):  # what cannot be cleared does no harm
        for folder in sorted(destination.parent.iterdir()):
            found = name.fullmatch(folder.name)
            if found is not None and folder.is_dir() and not folder.is_symlink():
                _clear(folder, destination, put_back=found[1] == "old")


def _clear(folder: Path, destination: Path, *, put_back: bool) -> None:
    with suppress(OSError), _owned(folder, wait=False) as owned:
        if owned and put_back and not destination.exists():
            folder.rename(destination)
        elif owned:
            shutil.rmtree(folder, ignore_errors=True)


def _make_owned(folder: Path, owned: ExitStack) -> None:
    """Make a folder that is this process's own until ``owned`` ends."""
    while True:
        folder.mkdir(parents=True)
        # Before it is owned, somebody who clears leftovers may take it for one.
        with suppress(FileNotFoundError):
            owned.enter_context(_owned(folder))
            if folder.exists():
                return


@contextmanager
def _owned(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Own a folder, under whatever name, until the end or the death of this process.

    Yields whether it is owned: not where another process owns it and ``wait`` is not set, nor where the system or the
    file system has no locks. What nobody can own is nobody's to clear.
    """
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system or of safetensors says that there is no room."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _FULL
    return any(words in str(error) for words in _FULL_IN_WORDS)


def _in_words(destination: Path, error: Exception) -> str:
    unchanged = f"{shown(str(destination))} is as it was"
    if is_disk_full(error):
        free = shutil.disk_usage(destination.parent).free / 1e9
        return f"the disk is full, or files may not be as large ({reason(error)}; {free:.2f} GB are free); {unchanged}"
    return f"the folder cannot be written: {reason(error)}; {unchanged}"


def _keep_others(destination: Path, fresh: Path) -> None:
    """Copy what is no part of a checkpoint, by links where they can be: the old folder stays whole until the end."""
    shutil.copymode(destination, fresh)
    for item in destination.iterdir():
        target = fresh / item.name
        folder = item.is_dir() and not item.is_symlink()
        if target.exists() or (not folder and any(item.match(pattern) for pattern in _PARTS)):
            continue
        if folder:
            shutil.copytree(item, target, symlinks=True, copy_function=_link)
        else:
            _link(item, target)


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _swap(fresh: Path, destination: Path, old: Path) -> None:
    """Put one folder in the place of another; should the second half fail, the old one is put back."""
    if not destination.exists():
        fresh.rename(destination)
        return
    destination.rename(old)
    try:
        fresh.rename(destination)
    except BaseException:
        old.rename(destination)
        raise


def _synchronize(folder: Path) -> None:
    """Bring a folder's files onto the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            if not (Path(place) / name).is_symlink():
                _synchronize_file(Path(place) / name)
        _synchronize_folder(Path(place))


def _synchronize_file(file: Path) -> None:
    # Writable, which Windows wants.
    with file.open("rb+" if os.access(file, os.W_OK) else "rb") as opened:
        os.fsync(opened.fileno())


def _synchronize_folder(folder: Path) -> None:
    """Bring the names in a folder onto the disk, where the system has a way to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
