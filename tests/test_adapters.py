"""ddplug does without the frameworks: nothing imports one by itself, and where it is missing the extra is named."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib import import_module
from importlib.util import find_spec

import pytest

from ddplug.utils.packages import install_extra

FRAMEWORKS = {"avalanche": "Avalanche", "nni": "NNI", "optuna": "Optuna"}
NAMES = [(home, name) for home in FRAMEWORKS for name in import_module(f"ddplug.{home}").__all__]
ALONE = {"MemoryOptions", "checkpoint_cure"}
"""Names that need torch alone."""

BLOCKED = """
    import importlib.abc, sys

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("avalanche", "nni", "optuna"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""


def run_python(code: str) -> str:
    script = textwrap.dedent(BLOCKED) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_and_the_adapters_import_without_the_frameworks() -> None:
    out = run_python(
        """
        import ddplug, ddplug.avalanche, ddplug.nni, ddplug.optuna
        print(*dir(ddplug.avalanche), *dir(ddplug.nni), *dir(ddplug.optuna))
        print(*(name for name in sys.modules if name.partition(".")[0] in ("avalanche", "nni", "optuna", "torch")))
        """
    )
    names, loaded = out.splitlines()
    assert {name for _, name in NAMES} <= set(names.split())
    assert loaded == ""


def test_every_name_names_the_extra_that_brings_its_framework() -> None:
    out = run_python(
        """
        import ddplug.avalanche, ddplug.nni, ddplug.optuna
        for home in (ddplug.avalanche, ddplug.nni, ddplug.optuna):
            for name in home.__all__:
                try:
                    getattr(home, name)
                except ImportError as error:
                    print(f"{type(error).__name__}: {error}")
        """
    )
    text = "MissingExtraError: ddplug.{0}.{1} needs {2}, which is not installed; run {3}"
    assert out.splitlines() == [
        text.format(home, name, FRAMEWORKS[home], install_extra(home)) for home, name in NAMES if name not in ALONE
    ]


@pytest.mark.parametrize(("home", "name"), NAMES)
def test_public_name_resolves(home: str, name: str) -> None:
    if find_spec(home) is None:
        pytest.skip(f"{FRAMEWORKS[home]} is not installed")
    module = import_module(f"ddplug.{home}")
    assert getattr(module, name).__name__ == name
    assert name in dir(module)


@pytest.mark.parametrize("home", FRAMEWORKS)
def test_lazy_table_and_public_names_agree(home: str) -> None:
    module = import_module(f"ddplug.{home}")
    assert sorted(module._HOMES) == module.__all__


@pytest.mark.parametrize("home", FRAMEWORKS)
def test_unknown_name_is_an_attribute_error(home: str) -> None:
    with pytest.raises(AttributeError, match="'Mispelt'"):
        import_module(f"ddplug.{home}").Mispelt  # noqa: B018
