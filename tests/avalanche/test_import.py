"""ddplug does without Avalanche: nothing imports it by itself, and where it is missing the extra is named."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import ddplug.avalanche

BLOCKED = """
    import importlib.abc, sys

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "avalanche":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""


def run_python(code: str) -> str:
    script = textwrap.dedent(BLOCKED) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_and_the_adapter_import_without_avalanche() -> None:
    out = run_python(
        """
        import ddplug, ddplug.avalanche
        print(*dir(ddplug.avalanche))
        print(*(name for name in sys.modules if name.partition(".")[0] in ("avalanche", "torch")))
        """
    )
    names, loaded = out.splitlines()
    assert set(ddplug.avalanche.__all__) <= set(names.split())
    assert loaded == ""


def test_every_name_that_needs_avalanche_names_the_extra() -> None:
    out = run_python(
        """
        import ddplug.avalanche
        from ddplug.errors import MissingExtraError
        for name in ddplug.avalanche.__all__:
            try:
                getattr(ddplug.avalanche, name)
            except MissingExtraError as error:
                print(f"{name}: {error}")
        """
    )
    # the cure works on torch alone
    need = [name for name in ddplug.avalanche.__all__ if name != "checkpoint_cure"]
    text = 'ddplug.avalanche.{0} needs Avalanche, which is not installed; run pip install "ddplug[avalanche]"'
    assert out.splitlines() == [f"{name}: {text.format(name)}" for name in need]


def test_the_error_is_an_import_error() -> None:
    out = run_python(
        """
        try:
            from ddplug.avalanche import DistilledReplay
        except ImportError as error:
            print(error)
        """
    )
    assert 'pip install "ddplug[avalanche]"' in out


@pytest.mark.parametrize("name", ddplug.avalanche.__all__)
def test_public_name_resolves(name: str) -> None:
    pytest.importorskip("avalanche", reason="Avalanche is not installed")
    assert getattr(ddplug.avalanche, name).__name__ == name
    assert name in dir(ddplug.avalanche)


def test_lazy_table_and_public_names_agree() -> None:
    assert sorted(ddplug.avalanche._HOMES) == ddplug.avalanche.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'DistiledReplay'"):
        getattr(ddplug.avalanche, "DistiledReplay")  # noqa: B009 - the attribute is unknown to the type checker
