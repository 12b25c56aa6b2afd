"""A picture of a search: the best so far over what it cost, and cheap scores against full ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ddplug.errors import DataError
from ddplug.search.courses import courses, name_of_sample
from ddplug.search.journal import Journal, Record

__all__ = ["progress"]

_PROXY, _FULL = "#0072B2", "#D55E00"


def progress(proxies: Journal | Sequence[Record], full: Sequence[Record] = (), *, title: str = "") -> Figure:
    """Draw a search: left the best so far over the seconds that were spent, right cheap scores against full ones.

    A candidate that was promoted, that is trained in full too, is found by its sample; it is ringed on the left and is
    a point on the right. Without any, the left panel stands alone.

    Args:
        proxies: what the set said of each candidate, in the order of the search; failures cost their seconds. Or a
            journal that holds one search, in which full training is found by itself; see
            :func:`ddplug.search.courses.courses`.
        full: what full training said, in order; not with a journal.
        title: shown above.

    Returns:
        The figure.

    Raises:
        DataError: no candidate succeeded, or the journal holds several searches.

    Example:
        >>> from ddplug.search.protocol import Result
        >>> found = [Record(str(n), {"n": n}, Result(n / 10, seconds=2.0)) for n in range(5)]
        >>> len(progress(found, [Record("full", {"n": 4}, Result(0.7, seconds=60.0))]).axes)
        2
    """
    if isinstance(proxies, Journal):
        proxies, full = _one(proxies)
    proxies, full = list(proxies), list(full)
    if not any(record.metric is not None for record in proxies):
        raise DataError(f"none of {len(proxies)} candidates succeeded, and there is nothing to draw; search first")
    promoted = {name_of_sample(record.sample): record for record in full if record.metric is not None}
    columns = 2 if promoted else 1
    figure = Figure(figsize=(5.2 * columns, 4.0), dpi=130, facecolor="white", layout="constrained")
    panels = figure.subplots(1, columns, squeeze=False)[0]
    _course(panels[0], proxies, promoted)
    if promoted:
        _against(panels[1], proxies, promoted)
    figure.suptitle(title, parse_math=False)
    return figure


def _one(journal: Journal) -> tuple[Sequence[Record], Sequence[Record]]:
    """Return the one search that a journal holds."""
    found = courses(journal.read())
    if len(found) > 1:
        raise DataError(
            f"{journal.path} holds {len(found)} searches, by their sets and steps; "
            "choose one of ddplug.search.courses.courses(journal.read())"
        )
    return (found[0].proxies, found[0].full) if found else ((), ())


def _course(axes: Any, proxies: Sequence[Record], promoted: Mapping[str, Record]) -> None:
    """Draw every candidate over the seconds spent until it was done, and the best so far as a line."""
    seconds = np.cumsum([record.result.seconds for record in proxies])
    done = [(when, record) for when, record in zip(seconds, proxies, strict=True) if record.metric is not None]
    times = [float(when) for when, _ in done]
    values = [100 * float(record.metric or 0.0) for _, record in done]
    axes.scatter(times, values, s=18, color=_PROXY, alpha=0.7, linewidths=0, label="candidate, on the set")
    best = np.maximum.accumulate(values)
    axes.step(times, best, where="post", color=_PROXY, linewidth=1.5, label="best so far")
    ringed = [n for n, (_, record) in enumerate(done) if name_of_sample(record.sample) in promoted]
    if ringed:
        axes.scatter(
            [times[n] for n in ringed],
            [values[n] for n in ringed],
            s=80,
            facecolors="none",
            edgecolors=_FULL,
            linewidths=1.4,
            label="trained in full too",
        )
    axes.set_xlabel("seconds of training on the set")
    axes.set_ylabel("accuracy by training on the set (%)")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize="small")
    _dress(axes)


def _against(axes: Any, proxies: Sequence[Record], promoted: Mapping[str, Record]) -> None:
    """Draw full accuracies over those on the set."""
    pairs = [
        (100 * record.metric, 100 * float(promoted[name_of_sample(record.sample)].metric or 0.0))
        for record in proxies
        if record.metric is not None and name_of_sample(record.sample) in promoted
    ]
    axes.scatter([x for x, _ in pairs], [y for _, y in pairs], s=24, color=_FULL, linewidths=0)
    axes.set_xlabel("accuracy by training on the set (%)")
    axes.set_ylabel("accuracy after full training (%)")
    _dress(axes)


def _dress(axes: Any) -> None:
    axes.grid(True, color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
