r"""Learning through a codec: the loss sees images as they will be decoded, and moves what will be coded.

.. math::  \hat x_t = D(E(x_t)), \qquad x_{t+1} = x_t + (u(\hat x_t) - \hat x_t)

with coding :math:`E`, decoding :math:`D` and a step :math:`u` of a method, whose gradient so passes the rounding as if
it were not there (straight through). It is done around the method, whatever moves its images: none needs a line for it.

Reference: the straight-through estimator is that of Bengio, Léonard & Courville, "Estimating or Propagating Gradients
Through Stochastic Neurons for Conditional Computation", arXiv 1308.3432, section 4; images behind rounding are learned
so in Zhou et al., DoReFa-Net, arXiv 1606.06160, section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import Distiller, Metrics, State
from ddplug.functional.resize import enlarge
from ddplug.functional.types import Tensors
from ddplug.synthetic.codecs.protocol import Codec, codec_of
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["Through", "through"]

_IMAGES, _SEEN, _AGE = "inputs", "through.seen", "through.age"


@dataclass(frozen=True)
class Through:
    """A method whose images are seen as a codec would give them back.

    The state keeps what is coded in the end under ``inputs``, as the method's own does, and next to it what was seen.

    Args:
        method: one that moves what its state holds under ``inputs``.
        codec: that will hold the images.
    """

    name: ClassVar[str] = "through"
    method: Distiller
    codec: Codec

    @property
    def steps(self) -> int:
        return self.method.steps

    @property
    def images_per_class(self) -> int:
        return self.method.images_per_class

    def __getattr__(self, name: str) -> Any:
        """Return what the method says of itself, such as ``memory``."""
        if name == "method":  # not there yet, while an object is copied
            raise AttributeError(name)
        return getattr(self.method, name)

    def init(self, data: LabeledData, rng: torch.Generator) -> State:
        state = self.method.init(data, rng)
        if _IMAGES not in state:
            return state
        return {**state, _SEEN: self._decoded(state[_IMAGES], data), _AGE: torch.tensor(0)}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        if _SEEN not in state:
            return self.method.step(state, data, rng)
        seen, age = state[_SEEN], int(state[_AGE]) + 1
        after, metrics = self.method.step({**_own(state), _IMAGES: seen}, data, rng)
        moved = state[_IMAGES] + (after[_IMAGES] - seen)
        seen = after[_IMAGES] if age % self.codec.every else self._decoded(moved, data)
        return {**after, _IMAGES: moved, _SEEN: seen, _AGE: torch.tensor(age)}, metrics

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        return self.method.result(_own(state), data)

    def _decoded(self, inputs: Tensor, data: LabeledData) -> Tensor:
        """Return ``(M, *shape)`` images in model space as they would be decoded, on the device of the data."""
        preprocess = data.preprocess.to("cpu")
        decoded = preprocess.forward(self.codec.through(preprocess.inverse(inputs.cpu()), [len(inputs)]))
        return enlarge(decoded, tuple(inputs.shape[1:])).to(inputs.device)


def _own(state: Mapping[str, Tensor]) -> Tensors:
    """Return the part of a state that is the method's own."""
    return {name: tensor for name, tensor in state.items() if name not in (_SEEN, _AGE)}


def through(method: Distiller, codec: str | None) -> Distiller:
    """Let a method that learns see its images as a codec gives them back; any other stays as it is.

    Args:
        method: a method.
        codec: its name with options, or ``None`` where nothing is coded.

    Example:
        >>> from ddplug.distillers import DM, Random
        >>> through(DM(), "pixels:bits=2").codec, through(Random(), "pixels:bits=2") == Random()
        (Pixels(bits=2, side=0), True)
    """
    made = None if codec is None else codec_of(codec)
    return method if made is None or not made.every or not method.steps else Through(method, made)
