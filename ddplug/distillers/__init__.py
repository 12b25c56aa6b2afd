"""One method, one file; names resolve through the entry-point group ``ddplug.distillers`` (see :mod:`ddplug.registry`).

Nothing is imported here, so that a method costs its own imports only.
"""

from __future__ import annotations

__all__: list[str] = []
