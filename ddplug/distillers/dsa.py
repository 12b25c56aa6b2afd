r"""DSA: gradient matching under one transformation of both batches.

.. math::  L = \sum_c D\big(\nabla_\theta \ell(\theta; A_\omega(B_c)),\; \nabla_\theta \ell(\theta; A_\omega(S_c))\big)

:math:`A_\omega` is drawn anew for each class and step and is the same for its real and its synthetic images
(:mod:`ddplug.functional.augmentation`). Everything else is :mod:`ddplug.distillers.dc`, which has the option; this is
the method as published, with its own defaults.

Reference: Zhao & Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, equation 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ddplug.distillers.dc import DC

__all__ = ["DSA"]


@dataclass(frozen=True)
class DSA(DC):
    """Gradient matching with differentiable Siamese augmentation; attributes as in :class:`~ddplug.distillers.DC`.

    Example:
        >>> DSA().augment, DSA().init_from
        ('auto', 'real')
    """

    name: ClassVar[str] = "dsa"
    init_from: str = "real"
    augment: str = "auto"
