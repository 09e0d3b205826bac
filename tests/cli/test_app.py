"""Entry, help, errors and exit codes."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import earlytom
from earlytom.cli import methods as methods_command
from earlytom.cli.app import app
from earlytom.methods import method_names

COMMANDS = ("demo", "ask", "chat", "inspect", "methods", "models", "doctor")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_help_names_every_command_and_the_exit_codes() -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for command in (*COMMANDS, "eval"):
        assert f" {command} " in result.stdout
    assert "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted." in result.stdout
    assert "generated scenes only" in " ".join(result.stdout.split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout


def test_ask_help_shows_all_options() -> None:
    text = invoke("ask", "--help").stdout
    for option in (
        "--model", "--method", "--retention", "--visual-tokens", "--preset", "--frames", "--fps", "--max-frames",
        "--decoder", "--device", "--dtype", "--attention", "--max-new-tokens", "--compare", "--repeats", "--stream",
        "--json",
    ):  # fmt: skip
        assert f"{option} " in text
    assert re.search(r"Usage: .* ask \[OPTIONS\] \W?VIDEO\W? \W?QUESTION", text)


def test_version() -> None:
    result = invoke("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, f"earlytom {earlytom.__version__}")


@pytest.mark.parametrize(
    "arguments", [("nonsense",), ("ask",), ("ask", "x.mp4"), ("ask", "x.mp4", "q", "--frames", "0")]
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_interruption_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(methods_command, "method_names", interrupted)
    assert invoke("methods").exit_code == 130


def test_debug_shows_the_traceback_and_the_line() -> None:
    plain, debug = invoke("methods", "nonsense"), invoke("--debug", "methods", "nonsense")
    assert plain.exit_code == debug.exit_code == 1
    assert plain.stderr == f"error: unknown method 'nonsense'; the methods are: {', '.join(method_names())}\n"
    assert "Traceback" in debug.stderr
    assert debug.stderr.endswith(plain.stderr)


def test_a_full_gpu_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutOfMemoryError(RuntimeError):
        pass

    def full() -> list[str]:
        raise OutOfMemoryError("CUDA out of memory. Tried to allocate ...")

    monkeypatch.setattr(methods_command, "method_names", full)
    result = invoke("methods")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the GPU's memory is full; use fewer --frames")


def test_an_unforeseen_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(methods_command, "method_names", broken)
    assert isinstance(invoke("methods").exception, ZeroDivisionError)


LIGHT = [
    ["--help"],
    ["ask", "--help"],
    ["chat", "--help"],
    ["eval", "testbed", "--help"],
    ["methods"],
    ["methods", "earlytom", "--json"],
    ["models", "--json"],
    ["models"],
]


def test_light_commands_import_neither_torch_nor_transformers() -> None:
    program = f"""
import sys
from earlytom.cli.app import app
from earlytom.methods import method_names
for arguments in {LIGHT!r}:
    try:
        app(arguments)
    except SystemExit as end:
        if end.code:
            raise
heavy = {{"torch", "transformers", "matplotlib", "av", "PIL"}} & set(sys.modules)
sys.exit(f"imported: {{sorted(heavy)}}" if heavy else 0)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_console_script_fails_with_1_and_one_line() -> None:
    program = "from earlytom.cli.app import main; main()"
    arguments = ["ask", "missing.mp4", "What?"]
    run = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "error: missing.mp4: no such file\n")


@pytest.mark.parametrize("name", ["ask", "compress_generate", "prepare"])
def test_examples_run(name: str, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main("", str(clip), "How many objects are there?")
    printed = capsys.readouterr().out
    tokens = 16 * 36  # the shipped model takes 16 frames of 36 tokens
    expected = {
        "ask": f"  {tokens // 4} visual tokens",
        "compress_generate": "prefill: ",
        "prepare": f"dropped {tokens - tokens // 4} of ",
    }
    assert expected[name] in printed


_LONG = "x" * 5000
_DEEP = "/tmp/" + "/".join(["y" * 200] * 30)


@pytest.mark.parametrize("name", [_LONG, _DEEP, "x" * 300 + ".png"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("ask", "CLIP", "What?", "--model", "NAME"),
        ("ask", "NAME", "What?"),
        ("inspect", "NAME"),
        ("inspect", "CLIP", "--output", "NAME.png"),
        ("demo", "NAME"),
        ("eval", "testbed", "--clips", "1", "--methods", "random", "--model", "NAME"),
        ("eval", "testbed", "--clips", "1", "--methods", "random", "--output", "NAME"),
    ],
)
def test_a_name_that_is_too_long_is_one_short_line(clip: Path, name: str, arguments: tuple[str, ...]) -> None:
    words = [word.replace("NAME", name).replace("CLIP", str(clip)) for word in arguments]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 1
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(line) < 500


@pytest.mark.parametrize(
    "arguments",
    [
        ("NAME",),
        ("--NAME",),
        ("eval", "NAME"),
        ("eval", "testbed", "NAME"),
        ("ask", "v", "q", "--NAME"),
        ("ask", "v", "q", "--dtype", "NAME"),
        ("ask", "v", "q", "--frames", "NAME"),
        ("ask", "v", "q", "--dtype=NAME"),
        ("ask", "v", "q", "NAME"),
        ("ask", "v", "q", *["word"] * 500),
        ("ask", "v", "q", "--method", "earlytom:retention=0.5,preset=NAME", "--retention", "0.25"),
    ],
)
def test_wrong_usage_quotes_little(arguments: tuple[str, ...]) -> None:
    result = invoke(*[word.replace("NAME", "x" * 5000) for word in arguments])
    assert result.exit_code == 2
    assert result.stderr.count("x") + result.stderr.count("word") * 4 < 220
    assert "Error" in result.stderr
    assert "Usage: " in result.stderr


def test_the_help_that_is_shown_for_no_arguments_is_whole() -> None:
    result = invoke("eval")
    assert " ... " not in result.output
    assert "testbed" in result.output
