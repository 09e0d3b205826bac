"""Folders and files for results, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from earlytom.bench import files
from earlytom.bench.files import make_folder, write_texts
from earlytom.cli import benching
from earlytom.errors import EarlyTomError


def test_texts_are_written_into_a_folder_that_is_made(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "results"
    written = write_texts(folder, {"a.json": "{}\n", "b.md": "# ü\n"})
    assert written == [folder / "a.json", folder / "b.md"]
    assert [path.read_text(encoding="utf-8") for path in written] == ["{}\n", "# ü\n"]


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.json").mkdir()
    with pytest.raises(EarlyTomError, match=r"folder: cannot be written"):
        make_folder(tmp_path / "file" / "folder")
    with pytest.raises(EarlyTomError, match=r"folder: cannot be written"):
        write_texts(tmp_path / "file" / "folder", {})
    with pytest.raises(EarlyTomError, match=r"taken\.json: cannot be written: Is a directory"):
        write_texts(tmp_path, {"taken.json": ""})


def test_a_folder_in_which_no_file_can_be_made_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: object) -> None:
        raise PermissionError(13, "Permission denied")

    make_folder(None)
    make_folder(tmp_path / "results")
    assert list((tmp_path / "results").iterdir()) == []
    monkeypatch.setattr(files, "TemporaryFile", refuse)
    with pytest.raises(EarlyTomError, match="results: cannot be written: Permission denied"):
        make_folder(tmp_path / "results")


def test_there_is_one_writer() -> None:
    assert (benching.write_texts, benching.make_folder) == (write_texts, make_folder)
