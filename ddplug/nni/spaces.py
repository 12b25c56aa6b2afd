"""The published space of 720 convolutional networks as an NNI model space, and random samples of any space."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import nni
from nni.mutable import SampleValidationError
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace, model_context
from numpy.random import RandomState
from torch import Tensor

from ddplug.errors import OptionError
from ddplug.networks.convnet import SPACE, ConvNet
from ddplug.nni.samples import describe_space, plain
from ddplug.search.candidates import CHOICES, Candidates, check_choices, distinct, member

__all__ = ["ConvNetSpace", "architectures", "candidates"]


class ConvNetSpace(ModelSpace):
    """The ConvNets of the published architecture-search experiments: every combination of five choices.

    The choices are labeled ``width``, ``depth``, ``norm``, ``activation`` and ``pooling``. A frozen member *is*
    ddplug's :class:`~ddplug.networks.ConvNet`. The space itself is no network: it has no weights and no
    forward, and one-shot strategies, which need layers to mix, refuse it.

    Args:
        shape: ``(C, H, W)`` of one input.
        num_classes: number of outputs.
        widths: channels of every block.
        depths: numbers of blocks.
        norms: keys of :data:`ddplug.networks.layers.NORMS`.
        activations: keys of :data:`ddplug.networks.layers.ACTIVATIONS`.
        poolings: keys of :data:`ddplug.networks.layers.POOLS`.

    Raises:
        OptionError: a list of choices is empty or repeats a value, a value is unknown or out of range, or a combination
            does not suit the inputs, as where pooling leaves less than one pixel.

    Reference: Zhao, Mopuri & Bilen, "Dataset Condensation with Gradient Matching", ICLR 2021, section 4.3.

    Example:
        >>> space = ConvNetSpace((1, 28, 28), 10)
        >>> sorted(space.simplify())
        ['activation', 'depth', 'norm', 'pooling', 'width']
        >>> choice = {"width": 32, "depth": 2, "norm": "instance", "activation": "relu", "pooling": "max"}
        >>> space.freeze(choice).head
        Linear(in_features=2048, out_features=10, bias=True)
    """

    def __init__(
        self,
        shape: Sequence[int],
        num_classes: int,
        widths: Sequence[int] = SPACE["width"],  # type: ignore[assignment]
        depths: Sequence[int] = SPACE["depth"],  # type: ignore[assignment]
        norms: Sequence[str] = SPACE["norm"],  # type: ignore[assignment]
        activations: Sequence[str] = SPACE["act"],  # type: ignore[assignment]
        poolings: Sequence[str] = SPACE["pool"],  # type: ignore[assignment]
    ) -> None:
        super().__init__()
        values = (widths, depths, norms, activations, poolings)
        choices = {label: list(own) for label, own in zip(CHOICES, values, strict=True)}
        check_choices("ConvNetSpace", tuple(shape), num_classes, choices)
        for label, own in choices.items():
            self.add_mutable(nni.choice(label, own))

    @classmethod
    def create_fixed_module(
        cls, sample: Mapping[str, Any], shape: Sequence[int], num_classes: int, *choices: Any, **named: Any
    ) -> ConvNet:
        """Make the member that a sample names; NNI calls it instead of the constructor when it freezes a space."""
        return member(sample, tuple(shape), num_classes)

    def freeze(self, sample: Mapping[str, Any]) -> ConvNet:
        """Make the member that a sample names, with fresh weights from the global random state.

        Args:
            sample: label -> choice.

        Returns:
            The network, in training mode.
        """
        self.validate(sample)
        with model_context(sample):
            member: ConvNet = type(self)(*self.trace_args, **self.trace_kwargs)
        return member

    def forward(self, x: Tensor) -> Tensor:
        """Refuse: a space is many networks.

        Raises:
            OptionError: always.
        """
        raise OptionError("a ConvNetSpace is many networks and computes nothing itself; call space.freeze(sample)")

    def extra_oneshot_hooks(self, strategy: Any) -> list[Any]:
        """Refuse one-shot strategies, which would train without searching anything.

        Raises:
            OptionError: always.
        """
        raise OptionError(
            f"{type(strategy).__name__} cannot search a ConvNetSpace, which has no layers to mix; use Random, "
            "GridSearch, RegularizedEvolution or TPE, or a space built of LayerChoice"
        )


def architectures(space: ModelSpace, n: int, seed: int = 0) -> list[dict[str, Any]]:
    """Draw distinct architectures from a space, uniformly; no network is built.

    Args:
        space: any NNI model space.
        n: how many, at least 1.
        seed: of the draw; the first architectures of a longer draw are those of a shorter one.

    Returns:
        Samples, label -> choice, as ``space.freeze`` takes them.

    Raises:
        OptionError: ``n`` is below 1, or the space seems to have fewer architectures.

    Example:
        >>> [choice["width"] for choice in architectures(ConvNetSpace((3, 32, 32), 10), 4)]
        [128, 128, 256, 32]
    """
    mutables = list(space.simplify().values())

    def draw(state: RandomState) -> dict[str, Any] | None:
        sample: dict[str, Any] = {}
        try:
            for mutable in mutables:
                mutable.random(sample, state)
        except SampleValidationError:  # a constraint of the space is broken
            return None
        return sample

    return distinct(draw, n, seed)


def candidates(space: ModelSpace, samples: Sequence[Mapping[str, Any]]) -> Candidates:
    """Return samples of a space as :class:`ddplug.search.Study` and other loops take them, which know no NNI.

    Args:
        space: any NNI model space.
        samples: label -> choice each, as :func:`architectures` draws them.

    Example:
        >>> space = ConvNetSpace((1, 8, 8), 10, depths=(1,))
        >>> len(candidates(space, architectures(space, 3)).samples)
        3
    """
    simplified = SimplifiedModelSpace.from_model(space)
    # JSON-ready ones are what a journal knows, the others what the space takes
    known = {repr(plain(sample)): dict(sample) for sample in samples}

    def make(sample: Mapping[str, Any]) -> Any:
        # built anew each time: NNI's own spaces freeze into the weights that the space happens to have
        model = simplified.freeze(known[repr(plain(sample))])
        return lambda: model.executable_model()

    return Candidates([plain(sample) for sample in samples], make, {"space": describe_space(simplified)})
