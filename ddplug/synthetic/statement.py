"""What a set promises of single records of the data that it was made from: its statement of differential privacy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["KEY", "in_words", "privacy_statement"]

KEY = "privacy"
"""Field of the provenance."""

_NEIGHBORS = "one record added or removed"


def privacy_statement(provenance: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the statement of a set; ``None`` where it makes none.

    Those of merged sets add up: that is right if they were made from the same data, and more than is told of anybody if
    they were not. A set that is merged with one that promises nothing promises nothing.

    Args:
        provenance: of the set; it may come from a file, and is not trusted to be sound.

    Returns:
        ``epsilon``, ``delta``, ``neighbors``, ``mechanism`` and ``public``, the list of what of the data was taken as
        known; with the number ``releases`` of those that are merged.

    Example:
        >>> one = {"privacy": {"epsilon": 1.0, "delta": 1e-5, "neighbors": "one record added or removed"}}
        >>> found = privacy_statement({"merged": [one, one]})
        >>> found["epsilon"], found["delta"], found["releases"]
        (2.0, 2e-05, 2)
    """
    parts = provenance.get("merged", [provenance])
    found = [_sound(part) for part in parts] if isinstance(parts, list) else []
    said = [each for each in found if each is not None]
    if not said or len(said) < len(found) or len({each["neighbors"] for each in said}) > 1:
        return None
    epsilon, delta = (math.fsum(each[name] for each in said) for name in ("epsilon", "delta"))
    mechanisms, public = (
        list(dict.fromkeys(item for each in said for item in each[name])) for name in ("mechanism", "public")
    )
    return {
        "epsilon": epsilon,
        "delta": min(delta, 1.0),
        "neighbors": said[0]["neighbors"],
        "mechanism": "; ".join(mechanisms),
        "public": public,
        "releases": len(said),
    }


def _sound(part: Any) -> dict[str, Any] | None:
    """Return the statement of one release, if it makes a sound one."""
    own = part.get(KEY) if isinstance(part, Mapping) else None
    if not isinstance(own, Mapping) or own.get("neighbors") != _NEIGHBORS:
        return None
    epsilon, delta = own.get("epsilon"), own.get("delta")
    if not (_positive(epsilon) and _positive(delta)):
        return None
    mechanism, public = own.get("mechanism"), own.get("public")
    return {
        "epsilon": epsilon,
        "delta": delta,
        "neighbors": _NEIGHBORS,
        "mechanism": [mechanism] if isinstance(mechanism, str) else [],
        "public": [item for item in public if isinstance(item, str)] if isinstance(public, list) else [],
    }


def _positive(number: Any) -> bool:
    return type(number) in (int, float) and 0 < number < 1e30  # JSON has whole numbers that no float holds


def in_words(statement: Mapping[str, Any]) -> str:
    """Write a statement on one line, as ``epsilon 1, delta 1e-05, for one record added or removed``."""
    releases = statement["releases"]
    more = f", the sum of {releases} releases" if releases > 1 else ""
    numbers = f"epsilon {statement['epsilon']:.6g}, delta {statement['delta']:.6g}"
    return f"{numbers}, for {statement['neighbors']}{more}"
