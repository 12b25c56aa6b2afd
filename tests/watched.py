"""Commands in a process of their own; prints what it wrote to, as far as Python knows, outside of a folder."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

PLACES = {
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
}
"""Event -> which of its arguments are paths that it changes."""


def main() -> None:
    """Run the commands that the second argument has; the first one is the folder."""
    folder, commands = os.path.realpath(sys.argv[1]), json.loads(sys.argv[2])
    written: list[Any] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            written.append(arguments[0])
        written.extend(arguments[k] for k in PLACES.get(event, ()))

    sys.addaudithook(watch)
    from ddplug.cli.program import main as ddplug

    for words in commands:
        assert ddplug(words) == 0, words
    places = {os.path.realpath(os.fsdecode(path)) for path in written if isinstance(path, str | bytes)}
    outside = {path for path in places if os.path.commonpath([path, folder]) != folder} - {os.devnull}
    sys.stdout.write(json.dumps(sorted(outside)))


if __name__ == "__main__":
    main()
