"""The dependency order of the package, read from its source: a module may import only from layers below its own.

The order stands in ``pyproject.toml``, as import-linter's contracts. This reading of it is the stricter one: what is
imported under TYPE_CHECKING, inside functions or through ``earlytom`` itself counts too.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from pathlib import Path

import pytest

import earlytom

ROOT = Path(earlytom.__file__).parent
PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def read_layers(contracts: list[dict]) -> tuple[dict[str, int], list[set[str]]]:
    """The height of every part, 0 at the bottom, and the parts of a layer that may import one another."""
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    heights, together = {}, []
    for height, layer in enumerate(reversed(layers)):
        names = [name.strip().strip("()") for name in layer.replace(":", "|").split("|")]
        assert all(name.startswith("earlytom.") for name in names), layer
        parts = {name.removeprefix("earlytom.") for name in names}
        assert not parts & set(heights), f"listed twice: {layer}"
        heights |= dict.fromkeys(parts, height)
        together += [parts] if ":" in layer else []
    return heights, together


def read_forbidden(contracts: list[dict]) -> set[tuple[str, str]]:
    """What may not be imported although it lies below: (part, part that it may not import)."""
    return {
        (source.removeprefix("earlytom."), target.removeprefix("earlytom."))
        for contract in contracts
        if contract["type"] == "forbidden"
        for source in contract["source_modules"]
        for target in contract["forbidden_modules"]
    }


def read_exceptions(contracts: list[dict]) -> set[tuple[str, str]]:
    """Single modules of forbidden parts that may be imported all the same: (part, module)."""
    pairs = [rule.split(" -> ") for contract in contracts for rule in contract.get("ignore_imports", [])]
    return {
        (source.removeprefix("earlytom.").partition(".")[0], target.removeprefix("earlytom."))
        for source, target in pairs
    }


CONTRACTS = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
HEIGHTS, TOGETHER = read_layers(CONTRACTS)
FORBIDDEN = read_forbidden(CONTRACTS)
EXCEPTIONS = read_exceptions(CONTRACTS)

THIRD_PARTY = {
    "errors": set(), "shipped": set(), "types": {"torch"}, "reduction": {"torch"}, "trace": {"torch"},
    "ops": {"torch", "triton"}, "methods": {"torch"}, "layouts": {"torch"}, "stages": {"torch"},
    "models": {"torch", "transformers", "safetensors"},  # the last for what a published checkpoint is stored in
    "video": {"torch", "torchcodec", "av", "numpy", "PIL", "typing_extensions"},
}  # fmt: skip


def imported(tree: ast.Module) -> set[str]:
    """Full names of what a module imports anywhere (under TYPE_CHECKING, inside functions, by ``earlytom.name``)."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the order"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "earlytom":
            names.add(f"earlytom.{node.attr}")
    return names - {"earlytom"}


def may_import(part: str, other: str) -> bool:
    """Whether the contracts let a module of ``part`` import one of ``other``."""
    if part == other or any({part, other} <= layer for layer in TOGETHER):
        return True
    return other in HEIGHTS and HEIGHTS[other] < HEIGHTS[part] and (part, other) not in FORBIDDEN


def violations(part: str, tree: ast.Module) -> list[str]:
    """What ``part`` imports although its place in the order forbids it."""
    found = []
    for name in sorted(imported(tree)):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "earlytom":
            home = earlytom._HOMES.get(target, f"earlytom.{target}").split(".")[1]
            excepted = any(part == source and f"{rest}.".startswith(f"{module}.") for source, module in EXCEPTIONS)
            if not (may_import(part, home) or excepted or name == "earlytom.__version__"):
                found.append(name)
        elif package not in sys.stdlib_module_names and package not in THIRD_PARTY.get(part, {package}):
            found.append(name)
    return found


def parts() -> list[tuple[str, Path]]:
    paths = sorted(ROOT.rglob("*.py"))
    return [(path.relative_to(ROOT).parts[0].removesuffix(".py"), path) for path in paths if path.parent != ROOT] + [
        (path.stem, path) for path in paths if path.parent == ROOT and path.stem != "__init__"
    ]


def test_every_module_has_a_place_in_the_order() -> None:
    assert {part for part, _ in parts()} <= set(HEIGHTS)
    assert {"errors", "types", "reduction", "trace", "ops", "methods", "models", "runtime"} <= {p for p, _ in parts()}


def test_the_order_is_read_as_import_linter_means_it() -> None:
    layers = ["earlytom.top", "earlytom.left | (earlytom.right)", "(earlytom.middle)", "earlytom.one : earlytom.other"]
    forbidden = {"type": "forbidden", "source_modules": ["earlytom.top"], "forbidden_modules": ["earlytom.one"]}
    contracts = [{"type": "layers", "layers": layers}, forbidden]
    heights, together = read_layers(contracts)
    assert heights == {"top": 3, "left": 2, "right": 2, "middle": 1, "one": 0, "other": 0}
    assert together == [{"one", "other"}]
    assert read_forbidden(contracts) == {("top", "one")}
    excepted = [{**forbidden, "ignore_imports": ["earlytom.top.** -> earlytom.one.inside"]}]
    assert read_exceptions(excepted) == {("top", "one.inside")}


def test_the_contracts_are_about_parts_that_have_a_place() -> None:
    assert {name for pair in FORBIDDEN for name in pair} <= set(HEIGHTS)
    assert set(THIRD_PARTY) <= set(HEIGHTS)
    assert all(HEIGHTS[part] > HEIGHTS[other] for part, other in FORBIDDEN)


@pytest.mark.parametrize(("part", "path"), parts(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_modules_import_only_from_below(part, path) -> None:
    assert violations(part, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("methods", "import transformers"),
        ("methods", "def f():\n    from transformers import AutoModel"),
        ("methods", "from earlytom.models import open_model"),
        ("methods", "if TYPE_CHECKING:\n    from earlytom.runtime.compression import compress"),
        ("models", "from earlytom.methods.base import Method"),
        ("models", "from earlytom import EarlyTom"),
        ("ops", "import numpy as np"),
        ("ops", "from earlytom.methods import parse_method"),
        ("errors", "from earlytom.types import FrameGrid"),
        ("types", "from earlytom.ops import ranks"),
        ("trace", "if TYPE_CHECKING:\n    from earlytom.methods.base import Method"),
        ("ops", "from earlytom.video import read_video"),
        ("video", "from earlytom.ops import ranks"),
        ("methods", "from earlytom.video import read_video"),
        ("methods", "from earlytom.stages import ClipSession"),
        ("methods", "from earlytom.layouts import prompts"),
        ("layouts", "from earlytom.methods.base import Method"),
        ("layouts", "import transformers"),
        ("stages", "from earlytom.models.base import Host"),
        ("stages", "from earlytom.methods.compose import Composition"),
        ("stages", "from earlytom.methods.baseline import Other"),
        ("stages", "from earlytom import EarlyTom"),
        ("stages", "from earlytom.layouts.prompt import spans"),
        ("stages", "import transformers"),
        ("models", "from earlytom.video import read_video"),
        ("models", "if TYPE_CHECKING:\n    from earlytom.methods.base import Method"),
        ("models", "from earlytom.vllm import plugin"),
        ("runtime", "from earlytom.nowhere import anything"),
        ("reduction", "from earlytom.ops import ranks"),
        ("viz", "from earlytom.testbed import scenes"),
        ("testbed", "from earlytom.eval.rows import Row"),
        ("methods", "import earlytom\nearlytom.compress"),
        ("runtime", "import earlytom.cli"),
    ],
)
def test_the_check_finds_what_is_forbidden(part, source) -> None:
    assert violations(part, ast.parse(source))


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("methods", "import torch\nfrom earlytom.ops import select_by_frame"),
        ("types", "if TYPE_CHECKING:\n    from earlytom.reduction import Reduction"),
        ("cli", "from earlytom import VideoQA, __version__\nimport typer"),
        ("ops", "import math\nfrom torch import Tensor"),
        ("stages", "from earlytom.methods.base import Method\nfrom earlytom.trace import VideoTrace"),
        ("models", "from earlytom.stages import ClipSession\nfrom earlytom.layouts import prompts"),
    ],
)
def test_the_check_lets_pass_what_is_allowed(part, source) -> None:
    assert violations(part, ast.parse(source)) == []
