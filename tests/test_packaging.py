"""What is said of the package in other places than setup.cfg is said alike."""

from __future__ import annotations

import re
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path

import ddplug

ROOT = Path(__file__).parents[1]
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Name of a package -> what conda-forge calls it."""


def listed(key: str) -> list[str]:
    """Return the items of a list of the recipe."""
    (block,) = re.findall(rf"^( +){key}:\n((?:\1  - .*\n)+)", RECIPE, re.MULTILINE)
    return re.findall(r"- (.*)", block[1])


def said(key: str) -> str:
    """Return a value of the recipe."""
    value: str
    (value,) = re.findall(rf'^ +{key}: "?(.*?)"?$', RECIPE, re.MULTILINE)
    return value


def test_the_conda_recipe_has_the_dependencies_of_the_package() -> None:
    wanted = [f"python {SETUP['options']['python_requires']}"]
    for line in SETUP["options"]["install_requires"].strip().splitlines():
        if not line.startswith("#"):
            # a package that is for one version of Python only is taken by all: the recipe is of no architecture
            name, floor = re.fullmatch(r"([\w-]+)(>=[\d.]+)(?:;.*)?", line.strip()).groups()  # type: ignore[union-attr]
            wanted.append(f"{CONDA.get(name, name)} {floor}")
    assert listed("run") == wanted


def test_the_conda_recipe_says_of_the_package_what_it_says_of_itself() -> None:
    metadata = SETUP["metadata"]
    assert re.findall(r'^  version: "(.+)"$', RECIPE, re.MULTILINE) == [ddplug.__version__]
    assert (said("summary"), said("license"), said("homepage")) == (
        metadata["description"],
        metadata["license"],
        metadata["url"],
    )
    assert listed("license_file") == metadata["license_files"].split()
    assert listed("entry_points") == SETUP["options.entry_points"]["console_scripts"].split("\n")[1:]
    (build,) = re.findall(r'^requires = \["setuptools(>=\d+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"setuptools {build}" in listed("host")


def test_the_page_on_citing_names_the_version() -> None:
    page = (ROOT / "docs" / "citing.md").read_text(encoding="utf-8")
    assert f"version = {{{ddplug.__version__}}}" in page


def test_everything_that_is_no_python_is_packed() -> None:
    """Else it is there in a clone and missing in a wheel."""
    patterns = SETUP["options.package_data"]["ddplug"].split()
    files = [path.relative_to(ROOT / "ddplug").as_posix() for path in (ROOT / "ddplug").rglob("*") if path.is_file()]
    others = [file for file in files if not file.endswith((".py", ".pyc"))]
    assert "synthetic/sets/mnist-8kB.safetensors" in others
    assert [file for file in others if not any(fnmatch(file, pattern) for pattern in patterns)] == []


def test_no_advice_needs_the_package_to_be_published() -> None:
    """``pip install "ddplug[extra]"`` cannot work in a clone; notebooks name the repository along with it."""
    pages = (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "ddplug").rglob("*.py"))
    advice = [f"{path}: {line}" for path in pages for line in path.read_text("utf-8").splitlines() if "ddplug[" in line]
    assert [line for line in advice if "install" in line and " @ git+" not in line] == []
