"""Accuracies of networks that are done, kept so that a run that was stopped goes on where it was.

Each is kept under the digest of everything that it depends on: what was trained on, number by number, and what was
tested on, network, recipe, precision, seed, device and versions. So one file can serve any runs, and none takes what
another measured.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from ddplug._version import __version__
from ddplug.data.labeled import LabeledData
from ddplug.errors import OptionError
from ddplug.evaluation.train import Trainable
from ddplug.networks.factory import Network
from ddplug.networks.precision import PRECISIONS
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.files import check_writable, write_file
from ddplug.utils.fingerprints import fingerprint
from ddplug.utils.signals import saving
from ddplug.utils.teams import team
from ddplug.utils.text import os_reason

__all__ = ["Finished", "digest"]

_FORMAT = "ddplug-evaluation/1"

_MOST = 8 << 20
"""Bytes of a file that is read."""

Found = dict[int, tuple[float, float]]
"""Number of a network -> its accuracy in [0, 1], and the seconds that it took."""


def digest(
    data: Sequence[Trainable],
    test: LabeledData,
    network: Network,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    steps: int | None,
    precision: str = PRECISIONS[0],
) -> str | None:
    """Return the SHA-256 of everything that accuracies depend on; ``None`` where a function builds the network."""
    if not isinstance(network, str):
        return None
    prints = {id(own): _print(own) for own in data}
    values = {
        "data": [prints[id(own)] for own in data],
        "test": _print(test),
        "network": network,
        "recipe": recipe.to_json(),
        "seed": int(seed),
        "steps": steps,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "versions": [__version__, str(torch.__version__)],
        **({} if precision == PRECISIONS[0] else {"precision": precision}),
    }
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _print(data: Trainable) -> str:
    if isinstance(data, LabeledData):
        return data.fingerprint
    own = {"inputs": data.inputs, "targets": data.targets, **data.preprocess.tensors()}
    return f"{fingerprint(own)} {tuple(data.inputs.shape)} {data.shape} {data.num_classes} {data.preprocess.kind}"


class Finished:
    """What is done, in a file.

    Args:
        path: the file, which need not exist; ``None`` for keeping nothing, as all but the first do of processes that
            work together.

    Raises:
        OptionError: it cannot be written, or holds something else.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None or not team().leads else check_writable(path)
        self._shown = path
        self._mine: set[str] = set()
        self._rows = self._read()

    @property
    def keeps(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def find(self, key: str | None) -> Found:
        """Return what is kept under a digest."""
        if key is not None:
            self._mine.add(key)
        return dict(self._rows.get(key or "", {}))

    def begun(
        self, data: Sequence[Trainable], test: LabeledData, recipe: Recipe, *, seed: int, device: torch.device
    ) -> Callable[[Network, str], bool]:
        """Return what tells whether accuracies of a network in a precision are kept; they are not asked for by that."""

        def tell(network: Network, precision: str) -> bool:
            key = digest(data, test, network, recipe, seed=seed, device=device, steps=None, precision=precision)
            return key in self._rows

        return tell

    def put(self, key: str | None, found: Found) -> None:
        """Keep what was found, beside what is kept under the same digest."""
        if self._path is None or key is None:
            return
        self._rows = self._read()  # another run may have written meanwhile
        self._rows.setdefault(key, {}).update(found)
        self._write()

    def forget(self) -> None:
        """Drop what was asked for; the file goes where nothing else is in it."""
        if self._path is None or not self._path.exists():
            return
        self._rows = {key: row for key, row in self._read().items() if key not in self._mine}
        if self._rows:
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        values = {
            "format": _FORMAT,
            "rows": {key: [[k, *row[k]] for k in sorted(row)] for key, row in self._rows.items()},
        }
        with saving():
            write_file(str(self._path), json.dumps(values).encode())

    def _read(self) -> dict[str, Found]:
        if self._path is None or not os.path.exists(self._path):
            return {}
        try:
            with open(self._path, "rb") as file:
                values = json.loads(file.read(_MOST))
        except OSError as error:
            raise OptionError(f"cannot read {self._shown}: {os_reason(error)}; choose another path") from None
        except (ValueError, RecursionError):
            values = None
        rows = _rows(values)
        if rows is None:
            raise OptionError(
                f"{self._shown} exists and does not hold evaluations by ddplug; choose another path, or remove it"
            )
        return rows


def _rows(values: Any) -> dict[str, Found] | None:
    """Return the rows of a file, which is not trusted; ``None`` where it is not one of ours."""
    if (
        not isinstance(values, Mapping)
        or values.get("format") != _FORMAT
        or not isinstance(values.get("rows"), Mapping)
    ):
        return None
    rows: dict[str, Found] = {}
    for key, entries in values["rows"].items():
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            return None
        rows[key] = {k: (float(accuracy), float(seconds)) for k, accuracy, seconds in entries}
    return rows


def _is_entry(entry: Any) -> bool:
    """Return whether an entry is a network's number, accuracy and seconds."""
    if not isinstance(entry, list) or len(entry) != 3 or any(isinstance(part, bool) for part in entry):
        return False
    number, accuracy, seconds = entry
    whole = isinstance(number, int) and 0 <= number < 2**31
    return whole and all(isinstance(part, int | float) for part in entry) and 0 <= accuracy <= 1 and 0 <= seconds < 1e9
