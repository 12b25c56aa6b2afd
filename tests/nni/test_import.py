"""ddplug does without NNI: nothing imports it by itself, and where it is missing the extra is named."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import ddplug.nni

BLOCKED = """
    import importlib.abc, sys

    class Missing(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "nni":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
"""


def run_python(code: str) -> str:
    script = textwrap.dedent(BLOCKED) + textwrap.dedent(code)
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_package_and_the_adapter_import_without_nni() -> None:
    out = run_python(
        """
        import ddplug, ddplug.nni
        print(*dir(ddplug.nni))
        print(*(name for name in sys.modules if name.partition(".")[0] in ("nni", "torch")))
        """
    )
    names, loaded = out.splitlines()
    assert set(ddplug.nni.__all__) <= set(names.split())
    assert loaded == ""


def test_every_name_that_needs_nni_names_the_extra() -> None:
    out = run_python(
        """
        import ddplug.nni
        from ddplug.errors import MissingExtraError
        for name in ddplug.nni.__all__:
            try:
                getattr(ddplug.nni, name)
            except MissingExtraError as error:
                print(f"{name}: {error}")
        """
    )
    text = 'ddplug.nni.{0} needs NNI, which is not installed; run pip install "ddplug[nni]"'
    assert out.splitlines() == [f"{name}: {text.format(name)}" for name in ddplug.nni.__all__]


def test_the_error_is_an_import_error() -> None:
    out = run_python(
        """
        try:
            from ddplug.nni import ProxyEvaluator
        except ImportError as error:
            print(error)
        """
    )
    assert 'pip install "ddplug[nni]"' in out


@pytest.mark.parametrize("name", ddplug.nni.__all__)
def test_public_name_resolves(name: str) -> None:
    pytest.importorskip("nni", reason="NNI is not installed")
    assert getattr(ddplug.nni, name).__name__ == name
    assert name in dir(ddplug.nni)


def test_lazy_table_and_public_names_agree() -> None:
    assert sorted(ddplug.nni._HOMES) == ddplug.nni.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'ProxyEvaluater'"):
        getattr(ddplug.nni, "ProxyEvaluater")  # noqa: B009 - the attribute is unknown to the type checker
