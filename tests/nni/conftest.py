"""Experiments of NNI leave nothing outside the test's own folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("nni") is None:
    collect_ignore = [path.name for path in Path(__file__).parent.glob("test_*.py")]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return NNI a home of its own: it writes manifests and logs there; it also remembers the last candidate."""
    place = tmp_path / "home"
    place.mkdir()
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setenv("NNI_CONFIG_DIR", str(place / "nni"))
    yield place
    trial: Any = sys.modules.get("nni.trial")
    if trial is not None:
        trial._params = None
