r"""DSA: gradient matching under one transformation of both batches.

.. math::  L = \sum_c D\big(\nabla_\theta \ell(\theta; A_\omega(B_c)),\; \nabla_\theta \ell(\theta; A_\omega(S_c))\big)

:math:`A_\omega` is drawn anew for each class and step and is the same for its real and its synthetic images
(:mod:`ddplug.functional.augmentation`). Everything else is :mod:`ddplug.distillers.dc`, which has the option; this is
the method as published, with its own defaults.

Reference: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ddplug.distillers.dc import DC, loops
from ddplug.distillers.presets import Preset, per_data

__all__ = ["DSA"]


_PAPER = Preset(
    {
        "network": "convnet",
        "batch_real": 256,
        "learning_rate": 0.1,
        "init_from": "real",
        "augment": "auto",
        "pool_size": 0,
        "inner_loop": 0,
        "network_learning_rate": 0.01,
    },
    "Zhao & Bilen, ICML 2021, section 4.1 and released defaults",
)

_PRESETS = {
    "paper": _PAPER.extended(steps=1000),
    # 1,000 networks
    **per_data(_PAPER, {n: {"steps": 1000 * loops(n)[0]} for n in (1, 10, 50)}),
}


@dataclass(frozen=True)
class DSA(DC):
    """Gradient matching with differentiable Siamese augmentation; attributes as in :class:`~ddplug.distillers.DC`.

    Example:
        >>> DSA().augment, DSA().init_from
        ('auto', 'real')
    """

    name: ClassVar[str] = "dsa"
    presets: ClassVar[Mapping[str, Preset]] = _PRESETS
    init_from: str = "real"
    augment: str = "auto"
