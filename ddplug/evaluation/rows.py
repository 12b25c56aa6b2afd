"""What a comparison gives: its rows, as a table for people, programs and papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddplug.evaluation import outputs
from ddplug.evaluation.row import HEAD, Row, protocols
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.page import Table, table_html
from ddplug.utils.text import markdown, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Comparison"]


@dataclass(frozen=True, repr=False)
class Comparison:
    """Sets and what they were compared with.

    Attributes:
        rows: of each number of bytes the sets first, then the baselines of as many; last the whole data.
        network: name of the architecture.
        recipe: how the networks were trained on the first set, and on what takes as many bytes.
        seconds: for all of it.
        across: the sets again, with each other architecture.
    """

    rows: tuple[Row, ...]
    network: str
    recipe: Recipe
    seconds: float
    across: tuple[Row, ...] = ()

    @property
    def text(self) -> str:
        """The rows for a terminal, below the network and how it was trained; what ``ddplug compare`` prints."""
        found = f"trained: {self.network}, {protocols(self.rows)}\n\n{table([HEAD, *map(Row.cells, self.rows)])}"
        if self.across:
            others = ((row.method, row.evaluation.network, row.evaluation.text, row.n) for row in self.across)
            found += f"\n\n{table([('training data', 'network', 'accuracy (%)', 'networks'), *others])}"
        return found

    def table(self) -> str:
        """Return a Markdown table; accuracies in percent, mean and standard deviation over the networks."""
        return markdown(HEAD, [row.cells() for row in self.rows])

    def _repr_markdown_(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        caption = f"{self.network}, {protocols(self.rows)}"
        return table_html(Table(caption, HEAD, [row.cells() for row in self.rows]))

    def __repr__(self) -> str:
        return outputs.short(self.rows, self.network, protocols(self.rows))

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "network": self.network,
            "recipe": self.recipe.to_json(),
            "seconds": self.seconds,
            "rows": [row.to_json() for row in self.rows],
            "across": [row.to_json() for row in self.across],
        }

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as comma-separated values, one a line below the names of the columns.

        Args:
            path: file to write them to as well.

        Returns:
            The text; accuracies in [0, 1], empty where there is no value.

        Raises:
            OptionError: the path cannot be written.
        """
        return outputs.written(outputs.csv_text(self._records()), path)

    def to_latex(self, path: str | Path | None = None, *, caption: str = "", label: str = "") -> str:
        """Return the rows as a LaTeX table for the package booktabs; accuracies in percent.

        Args:
            path: file to write it to as well.
            caption: of a ``table`` around it, in LaTeX; without one it is the ``tabular`` alone.
            label: of that ``table``.

        Returns:
            The text; names are escaped.

        Raises:
            OptionError: the path cannot be written.
        """
        about = f"{self.network}, {protocols(self.rows)}"
        return outputs.written(outputs.latex(self.rows, about, caption, label), path)

    def to_dataframe(self) -> Any:
        """Return the rows as a ``pandas.DataFrame``, with the columns of :meth:`to_csv`.

        Raises:
            OptionError: pandas is not installed.
        """
        return outputs.dataframe(self._records())

    def plot(self, columns: int = 1) -> Figure:
        """Draw accuracy: over bytes, where there are sets of several sizes, and a bar a row where there are not.

        Args:
            columns: of a page of two that the figure is to fill, 1 or 2; letters have 8 points.

        Returns:
            The figure; ``savefig`` writes it as PDF, SVG or PNG.

        Raises:
            OptionError: ``columns`` is neither.
        """
        from ddplug.evaluation.figures import comparison

        return comparison(self.rows, columns)

    def _records(self) -> list[dict[str, Any]]:
        return [outputs.record(row) for row in (*self.rows, *self.across)]
