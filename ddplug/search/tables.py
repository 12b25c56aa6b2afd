"""Candidates that are no networks: estimators with ``fit`` and ``score``, as of scikit-learn, for tables."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping
from typing import Any

from torch import nn

from ddplug.errors import DivergedError
from ddplug.search.protocol import Protocol, Result, reason
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.checks import as_python
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import lasting

__all__ = ["fit_and_score", "is_estimator", "is_told", "parameters"]


def is_estimator(candidate: Any) -> bool:
    """Return whether a candidate is an estimator, made and not fitted, and no network or class of either."""
    known = all(callable(getattr(candidate, name, None)) for name in ("fit", "score"))
    return known and not isinstance(candidate, (type, nn.Module))


def parameters(estimator: Any) -> dict[str, Any]:
    """Return what tells an estimator from others: its class and its parameters, those of estimators within it too.

    Example:
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> parameters(KNeighborsClassifier(3))["n_neighbors"]
        3
    """
    own = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    return {"estimator": type(estimator).__name__, **{name: _described(value) for name, value in own.items()}}


def is_told(estimator: Any) -> bool:
    """Return whether parameters tell an estimator from all others: it has them, and none is an unnamed function."""
    return hasattr(estimator, "get_params") and "<" not in _kinds(parameters(estimator))


class _Kind(str):
    """What stands for something that only this process knows: ``"<function>"``."""


def _kinds(described: Any) -> str:
    """Return what of a description stands for something unknown."""
    if isinstance(described, _Kind):
        return described
    if isinstance(described, Mapping):
        described = list(described.values())
    return "".join(map(_kinds, described)) if isinstance(described, list) else ""


def _described(value: Any) -> Any:
    """Put parameters in the place of estimators, as of steps of a pipeline, and text in that of NaN and functions."""
    value = as_python(value)
    if isinstance(value, list | tuple):
        return [_described(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _described(one) for name, one in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return parameters(value) if hasattr(value, "get_params") and not isinstance(value, type) else _name(value)


def _name(value: Any) -> str:
    """Name a function or a class; anything else by how it is made, if it says so."""
    name = getattr(value, "__qualname__", getattr(value, "__name__", None))
    if name is None:
        text = lasting(value)
        return _Kind(f"<{type(value).__qualname__}>") if text is None else text
    return f"{value.__module__}.{name}" if "<" not in name else _Kind(f"<{type(value).__qualname__}>")


def _fresh(estimator: Any, seed: int) -> Any:
    """Copy an estimator, and seed the copy and the estimators within it, as the steps of a pipeline."""
    made = copy.deepcopy(estimator)
    names = made.get_params() if hasattr(made, "get_params") else {}
    states = [name for name in names if name.split("__")[-1] == "random_state"]
    return made.set_params(**dict.fromkeys(states, seed)) if states else made


@own_surroundings()
def fit_and_score(estimator: Any, train: SyntheticSet, validation: SyntheticSet, protocol: Protocol) -> Result:
    """Fit an estimator to a set with each seed and score it on real data; one that fails is a result too.

    It sees inputs in model space, one row a sample, and hard labels. Of the protocol it heeds the seeds alone: how long
    it learns is its own affair.

    Args:
        estimator: with ``fit(x, y)`` and ``score(x, y)``, the higher the better; it is left alone.
        train: what to fit it to.
        validation: real data with hard labels, in the model space of ``train``; its classes may be in another order.
        protocol: how often.

    Returns:
        Mean score, or why there is none, and the costs.

    Example:
        >>> from sklearn.neighbors import KNeighborsClassifier
        >>> from ddplug.synthetic.held_out import holdout
        >>> from ddplug.testing import toy_images
        >>> real = holdout(toy_images((12, 11)))
        >>> fit_and_score(KNeighborsClassifier(1), real, real, Protocol()).metric
        1.0
    """
    began, scores, failure = time.perf_counter(), [], None
    parts = (train.enlarged(), validation.in_order_of(train.class_names).enlarged())
    (x, y), (test_x, test_y) = ((own.inputs.flatten(1).numpy(), own.hard_targets.numpy()) for own in parts)
    try:
        for seed in range(protocol.seed, protocol.seed + protocol.seeds):
            fresh = _fresh(estimator, seed)
            fresh.fit(x, y)
            score = float(fresh.score(test_x, test_y))
            if not math.isfinite(score):
                raise DivergedError(f"its score is {score}")
            scores.append(score)
    except Exception as error:  # a user's estimator may raise anything
        failure = reason(error)
    return Result(
        metric=None if failure else sum(scores) / len(scores),
        failure=failure,
        accuracies=tuple(scores),
        seconds=time.perf_counter() - began,
        images=len(train) * len(scores),
    )
