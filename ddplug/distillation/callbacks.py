"""What may watch a run: a progress bar, a CSV file, TensorBoard."""

from __future__ import annotations

import csv
import io
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from torch import Tensor
from tqdm import tqdm

from ddplug.errors import MissingExtraError, OptionError
from ddplug.utils.checks import values_at_least
from ddplug.utils.files import check_writable, write_file
from ddplug.utils.forecast import Forecast, forecasting
from ddplug.utils.progress import hidden, shown
from ddplug.utils.text import os_reason

__all__ = ["Callback", "CsvLog", "Forecast", "ProgressBar", "TensorBoardLog", "check_callbacks", "preparing"]


class Callback(Protocol):
    """Something that is told of every step.

    Metrics are tensors that may lie on an accelerator: reading one waits for it, so read only what is shown.
    """

    def start(self, total: int, done: int, name: str) -> None:
        """Begin.

        Args:
            total: steps of the whole run.
            done: steps taken before, by the run that is being resumed.
            name: of the method.
        """

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Take note of step number ``step``, the first of which is 1."""

    def close(self) -> None:
        """Finish, whether the run ended well or not; comes even where :meth:`start` failed."""


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse what could not be told of a run, before the run.

    Raises:
        OptionError: one is no callback, or there is no list of them.
    """
    if not isinstance(callbacks, Iterable):
        raise OptionError(f"callbacks is a {type(callbacks).__name__}; give a list of them, [] for none")
    for callback in callbacks:
        if isinstance(callback, type):
            raise OptionError(f"a callback is the class {callback.__name__}; give an object, {callback.__name__}(...)")
        lacking = [name for name in ("start", "step", "close") if not callable(getattr(callback, name, None))]
        if lacking:
            raise OptionError(
                f"a callback, {type(callback).__name__}, has no {' and no '.join(lacking)}; give an object with start, "
                "step and close, as ddplug.distillation.Callback says"
            )


class ProgressBar:
    """Shows step, loss and time left on standard error; a method without steps has none.

    Args:
        force: show it even where standard error is not a terminal.
        interval: seconds between two looks at the loss.
    """

    def __init__(self, force: bool = False, interval: float = 0.2) -> None:
        self.force = force
        self.interval = interval
        self._bar: Any = None
        self._metrics: Mapping[str, Tensor] = {}
        self._shown = 0.0

    def start(self, total: int, done: int, name: str) -> None:
        disable = total == 0 or hidden(self.force)
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=name,
            unit="step",
            file=sys.stderr,
            disable=disable,
            mininterval=self.interval,
        )

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        self._metrics = metrics
        if time.monotonic() - self._shown >= self.interval:
            self._show()
        self._bar.update()

    def _show(self) -> None:
        self._shown = time.monotonic()
        if not self._bar.disable and "loss" in self._metrics:
            self._bar.set_postfix_str(f"loss {float(self._metrics['loss']):.4g}", refresh=False)

    def close(self) -> None:
        if self._bar is not None:
            self._show()
            self._bar.refresh()
            self._bar.close()


@contextmanager
def preparing(callbacks: Sequence[Callback]) -> Iterator[None]:
    """Let what is done before the first step show how far it is, to callbacks that are a progress bar or a forecast."""
    bar = next((callback for callback in callbacks if isinstance(callback, ProgressBar)), None)
    forecast = next((callback for callback in callbacks if isinstance(callback, Forecast)), None)
    with shown(bar is not None and not hidden(bar.force)), forecasting(forecast):
        yield


class CsvLog:
    """Writes a table with the columns ``step``, ``seconds`` and the metrics.

    When a run is resumed, rows beyond the step it goes on from are dropped, so that the file, the seconds apart, is
    that of a run that was never stopped. A run that begins anew overwrites the file.

    Args:
        path: the file.
        every: steps between two rows; each row waits for the accelerator, if there is one.

    Raises:
        OptionError: the file cannot be written, or ``every`` is below 1.
    """

    def __init__(self, path: str | Path, every: int = 10) -> None:
        self.path = check_writable(path)
        values_at_least(1, every=every)
        self.every = every
        self._file: TextIO | None = None
        self._columns: list[str] = []
        self._began = 0.0

    def start(self, total: int, done: int, name: str) -> None:
        rows = self._kept(done) if done and self.path.exists() else []
        self._columns = rows[0] if rows else []
        self._began = time.monotonic() - (float(rows[-1][1]) if len(rows) > 1 else 0.0)
        write_file(self.path, "".join(map(_line, rows)).encode())
        # a line goes to the system at once: after a kill no row that the checkpoint counts on is missing
        self._file = self.path.open("a", buffering=1, encoding="utf-8", newline="")

    def _kept(self, done: int) -> list[list[str]]:
        """Read the header and the rows up to step ``done``; a last line that was cut off is none of them."""
        whole = self.path.read_text(encoding="utf-8", errors="replace").rpartition("\n")[0]
        try:
            header, *rows = list(csv.reader(whole.splitlines())) or [["step", "seconds"]]
            if header[:2] != ["step", "seconds"]:
                raise ValueError(f"its columns are {','.join(header)[:80]!r}")
            return [header, *(row for row in rows if int(row[0]) <= done and float(row[1]) >= 0)] if rows else []
        except (ValueError, IndexError, csv.Error) as error:
            raise OptionError(f"{self.path} is not the log of an earlier run ({error}); choose another path") from None

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        if step % self.every:
            return
        columns = ["step", "seconds", *metrics]
        seconds = f"{time.monotonic() - self._began:.3f}"
        row = _line([str(step), seconds, *(repr(value.item()) for value in metrics.values())])
        if not self._columns:
            self._columns, row = columns, _line(columns) + row
        if columns != self._columns:
            raise OptionError(f"{self.path} has the columns {self._columns}, not {columns}; choose another path")
        assert self._file is not None
        try:
            self._file.write(row)
        except OSError as error:
            raise OptionError(f"cannot write {self.path}: {os_reason(error)}; free space or go without") from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _line(row: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(row)
    return text.getvalue()


class TensorBoardLog:
    """Writes the metrics for TensorBoard; when a run is resumed, what lies beyond the step it goes on from is purged.

    Args:
        directory: where the event files go.
        every: steps between two entries; each waits for the accelerator, if there is one.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        OptionError: ``every`` is below 1.
    """

    def __init__(self, directory: str | Path, every: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(f"TensorBoard cannot be used: {error}; run `pip install tensorboard`") from error
        self.directory = str(directory)
        values_at_least(1, every=every)
        self.every = every
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def start(self, total: int, done: int, name: str) -> None:
        self._writer = self._make(self.directory, purge_step=done + 1 if done else None, flush_secs=5)

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        if step % self.every == 0:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value.item(), step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
