"""Parts of a run by classes, for machines that know nothing of each other: each makes some, and files are merged.

A method that treats the classes apart says so by its attribute ``apart`` and makes those of :func:`own_classes`. What
it draws for the others it draws all the same, so that each class is that of a run that made all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from ddplug.errors import OptionError
from ddplug.utils.checks import whole

__all__ = ["WHOLE", "check_shard", "own_classes", "sharding"]

WHOLE = (1, 1)
"""The shard that is all of a run."""

_SHARD: ContextVar[tuple[int, int]] = ContextVar("shard", default=WHOLE)


@contextmanager
def sharding(shard: tuple[int, int]) -> Iterator[None]:
    """Let methods make the classes of a shard in a block."""
    token = _SHARD.set(shard)
    try:
        yield
    finally:
        _SHARD.reset(token)


def own_classes(number: int) -> range:
    """Return the classes, of a number of them, that are to be made: every n-th from the k-th, of a shard ``(k, n)``.

    Example:
        >>> with sharding((2, 4)):
        ...     list(own_classes(10))
        [1, 5, 9]
    """
    first, step = _SHARD.get()
    return range(first - 1, number, step)


def check_shard(shard: tuple[int, int], method: Any, classes: int, *, stored: bool) -> tuple[int, int]:
    """Refuse a shard that is none, or that a method cannot make.

    Args:
        shard: ``(k, n)``, whole numbers of any kind.
        method: a distiller.
        classes: how many there are.
        stored: whether a codec or a number of bytes is asked for.

    Returns:
        The shard, as Python's own numbers.

    Raises:
        OptionError: see above.
    """
    try:
        first, number = (whole("shard", part) for part in shard)
    except (TypeError, ValueError):
        raise OptionError(f"the shard is {shard!r}; give two whole numbers, (K, N)") from None
    if not 1 <= first <= number:
        raise OptionError(f"the shard is {first}/{number}; it must be K/N with K between 1 and N")
    if number == 1:
        return WHOLE
    if not getattr(method, "apart", False):
        raise OptionError(
            f"{method.name} does not treat the classes apart, so no shard of it is a part of the whole: leave the "
            "shard out, and start it by torchrun for several processes"
        )
    if number > classes:
        raise OptionError(f"the shard is {first}/{number}, of {classes} classes; use at most {classes} shards")
    if stored:
        raise OptionError("a codec and a number of bytes are of whole sets; leave them out where there is a shard")
    return first, number
