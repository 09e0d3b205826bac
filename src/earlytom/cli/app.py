"""The console script: commands, ``--version``, ``--debug``, and what errors look like."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import cleandoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import earlytom
from earlytom.cli import (
    ask,
    bench,
    bench_load,
    bench_roofline,
    chat,
    convert,
    demo,
    doctor,
    evaluate,
    inspect,
    methods,
    models,
    reproduce,
)
from earlytom.cli.display import fail
from earlytom.errors import EarlyTomError

__all__ = ["app", "main"]

_HELP = "\n\n".join(
    (
        "Sooner answers from video LLMs: visual token compression without training, on stock Hugging Face models.",
        "Start with [bold]earlytom demo[/bold]. Without [bold]--model[/bold], commands use the small test model that "
        "comes along; it knows generated scenes only.",
        "Answers, tables and JSON go to stdout; progress, notes and errors to stderr.",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
    )
)


# Typer brings its own click or takes the installed one, as its release has it.
_UsageError: Any = typer.BadParameter.__base__
_MOST_CHARACTERS, _HALF = 200, 97


@contextmanager
def _quoting_little() -> Iterator[None]:
    """Errors of usage quote whole words of the command line; of long messages the middle is left out."""
    try:
        yield
    except _UsageError as error:
        # The help is told as an error, too.
        if type(error).__name__ != "NoArgsIsHelpError" and len(error.message) > _MOST_CHARACTERS:
            error.message = f"{error.message[:_HALF]} ... {error.message[-_HALF:]}"
        raise


class _Commands(TyperGroup):
    """Turns the package's errors into one line and exit code 1."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        with _quoting_little():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _quoting_little():
                return super().invoke(ctx)
        except EarlyTomError as error:
            message = str(error)
            cause: Exception = error
        except Exception as error:
            # torch is not imported here, so its error is told by its name.
            if type(error).__name__ != "OutOfMemoryError":
                raise
            message = "the GPU's memory is full; use fewer --frames, a lower --dtype, or --device cpu"
            cause = error
        if ctx.params.get("debug"):
            traceback.print_exception(cause, file=sys.stderr)
        fail(message)
        raise typer.Exit(1)


app = typer.Typer(
    name="earlytom",
    cls=_Commands,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"earlytom {earlytom.__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error, too.")] = False,
) -> None:
    """Options before the command."""


def _add_command(group: typer.Typer, command: Callable[..., None], name: str | None = None) -> None:
    """Add a command under its function's name, or another; its docstring is the help."""
    group.command(name or command.__name__, help=_help_of(command))(command)


def _help_of(command: Callable[..., None]) -> str:
    # Typer would break the terminal's lines where the source's lines end.
    paragraphs = cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(
        paragraph if paragraph.startswith(" ") else " ".join(paragraph.split()) for paragraph in paragraphs
    )


for _command in (
    demo.demo,
    ask.ask,
    chat.chat,
    inspect.inspect,
    methods.methods,
    models.models,
    convert.convert,
    doctor.doctor,
):
    _add_command(app, _command)

_evaluations = typer.Typer(
    name="eval",
    help="Measure what compression costs in answers, and what it saves.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_add_command(_evaluations, evaluate.evaluate_testbed, "testbed")
app.add_typer(_evaluations)

_benchmarks = typer.Typer(name="bench", invoke_without_command=True, rich_markup_mode="rich")
_benchmarks.callback(help=_help_of(bench.bench), invoke_without_command=True)(bench.bench)
_add_command(_benchmarks, bench_roofline.roofline)
_add_command(_benchmarks, bench_load.load)
app.add_typer(_benchmarks)

_figures = typer.Typer(
    name="reproduce",
    help="Make the supplementary's figures here, each beside what the supplementary says of it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
for _figure in (reproduce.figure6, reproduce.figure7, reproduce.figure8, reproduce.flops):
    _add_command(_figures, _figure)
app.add_typer(_figures)


def main() -> None:
    """Entry point of the ``earlytom`` command."""
    app()
