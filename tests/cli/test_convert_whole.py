"""``earlytom convert`` leaves the old folder or the new one, whole, and never half of either."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli.app import app
from earlytom.models.checkpoint import writing
from earlytom.models.llava_video.model import LlavaVideoForConditionalGeneration
from earlytom.models.llava_video.processor import LlavaVideoProcessor
from reference.published_llava_video import write_checkpoint

CONVERT = (sys.executable, "-c", "from earlytom.cli.app import main; main()", "convert")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["convert", *(str(argument) for argument in arguments)])


def state(folder: Path) -> dict[str, str]:
    """Everything in a folder, hidden files too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "source")


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def refused(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def half_a_model(self: object, folder: Path, **__: object) -> None:
    (Path(folder) / "config.json").write_text("{}")
    (Path(folder) / "model.safetensors").write_bytes(b"half")
    full()


def short_model(self: object, folder: Path, **__: object) -> None:
    """No error is raised, but the weights are not all there."""
    write_checkpoint(Path(folder), layout="safetensors")


Model = LlavaVideoForConditionalGeneration
FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "weights, disk full": lambda patch: patch.setattr(Model, "save_pretrained", half_a_model),
    "weights, not whole": lambda patch: patch.setattr(Model, "save_pretrained", short_model),
    "processor, disk full": lambda patch: patch.setattr(LlavaVideoProcessor, "save_pretrained", full),
    "processor, not allowed": lambda patch: patch.setattr(LlavaVideoProcessor, "save_pretrained", refused),
    "synchronizing": lambda patch: patch.setattr(writing.os, "fsync", full),
    "renaming": lambda patch: patch.setattr(Path, "rename", refused),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("there", [False, True])
def test_a_failure_leaves_everything_as_it_was(fault, there, source, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    if there:
        assert invoke(source, out).exit_code == 0
        (out / "notes.txt").write_text("mine")
        (out / "more").mkdir()
        (out / "more" / "notes.txt").write_text("mine")
    before = state(tmp_path)
    FAULTS[fault](monkeypatch)
    done = invoke(source, out, *(["--force"] if there else []))
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"cannot convert '{source}': " in " ".join(done.stderr.split())
    assert ("the disk is full" in done.stderr) == ("full" in fault or fault == "synchronizing")
    assert "Traceback" not in done.stderr
    assert state(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="limits on files are POSIX's")
@pytest.mark.parametrize("limit", [1_000, 100_000])
@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_is_one_line(limit, there, source, tmp_path) -> None:
    """The system refuses to write on, here by a limit on the size of files."""
    import resource

    out = tmp_path / "out"
    if there:
        assert invoke(source, out).exit_code == 0
    before = state(tmp_path)
    done = subprocess.run(
        [*CONVERT, str(source), str(out), *(["--force"] if there else [])],
        capture_output=True, text=True, check=False, timeout=300, env=os.environ | {"COLUMNS": "1000"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "error" in line]
    assert "the disk is full" in line
    assert "is as it was" in line
    assert "Traceback" not in done.stderr
    assert state(tmp_path) == before


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_killed_conversion_leaves_the_old_folder(source, tmp_path) -> None:
    out = tmp_path / "out"
    assert invoke(source, out).exit_code == 0
    before = state(out)
    with stopped_before(source, out, "writing._synchronize", ".out.*.partial/tokenizer.json"):
        pass
    assert state(out) == before
    assert list(tmp_path.glob(".out.*.partial"))


@contextmanager
def stopped_before(source: Path, out: Path, step: str, file: str) -> Iterator[None]:
    """A conversion in another process that stands still before a step once a file is there; killed at the end."""
    program = (
        "import time; from pathlib import Path; from earlytom.models.checkpoint import writing; "
        f"{step} = lambda *_: time.sleep(600); from earlytom.cli.app import main; main()"
    )
    child = subprocess.Popen([sys.executable, "-c", program, "convert", str(source), str(out), "--force"])
    try:
        deadline = time.monotonic() + 120
        while not list(out.parent.glob(file)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(out.parent.glob(file))
        yield
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_leftovers_of_the_dead_go_and_those_of_the_living_stay(source, tmp_path) -> None:
    out = tmp_path / "out"
    others = [".out.partial", ".out.0123456789ab.partial.txt", ".other.0123456789ab.partial", ".out.0123456789AB.old"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".out.aaaaaaaaaaaa.partial").write_text("a file")
    (tmp_path / ".out.bbbbbbbbbbbb.partial").symlink_to(source)
    others += [".out.aaaaaaaaaaaa.partial", ".out.bbbbbbbbbbbb.partial"]
    with stopped_before(source, out, "writing._synchronize", ".out.*.partial/tokenizer.json"):
        before = {path.name for path in tmp_path.glob(".out.*.partial")}
        assert invoke(source, out).exit_code == 0
        assert {path.name for path in tmp_path.glob(".out.*.partial")} == before
    # Another destination, whose leftovers they are not.
    assert invoke(source, tmp_path / "out2").exit_code == 0
    assert {path.name for path in tmp_path.glob(".out.*.partial")} == before
    assert invoke(source, out, "--force").exit_code == 0
    assert {path.name for path in tmp_path.glob(".*")} == set(others)
    assert (source / "config.json").is_file()


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
def test_a_folder_that_had_been_set_aside_is_put_back(source, tmp_path) -> None:
    """Killed between the two renames: the old folder is whole, under another name."""
    out = tmp_path / "out"
    assert invoke(source, out).exit_code == 0
    (out / "notes.txt").write_text("mine")
    before = state(out)
    program = (
        "import os, signal; from pathlib import Path; from earlytom.models.checkpoint import writing; "
        "rename = Path.rename; "
        "Path.rename = lambda path, new: (rename(path, new), os.kill(os.getpid(), signal.SIGKILL)); "
        "from earlytom.cli.app import main; main()"
    )
    child = subprocess.run([sys.executable, "-c", program, "convert", str(source), str(out), "--force"], check=False)
    assert child.returncode == -signal.SIGKILL
    assert not out.exists()
    done = invoke(source, out)
    assert "is not empty" in " ".join(done.stderr.split())
    assert state(out) == before
    assert not list(tmp_path.glob(".out.*"))


def test_leftovers_that_cannot_be_cleared_do_no_harm(source, tmp_path, monkeypatch) -> None:
    for kind in ("partial", "old"):
        (tmp_path / f".out.0123456789ab.{kind}").mkdir()
    monkeypatch.setattr(writing.shutil, "rmtree", refused)
    monkeypatch.setattr(Path, "iterdir", refused)
    writing.clear_leftovers(tmp_path / "out")
    monkeypatch.undo()
    assert len(list(tmp_path.glob(".out.*"))) == 2


def test_a_folder_is_replaced_by_a_whole_one(source, tmp_path) -> None:
    """What is no checkpoint stays, what was of another checkpoint goes."""
    out = tmp_path / "out"
    write_checkpoint(out)
    (out / "notes.txt").write_text("mine")
    (out / "pictures").mkdir()
    (out / "pictures" / "one.txt").write_text("picture")
    (out / "link").symlink_to("notes.txt")
    (out / "preprocessor_config.json").write_text("{}")
    assert invoke(source, out, "--force").exit_code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "pictures" / "one.txt").read_text() == "picture"
    assert (out / "link").is_symlink()
    assert not list(out.glob("model-*")) + list(out.glob("*.index.json"))
    assert not (out / "preprocessor_config.json").exists()
    assert not list(tmp_path.glob(".*"))
    assert earlytom.VideoQA.load(out, device="cpu").model.config.model_type == "llava_video"
    assert all(os.access(file, os.R_OK) for file in out.iterdir())


def test_a_link_to_a_folder_stays_one(source, tmp_path) -> None:
    (tmp_path / "disk" / "out").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    assert invoke(source, tmp_path / "out").exit_code == 0
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "out" / "model.safetensors").is_file()


def test_source_and_destination_lie_apart(source, tmp_path) -> None:
    before = state(tmp_path)
    os.symlink(source, tmp_path / "alias")
    for arguments, message in (
        ((source, source / "out"), "lies inside the source"),
        ((source, source / "a" / "b"), "lies inside the source"),
        ((source, tmp_path / "alias" / "out"), "lies inside the source"),
        ((tmp_path / "alias", source / "out"), "lies inside the source"),
        ((source, source / ".." / "source" / "out"), "lies inside the source"),
        ((source, tmp_path / "alias"), "is the source"),
        ((source, tmp_path, "--force"), "source lies inside the destination"),
    ):
        done = invoke(*arguments)
        assert done.exit_code == 1
        assert message in " ".join(done.stderr.split())
    (tmp_path / "alias").unlink()
    assert state(tmp_path) == before


def test_folders_whose_names_begin_alike_are_apart(source, tmp_path) -> None:
    assert invoke(source, tmp_path / "source2").exit_code == 0
    shutil.rmtree(tmp_path / "source2")
    assert invoke(source, tmp_path / "new" / "folder").exit_code == 0


@pytest.mark.parametrize("name", ["x" * 5000, "/".join(["y" * 200] * 30), "loop", "loop/out"])
def test_a_destination_that_cannot_be_is_one_short_line(name, source, tmp_path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    done = invoke(source, tmp_path / name)
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert "error: the destination" in done.stderr
    assert len(done.stderr) < 500


@pytest.mark.parametrize("name", ["/dev/null", " ", "\n", "", "a/b/c", "../x", "\0", "x" * 5000])
def test_a_source_that_cannot_be_is_one_short_line(name, tmp_path) -> None:
    done = invoke(name, tmp_path / "out")
    assert isinstance(done.exception, SystemExit)
    assert done.exit_code == 1
    assert "error: cannot convert" in done.stderr
    assert len(done.stderr) < 1000
    assert not (tmp_path / "out").exists()


def test_files_of_the_user_s_own_stay_whatever_they_are_called(tmp_path) -> None:
    destination = tmp_path / "model"
    (destination / "tokenizer_backup").mkdir(parents=True)
    kept = ["train_config.json", "adapter_notes.md", "notes.txt", "tokenizer_backup/x"]
    for name in (*kept, "config.json", "model-00001-of-00002.safetensors"):
        (destination / name).write_text(name)
    writing.replace_folder(destination, lambda fresh: (fresh / "config.json").write_text("new"), lambda fresh: None)
    assert all((destination / name).read_text() == name for name in kept)
    assert (destination / "config.json").read_text() == "new"
    assert not (destination / "model-00001-of-00002.safetensors").exists()
