"""The commands of ``ddplug``, one module each: ``configure(parser, argv)`` and ``run(arguments)``.

A module imports torch inside ``run`` only, so that ``--help`` is instant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["COMMANDS", "EXAMPLES", "Answer"]

COMMANDS: Mapping[str, tuple[str, str]] = {
    "list": ("ddplug.cli.list_", "list the installed methods, networks, data sets and codecs"),
    "distill": ("ddplug.cli.distill", "distill a data set and save the synthetic set"),
    "merge": ("ddplug.cli.merge", "join the shards that distill --shard made"),
    "experts": ("ddplug.cli.experts", "train networks on real data, for methods that match their trajectories"),
    "evaluate": ("ddplug.cli.evaluate", "train networks on a set and on baselines, and test them on real data"),
    "compare": ("ddplug.cli.compare", "compare sets with baselines of the same size, as a table or a figure"),
    "report": ("ddplug.cli.report", "make a page about sets: pictures, bytes, baselines, accuracy"),
    "audit": ("ddplug.cli.audit", "attack a set to see what it reveals about its data: copies, membership"),
    "inspect": ("ddplug.cli.inspect_", "show what a file holds and how it was made"),
    "export": ("ddplug.cli.export", "turn a set into pictures, arrays, a table or a card"),
    "holdout": ("ddplug.cli.holdout", "save held-out real data, to test the candidates of a search on"),
    "agreement": (
        "ddplug.cli.agreement",
        "measure how well small sets rank architectures, compared with full training",
    ),
    "doctor": ("ddplug.cli.doctor", "show what is installed, known problems with it, and what to do"),
    "completion": ("ddplug.cli.completion", "print the code that makes bash, zsh or fish complete these commands"),
    "demo": ("ddplug.cli.demo_", "distill, evaluate and plot real digits, end to end, in a few minutes"),
}
"""Name of a command -> its module, and what it does."""

EXAMPLES: Mapping[str, str] = {
    "distill": "ddplug distill dm --data digits --images-per-class 10 -o dm.safetensors",
    "distill auto": "ddplug distill auto --data digits --budget 2m --bytes 2kB -o auto.safetensors",
    "merge": "ddplug merge part-1.safetensors part-2.safetensors -o all.safetensors",
    "experts": "ddplug experts --data digits --number 8 -o experts",
    "evaluate": "ddplug evaluate dm.safetensors --data digits --repeats 3",
    "compare": "ddplug compare dm.safetensors auto.safetensors --data digits --to table.tex",
    "report": "ddplug report dm.safetensors --data digits -o dm.html",
    "audit": "ddplug audit dm.safetensors --data digits",
    "inspect": "ddplug inspect mnist-8kB",
    "export": "ddplug export mnist-8kB --to png mnist-8kB.png",
    "holdout": "ddplug holdout --data digits --validation 0.1 -o validation.safetensors",
    "agreement": "ddplug agreement --data digits --validation 0.1 \\\n      --set dm=dm.safetensors --folder study",
}
"""Name of a command -> one that can be typed, which its ``--help`` shows."""


@dataclass(frozen=True)
class Answer:
    """What a command prints.

    Attributes:
        values: for ``--json``; JSON-ready, without NaN.
        text: for people.
    """

    values: Mapping[str, Any]
    text: str
