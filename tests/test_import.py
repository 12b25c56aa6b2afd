"""`import ddplug` is quick: it pulls in no framework, and every public name resolves when it is asked for."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys

import pytest

import ddplug


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_framework() -> None:
    loaded = set(run_python("import sys, ddplug; ddplug.__version__; print(*sys.modules)").split())
    assert not {"torch", "torchvision", "numpy", "matplotlib", "sklearn", "avalanche", "nni"} & loaded


def test_public_names_load_neither_adapter_framework() -> None:
    code = "import sys, ddplug\nfor name in ddplug.__all__: getattr(ddplug, name)\nprint(*sys.modules)"
    loaded = set(run_python(code).split())
    assert "torch" in loaded
    assert not {"avalanche", "nni"} & loaded


@pytest.mark.parametrize("name", ddplug.__all__)
def test_public_name_resolves(name: str) -> None:
    assert getattr(ddplug, name) is not None
    assert name in dir(ddplug)


def test_lazy_table_and_public_names_agree() -> None:
    assert {*ddplug._HOMES, "__version__"} == set(ddplug.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'distillery'"):
        getattr(ddplug, "distillery")  # noqa: B009 - the attribute is unknown to the type checker


def test_version_is_the_installed_one() -> None:
    assert importlib.metadata.version("ddplug") == ddplug.__version__
