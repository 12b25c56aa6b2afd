"""What a distilled memory costs and looks like, through Avalanche's evaluator and loggers."""

from __future__ import annotations

from typing import Any

from avalanche.evaluation import PluginMetric
from avalanche.evaluation.metric_results import MetricValue, TensorImage
from avalanche.evaluation.metric_utils import get_metric_name
from torchvision.transforms.functional import pil_to_tensor

from ddplug.errors import DataError, OptionError
from ddplug.utils.pictures import opened

__all__ = ["MemoryMetric", "distillation_metrics"]

_PER_ROW = 10
"""Images of a class in the picture, so that what the evaluator keeps of each experience stays small."""


class MemoryMetric(PluginMetric):
    """One figure of a distilled memory, emitted after each training experience in which it was distilled.

    Attributes:
        name: ``"Distillation_Seconds"``, ``"Memory_Images"``, ``"Memory_Bytes"`` or ``"Memory_Picture"``.
        policy: the memory, or ``None`` to look for it on the strategy.
    """

    def __init__(self, name: str, policy: Any = None) -> None:
        super().__init__()
        self.name = name
        self.policy = policy
        self._updates = 0
        self._most = 0
        self._value: Any = None

    def result(self) -> Any:
        """Return the figure of the last emission, ``None`` before the first."""
        return self._value

    def reset(self) -> None:
        """Forget the last figure."""
        self._value = None

    def after_training_exp(self, strategy: Any) -> list[Any] | None:
        """Emit the figure, unless this experience left the memory as it was."""
        policy = _find(strategy) if self.policy is None else self.policy
        if policy is None:
            return None
        # real samples that wait in an online stream take memory, and are gone once the memory was distilled
        self._most = max(self._most, int(policy.nbytes))
        if policy.updates == self._updates:
            return None
        self._value = self._most if self.name == "Memory_Bytes" else _READERS[self.name](policy)
        self._updates, self._most = policy.updates, 0
        if self._value is None:
            return None
        # the memory belongs to no single task or experience: one curve over the iterations
        name = get_metric_name(self, strategy, add_experience=False, add_task=False)
        return [MetricValue(self, name, self._value, strategy.clock.train_iterations)]

    def __str__(self) -> str:
        return self.name


def distillation_metrics(policy: Any = None, *, picture: bool = False) -> list[MemoryMetric]:
    """Return metrics of a distilled memory for an ``EvaluationPlugin``.

    Seconds spent distilling, images and bytes held, after each training experience; no metric of Avalanche's own
    includes the time between experiences. In an online stream they appear only where the memory was distilled, and the
    bytes are the most that were held since the last time, with the real samples that waited. With a strategy that has
    no distilled memory nothing is emitted, so that one evaluator serves a comparison.

    Args:
        policy: the :class:`~ddplug.avalanche.buffer.DistilledBuffer`; ``None`` for the one that a plugin of the
            strategy, or the strategy itself, has as ``storage_policy``.
        picture: show the memory too, as :meth:`~ddplug.avalanche.buffer.DistilledBuffer.picture` draws it: a row for
            each class, at most 10 images of each. Inputs that are not ``(C, H, W)`` of one or three channels give none.

    Returns:
        Metrics with the names ``Distillation_Seconds``, ``Memory_Images``, ``Memory_Bytes`` (and ``Memory_Picture``),
        each followed by ``/train_phase/`` and the name of the stream, such as ``train_stream``.

    Raises:
        OptionError: the policy given is not a distilled memory.
    """
    if policy is not None and not hasattr(policy, "nbytes"):
        raise OptionError(
            f"the policy is a {type(policy).__name__}, which cannot say how many bytes it takes; give a "
            "DistilledBuffer, or leave the policy out"
        )
    names = ["Distillation_Seconds", "Memory_Images", "Memory_Bytes", *(["Memory_Picture"] if picture else [])]
    return [MemoryMetric(name, policy) for name in names]


def _find(strategy: Any) -> Any:
    """Look for a distilled memory on the plugins of a strategy, then on the strategy; ``None`` if there is none."""
    policies = (getattr(holder, "storage_policy", None) for holder in (*strategy.plugins, strategy))
    return next((policy for policy in policies if hasattr(policy, "nbytes")), None)


def _seconds(policy: Any) -> float:
    return float(policy.seconds)


def _images(policy: Any) -> int:
    """Count images of the budget: each may be stored as several smaller ones, which are rows of the buffer."""
    return int(sum(map(len, policy.groups.values())) // policy.options.factor**2)


def _picture(policy: Any) -> Any:
    try:
        figure = policy.picture(_PER_ROW)
    except DataError:
        return None
    return TensorImage(pil_to_tensor(opened(figure).convert("RGB")))


_READERS = {"Distillation_Seconds": _seconds, "Memory_Images": _images, "Memory_Picture": _picture}
