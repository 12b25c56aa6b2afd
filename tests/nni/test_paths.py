"""Paths on their way through NNI: absolute, and without what it takes for a comment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ddplug.errors import OptionError
from ddplug.nni.paths import normal_path


@pytest.mark.parametrize("name", ["#1.safetensors", "a#b/c", 3, None])
def test_paths_that_nni_cannot_carry_are_refused(name: Any) -> None:
    with pytest.raises(OptionError, match=r"train is .*(#|int|None)"):
        normal_path(name, "train")


def test_paths_become_absolute_and_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert normal_path("x//./y/../a", "train") == str(tmp_path / "x" / "a")
    # a leading // is kept by the system, and lost by NNI
    with pytest.raises(OptionError, match="//"):
        normal_path("//server/a", "train")
