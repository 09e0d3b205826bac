"""``earlytom methods``: what can compress, and with which options."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earlytom.cli.display import cell, output, print_json, table
from earlytom.cli.options import JsonOption
from earlytom.methods import find_method, method_names
from earlytom.methods.presets import (
    EVERYDAY,
    PAPER,
    PAPER_ROWS,
    PRESETS,
    WITHOUT_PRESET,
    Preset,
    find_preset,
    preset_names,
)

if TYPE_CHECKING:
    from rich.console import Console

    from earlytom.methods.base import Method

__all__ = ["describe_method", "methods"]

_ANY_RETENTION = "any"
_VISUAL_TOKENS = "visual_tokens"
_STAGES = (
    "Stages: encoder, inside the vision encoder; tokens, before the language model; llm, inside it. Methods can be put "
    "together by stage: earlytom+visionzip merges frames as earlytom does and selects tokens as visionzip does."
)


def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one method with all its options.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the compression methods, their options and the paper's presets.

    Methods are written as name:option=value,option=value, for example
    earlytom:retention=0.1,merge_layers=6/14/20,inner_merging=true, and stages of several as name+name, for example
    earlytom+visionzip:retention=0.2.
    """
    described = [describe_method(find_method(known)) for known in ([name] if name else method_names())]
    if as_json:
        print_json(described[0] if name else described)
        return
    console = output()
    if name:
        _show_one(console, described[0])
    else:
        _show_all(console, described)


def describe_method(method: type[Method]) -> dict[str, Any]:
    """A method as plain data: name, summary, paper, stages, options, presets and what holds without one."""
    meanings = _attribute_docs(method)
    takes_tokens = method().no_visual_tokens is None
    fields = [field for field in dataclasses.fields(method) if field.name != _VISUAL_TOKENS or takes_tokens]
    has_presets = any(field.name == "preset" for field in fields)
    return {
        "name": method.name,
        "summary": method.summary,
        "paper": method.paper,
        "stages": list(method.stages),
        "options": [
            {
                "name": field.name,
                "type": field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type)),
                "default": _default_of(method, field),
                "help": meanings.get(field.name, ""),
            }
            for field in fields
        ],
        "presets": _presets() if has_presets else {},
        "without_preset": _preset(WITHOUT_PRESET["default"]) if has_presets else None,
    }


def _default_of(method: type[Method], field: dataclasses.Field[Any]) -> object:
    if field.name == "retention":
        return method.default_retention
    return None if field.default is dataclasses.MISSING else field.default


def _presets() -> dict[str, dict[str, dict[str, Any]]]:
    """What every preset sets, by retention."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for name in preset_names():
        if name in EVERYDAY:
            found[name] = {_ANY_RETENTION: _preset(EVERYDAY[name])}
        else:
            published = PRESETS[PAPER_ROWS if name == PAPER else name]
            found[name] = {str(retention): _preset(find_preset(name, retention)) for retention in published}
    return found


def _preset(preset: Preset) -> dict[str, Any]:
    return dataclasses.asdict(preset) | {"merge_layers": list(preset.merge_layers)}


def _attribute_docs(method: type[Method]) -> dict[str, str]:
    """Name -> meaning, from the ``Attributes:`` section of the class and of those it inherits from."""
    meanings: dict[str, str] = {}
    for base in reversed(method.__mro__):
        _, found, rest = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        section = re.split(r"\n(?=\S)", rest)[0] if found else ""
        for entry in re.split(r"\n(?= {4}\w)", "\n" + section):
            option, separator, meaning = entry.strip().partition(":")
            if separator:
                meanings[option] = " ".join(meaning.replace("``", "").replace("`", "").split())
    return meanings


def _default(option: dict[str, Any]) -> str:
    value = option["default"]
    if value is None:
        return "auto"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _show_all(console: Console, described: list[dict[str, Any]]) -> None:
    made = table(["method", "stages", "what it does", "options and defaults"], title="Compression methods")
    for method in described:
        summary = f"{method['summary']} [{method['paper']}]" if method["paper"] else method["summary"]
        shown = [option for option in method["options"] if option["name"] != _VISUAL_TOKENS]
        listed = "\n".join(f"{option['name']}={_default(option)}" for option in shown)
        stages = "\n".join(method["stages"]) or "-"
        made.add_row(cell(method["name"], "bold"), cell(stages), cell(summary), cell(listed))
    console.print(made)
    console.print(_STAGES)
    counted = [method["name"] for method in described if _takes_tokens(method)]
    console.print(f"visual_tokens=N instead of retention keeps N tokens of every clip: {', '.join(counted)}")
    if any(method["presets"] for method in described):
        console.print(f"Presets: {', '.join(preset_names())}")
    console.print(
        "'earlytom methods NAME' explains the options of one method. Use: --method NAME:option=value,... or "
        "--method NAME+NAME:option=value,..."
    )


def _takes_tokens(method: dict[str, Any]) -> bool:
    return any(option["name"] == _VISUAL_TOKENS for option in method["options"])


def _show_one(console: Console, method: dict[str, Any]) -> None:
    console.print(f"{method['name']}: {method['summary']}" + (f" [{method['paper']}]" if method["paper"] else ""))
    console.print(f"Stages: {', '.join(method['stages']) or 'none'}.")
    made = table(["option", "type", "default", "meaning"], title="Options")
    for option in method["options"]:
        made.add_row(cell(option["name"], "bold"), cell(option["type"]), cell(_default(option)), cell(option["help"]))
    console.print(made)
    if not method["presets"]:
        return
    columns = ["preset", "retention", "tau_seg", "merge layers (of 26)", "least frames", "ranked by", "cells", "in LLM"]
    made = table(columns, title="Presets", right=("retention",))
    without = {"(none)": {_ANY_RETENTION: method["without_preset"]}}
    for name, rows in (without | method["presets"]).items():
        for retention, row in rows.items():
            layers = "/".join(map(str, row["merge_layers"]))
            threshold = "none" if row["tau_seg"] is None else row["tau_seg"]
            ranking, merges = "/".join(row["ranked_by"]), str(row["inner_merging"]).lower()
            cells = (retention, threshold, layers, row["least_frames"], ranking, f"{row['cell_share']:.0%}", merges)
            made.add_row(cell(name, "bold"), *map(cell, cells))
    console.print(made)
    console.print("paper takes any retention and is mvbench at the nearest one that is published.")
