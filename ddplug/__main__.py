"""``python -m ddplug`` is the ``ddplug`` command."""

from __future__ import annotations

import sys

from ddplug.cli.program import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
