"""The dependency order of the package, read from its source: a module may import only from lines above its own."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import earlytom

ROOT = Path(earlytom.__file__).parent

# Modules of one line may import one another only where they are listed in TOGETHER.
ORDER = [
    {"errors"},
    {"types", "reduction", "trace", "shipped"},
    {"ops"},
    {"methods", "models", "video"},
    {"runtime"},
    {"testbed", "viz", "bench", "vllm"},
    {"eval"},
    {"cli"},
]
TOGETHER = {"types", "reduction", "trace"}
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}

THIRD_PARTY = {
    "errors": set(), "shipped": set(), "types": {"torch"}, "reduction": {"torch"}, "trace": {"torch"},
    "ops": {"torch", "triton"}, "methods": {"torch"}, "models": {"torch", "transformers"},
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


def violations(part: str, tree: ast.Module) -> list[str]:
    """What ``part`` imports although its place in the order forbids it."""
    found = []
    for name in sorted(imported(tree)):
        package, _, rest = name.partition(".")
        target = rest.partition(".")[0]
        if package == "earlytom":
            home = earlytom._HOMES.get(target, f"earlytom.{target}").split(".")[1]
            lower = home in RANK and RANK[home] < RANK[part]
            if not (home == part or lower or {home, part} <= TOGETHER or name == "earlytom.__version__"):
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
    assert {part for part, _ in parts()} <= set(RANK)
    assert {"errors", "types", "reduction", "trace", "ops", "methods", "models", "runtime"} <= {p for p, _ in parts()}


@pytest.mark.parametrize(("part", "path"), parts(), ids=lambda value: str(value).removeprefix(f"{ROOT}/"))
def test_modules_import_only_from_below(part, path) -> None:
    assert violations(part, ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("methods", "import transformers"),
        ("methods", "def f():\n    from transformers import AutoModel"),
        ("methods", "from earlytom.models import find_adapter"),
        ("methods", "if TYPE_CHECKING:\n    from earlytom.runtime.compress import compress"),
        ("models", "from earlytom.methods.base import Method"),
        ("models", "from earlytom import EarlyTom"),
        ("ops", "import numpy as np"),
        ("ops", "from earlytom.methods import parse_method"),
        ("errors", "from earlytom.types import Variant"),
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
    ],
)
def test_the_check_lets_pass_what_is_allowed(part, source) -> None:
    assert violations(part, ast.parse(source)) == []
