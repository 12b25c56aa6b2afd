"""Names that are given in a running process, and packages that are installed while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from ddplug import distill, registry
from ddplug.errors import OptionError
from ddplug.networks.mlp import mlp
from ddplug.testing import toy_images
from tests.toy_distillers import MeanMatching


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(registry, "_REGISTERED", {kind: {} for kind in registry.GROUPS})
    yield
    registry._points.cache_clear()


def edited(number: int) -> type[MeanMatching]:
    """A class as a cell of a notebook defines it, each time it is run."""

    @dataclass(frozen=True)
    class Mine(MeanMatching):
        """Mine."""

        name: ClassVar[str] = "mine"
        steps: int = number

    return Mine


def test_a_registered_method_is_found_by_its_name() -> None:
    assert "mine" not in registry.names("distiller")
    registry.register("distiller", "mine", edited(3))
    assert "mine" in registry.names("distiller") and "mine" not in registry.names("network")
    assert distill(toy_images(), "mine", device="cpu").provenance["steps"] == 3
    registry.register("distiller", "mine", edited(5))  # the cell again, after an edit
    assert registry.resolve("distiller", "mine").steps == 5


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("distiller", "mine", r"the distiller 'mine' is taken by tests\.test_registry:edited\.<locals>\.Mine"),
        ("distiller", "dm", r"the distiller 'dm' is taken by ddplug\.distillers\.dm:DM; choose another name"),
        ("method", "mine", "unknown kind of plug-in 'method'"),
    ],
)
def test_a_name_that_is_taken_stays_what_it_is(kind: str, name: str, message: str) -> None:
    registry.register("distiller", "mine", edited(3))
    with pytest.raises(OptionError, match=message):
        registry.register(kind, name, mlp)
    assert registry.resolve("distiller", "mine").steps == 3


def test_what_is_registered_is_suggested() -> None:
    registry.register("network", "my-network", mlp)
    with pytest.raises(OptionError, match="unknown network 'my-netwrok'; did you mean 'my-network'"):
        registry.resolve("network", "my-netwrok")


@pytest.mark.parametrize("listed", [False, True])
def test_a_package_that_is_installed_later_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError, match="unknown network 'late'"):
        registry.resolve("network", "late")
    info = tmp_path / f"late_{listed}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: late-{listed}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[ddplug.networks]\nlate = late_{listed}:late\n")
    (tmp_path / f"late_{listed}.py").write_text("from ddplug.networks.mlp import mlp as late\n")
    if listed:
        assert "late" in registry.names("network")
    assert registry.resolve("network", "late") is mlp
