"""A strategy that searches nothing: it has given architectures judged, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nni.nas.strategy.base import Strategy

__all__ = ["Listed"]


class Listed(Strategy):
    """Submit given samples of the space, in order.

    Args:
        samples: label -> choice each, as :func:`ddplug.nni.spaces.architectures` gives them.
        watched: is given the samples and gives them back one by one, as they are submitted.

    Example:
        >>> Listed([{"width": 8}]).extra_repr()
        'samples=1'
    """

    def __init__(
        self,
        samples: Sequence[Mapping[str, Any]],
        watched: Callable[[Sequence[Mapping[str, Any]]], Iterable[Mapping[str, Any]]] = iter,
    ) -> None:
        super().__init__()
        self._watched = watched
        self.samples = [dict(sample) for sample in samples]

    def extra_repr(self) -> str:
        """Say how many there are."""
        return f"samples={len(self.samples)}"

    def _run(self) -> None:
        for sample in self._watched(self.samples):
            if not self.wait_for_resource():
                return
            self.engine.submit_models(self.model_space.freeze(sample))

    def state_dict(self) -> dict[str, Any]:
        """Give the samples."""
        return {"samples": self.samples}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the samples back."""
        self.samples = list(state_dict["samples"])
