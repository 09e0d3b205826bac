"""The public surface, and what importing it costs."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import earlytom

PUBLIC = [
    "Answer", "AveragePooling", "Composition", "CompressionError", "DyCoke", "EVS", "EarlyTom", "EarlyTomError",
    "FastV", "FastVID", "HoliTom", "InnerMerging", "Limits", "Method", "MethodError", "ModelError", "PruneVid",
    "PyramidDrop", "RandomSelection", "Reduction", "Sampling", "ToMe", "Trace", "Uncompressed", "UniformSubsampling",
    "VidCom2", "Video", "VideoError", "VideoQA", "VideoSession", "VisionZip", "__version__", "compose", "compress",
    "load", "make_method", "parse_method", "prepare", "read_video", "sample_questions", "sample_videos",
    "shipped_model",
]  # fmt: skip

_MEASURE = """
import sys, time
start = time.perf_counter()
import earlytom
print(time.perf_counter() - start)
print(*(name for name in ("torch", "transformers", "numpy", "av", "PIL") if name in sys.modules))
"""


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_public_names_are_pinned() -> None:
    assert sorted(earlytom.__all__) == sorted(PUBLIC)
    assert dir(earlytom) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_can_be_imported(name) -> None:
    value = getattr(earlytom, name)
    assert value is not None
    assert getattr(earlytom, name) is value


def test_public_classes_and_functions_are_documented() -> None:
    assert all(getattr(earlytom, name).__doc__ for name in PUBLIC)


def test_an_unknown_name_raises_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'earlytom' has no attribute 'compres'"):
        _ = earlytom.compres


def test_importing_the_package_loads_no_library_and_takes_less_than_300_ms() -> None:
    runs = [run(_MEASURE) for _ in range(3)]  # the best of three: other processes may be busy
    assert min(float(seconds) for seconds, _ in runs) < 0.3
    assert {loaded for _, loaded in runs} == {""}


def test_names_and_methods_are_listed_without_loading_torch() -> None:
    code = (
        "import sys, earlytom.methods as m; m.method_names(); m.find_method('earlytom'); print('torch' in sys.modules)"
    )
    assert run(code) == ["False"]


@pytest.mark.parametrize("kind", ["MethodError", "ModelError", "CompressionError", "VideoError"])
def test_every_error_is_an_early_tom_error(kind) -> None:
    assert issubclass(getattr(earlytom, kind), earlytom.EarlyTomError)


def test_errors_are_also_what_callers_expect() -> None:
    assert issubclass(earlytom.MethodError, ValueError)
    assert issubclass(earlytom.ModelError, TypeError)
    assert issubclass(earlytom.CompressionError, RuntimeError)
    assert issubclass(earlytom.VideoError, ValueError)


def test_every_module_is_reached_by_its_own_name() -> None:
    """``import earlytom.a.b as m`` gives the module: no name in a package hides a module of that name."""
    import types

    hidden = []
    for module in pkgutil.walk_packages(earlytom.__path__, "earlytom."):
        importlib.import_module(module.name)
        parent, _, name = module.name.rpartition(".")
        if not isinstance(getattr(importlib.import_module(parent), name), types.ModuleType):
            hidden.append(module.name)
    assert hidden == []
