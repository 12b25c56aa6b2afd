"""The commands of ``ddplug``, one module each: ``configure(parser, argv)`` and ``run(arguments)``.

A module imports torch inside ``run`` only, so that ``--help`` is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["COMMANDS", "Answer"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("ddplug.cli.list_", "list the installed methods, networks, data sets and codecs"),
    "distill": ("ddplug.cli.distill", "distill a data set and save the synthetic set"),
    "merge": ("ddplug.cli.merge", "put the shards of a run, made by distill --shard, together"),
    "experts": ("ddplug.cli.experts", "train networks on real data, for methods that match their trajectories"),
    "evaluate": ("ddplug.cli.evaluate", "train networks on a set and on baselines, and test them on real data"),
    "compare": ("ddplug.cli.compare", "compare sets with baselines of the same bytes, as a table or a figure"),
    "report": ("ddplug.cli.report", "make a page of sets: pictures, bytes, baselines, accuracy"),
    "audit": ("ddplug.cli.audit", "measure what a set gives away of its data: copies, membership, by attacks"),
    "inspect": ("ddplug.cli.inspect_", "show what a file holds and how it was made"),
    "export": ("ddplug.cli.export", "turn a set into pictures, arrays, a table or a card"),
    "holdout": ("ddplug.cli.holdout", "save a part of the real data, to judge candidates of a search by"),
    "agreement": ("ddplug.cli.agreement", "tell how far small sets rank architectures as full training does"),
    "doctor": ("ddplug.cli.doctor", "show what is installed, what is known to be broken in it, and what to do"),
    "completion": ("ddplug.cli.completion", "print what makes bash, zsh or fish complete these commands"),
    "demo": ("ddplug.cli.demo_", "distill, evaluate and plot real digits, end to end, in about a minute"),
}
"""Name of a command -> its module, and what it does."""


@dataclass(frozen=True)
class Answer:
    """What a command prints.

    Attributes:
        values: for ``--json``; JSON-ready, without NaN.
        text: for people.
    """

    values: Mapping[str, Any]
    text: str
