"""The packages keep their order: no import upward and no circle, not even inside a function or for types alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

FLOORS = (
    {"errors", "_version"},
    {"utils", "functional", "registry"},
    {"data", "networks"},
    {"synthetic"},
    {"distillation"},
    {"distillers", "evaluation", "privacy", "avalanche", "testing"},
    {"search"},
    {"nni", "optuna", "auto"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up. What stands on one floor may be imported by its neighbors there, as long as no circle arises."""

FLOOR = {package: number for number, packages in enumerate(FLOORS) for package in packages}


def modules() -> dict[str, Path]:
    """Dotted name below ``ddplug`` of every module, by which a package is its ``__init__``."""
    found = {}
    for path in sorted((ROOT / "ddplug").rglob("*.py")):
        parts = path.relative_to(ROOT / "ddplug").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> Iterator[str]:
    """Modules of the package that a module imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for dotted in wanted:
            if dotted == "ddplug" or dotted.startswith("ddplug."):
                below = dotted.removeprefix("ddplug").removeprefix(".")
                yield below if below in MODULES else below.rpartition(".")[0]


def package(name: str) -> str:
    return name.partition(".")[0]


# the face of the package and of each of its packages names what it hands out; nothing inside imports from it
INNER = [name for name in MODULES if name]


@pytest.mark.parametrize("name", INNER)
def test_no_module_imports_upward(name: str) -> None:
    upward = {other for other in imports(name) if not other or FLOOR[package(other)] > FLOOR[package(name)]}
    assert not upward, f"ddplug.{name} imports from above: {sorted(upward)}"


def test_no_circle() -> None:
    graph = {name: set(imports(name)) - {name} for name in INNER}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"circle of imports: {' -> '.join(error.args[1])}")


def test_packages_on_one_floor_form_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name in INNER:
        graph.setdefault(package(name), set()).update(package(other) for other in imports(name))
    tuple(TopologicalSorter({key: value - {key} for key, value in graph.items()}).static_order())


def test_every_package_has_a_floor_and_the_root_stays_small() -> None:
    assert {package(name) for name in INNER} == set(FLOOR)
    files = {path.stem for path in (ROOT / "ddplug").glob("*.py")} - {"__init__", "__main__"}
    assert len(files) <= 5, sorted(files)
