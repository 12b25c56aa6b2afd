"""Ways out for other programs: a set as a table, a row a sample, in CSV or Parquet, with the names of its columns."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddplug.errors import MissingExtraError
from ddplug.synthetic.compat import named_columns, source_table
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.files import write_file
from ddplug.utils.surroundings import own_surroundings

__all__ = ["columns_of", "to_csv", "to_parquet"]

_AXES: Mapping[int, Sequence[str]] = {2: "ct", 3: "cyx"}
"""Number of dimensions of an input -> a letter for each: channel, time, row, column."""


@own_surroundings()
def to_csv(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write a row a sample, numbers as they were in the real data, with the class's name in the last column.

    The columns are called as in the table that the data came from. Other numbers are called by their place: ``x0`` in
    rows, ``c0_t5`` in series, ``c0_y3_x7`` in images. Where labels are soft, a column a class with its probability,
    ``probability of NAME``, stands before the last, which has the likeliest.

    Args:
        synthetic: any set.
        path: the file; an existing one is replaced.

    Raises:
        OptionError: the path cannot be written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from ddplug import distill, from_arrays
        >>> made = distill(from_arrays([[0.5], [2.0]], ["no", "yes"]), "random", images_per_class=1, device="cpu")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_csv(made, f"{folder}/rows.csv")
        ...     print(Path(folder, "rows.csv").read_text())
        x0,label
        0.5,no
        2.0,yes
        <BLANKLINE>
    """
    columns, text = _table(synthetic), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(values.astype(str).tolist() for values in columns.values()), strict=True))
    write_file(path, text.getvalue().encode(errors="replace"))


@own_surroundings()
def to_parquet(synthetic: SyntheticSet, path: str | Path) -> None:
    """Write the table of :func:`to_csv` as a Parquet file, numbers as float32.

    Args:
        synthetic: any set.
        path: the file; an existing one is replaced.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OptionError: the path cannot be written.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("Parquet needs pyarrow; run pip install pyarrow, or export to csv") from None
    content = io.BytesIO()
    parquet.write_table(pyarrow.table(_table(synthetic)), content)
    write_file(path, content.getvalue())


def _table(synthetic: SyntheticSet) -> dict[str, NDArray[Any]]:
    """Return the columns by their names."""
    own = synthetic.enlarged().to("cpu")
    names, target = columns_of(own)
    values = own.pixels().flatten(1).numpy()
    table: dict[str, NDArray[Any]] = {name: values[:, k] for k, name in enumerate(names)}
    if own.targets.ndim == 2:
        shares = own.targets.numpy()
        table |= {f"probability of {name}": shares[:, k] for k, name in enumerate(own.class_names)}
    return {**table, target: np.array(own.class_names)[own.hard_targets.numpy()]}


def columns_of(synthetic: SyntheticSet) -> tuple[tuple[str, ...], str]:
    """Return names for the numbers of a sample, and for its label.

    Args:
        synthetic: any set; what a file says of its columns is taken only if it fits.
    """
    found, target = named_columns(synthetic), source_table(synthetic).get("target")
    label = target if isinstance(target, str) and target else "label"
    if found and label not in found:
        return found, label
    return _places(synthetic.shape), "label"


def _places(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Call numbers by their places."""
    letters = _AXES.get(len(shape))
    if letters is None:
        return tuple(f"x{k}" for k in range(int(np.prod(shape))))
    return tuple("_".join(f"{a}{k}" for a, k in zip(letters, place, strict=True)) for place in np.ndindex(*shape))
