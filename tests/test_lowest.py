"""The lowest versions that are tried are the lower bounds that are promised."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_what_is_tried_is_what_is_promised() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    promised = dict(re.findall(r"^(\S+)>=([\d.]+)$", config["options"]["install_requires"], re.MULTILINE))
    tried = dict(re.findall(r"^(\S+)==([\d.]+)$", (ROOT / "tests" / "lowest.txt").read_text(), re.MULTILINE))
    assert len(promised) > 5
    assert set(promised) == set(tried)
    for name, bound in promised.items():
        numbers = [[int(part) for part in version.split(".")] for version in (bound, tried[name])]
        assert numbers[0] == numbers[1][: len(numbers[0])], name
