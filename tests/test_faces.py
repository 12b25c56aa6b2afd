"""The faces of the packages: every name resolves, types and homes agree, and nothing heavy is imported for them."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys

import pytest

import ddplug

FACES = ["ddplug", *(f"ddplug.{name}" for name in ("data", "functional", "networks", "synthetic", "distillation"))]
FACES += [f"ddplug.{name}" for name in ("distillers", "evaluation", "privacy", "avalanche", "search", "nni", "optuna")]
FACES += ["ddplug.synthetic.codecs"]
ADAPTERS = ("ddplug.avalanche", "ddplug.nni", "ddplug.optuna")


def typed(face: str) -> set[str]:
    """Names that a face imports for type checkers alone."""
    module = importlib.import_module(face)
    assert module.__file__ is not None
    with open(module.__file__) as file:
        tree = ast.parse(file.read())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }


@pytest.mark.parametrize("face", FACES)
def test_names_types_and_homes_agree(face: str) -> None:
    module = importlib.import_module(face)
    assert typed(face) == set(module._HOMES) == set(module.__all__) - {"__version__"}
    assert set(module.__all__) <= set(dir(module))
    with pytest.raises(AttributeError, match=rf"module '{face}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - reading it is the test


@pytest.mark.parametrize("face", [face for face in FACES if face not in ADAPTERS])
def test_every_name_resolves_and_hides_no_module(face: str) -> None:
    module = importlib.import_module(face)
    for name in module._HOMES:
        value = getattr(module, name)
        if not module._HOMES[name].endswith(":"):
            assert f"{face}.{name}" not in sys.modules, f"{face}.{name} is both a name of the face and a module"
        assert value is getattr(importlib.import_module(face), name)


def test_no_face_imports_anything_heavy() -> None:
    heavy = ("torch", "numpy", "matplotlib", "scipy", "sklearn", "avalanche", "nni", "optuna")
    code = f"import sys, {', '.join(FACES)}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_methods_are_at_hand_by_their_names() -> None:
    from ddplug.distillers import DM, MTT, KMeans

    assert [ddplug.resolve("distiller", cls.name) for cls in (DM, MTT, KMeans)] == [DM, MTT, KMeans]
