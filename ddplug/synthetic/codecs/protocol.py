"""What a codec is: a frozen dataclass of options that turns images into bytes, and bytes into images again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol, TypeAlias

from torch import Tensor

from ddplug import registry
from ddplug.errors import OptionError
from ddplug.utils import specs

__all__ = ["Codec", "Payload", "codec_of", "spec_of"]

Payload: TypeAlias = Mapping[str, Tensor]
"""Streams by name, each ``(n,)`` uint8 on the CPU: all that the images take in a file."""


class Codec(Protocol):
    """A way to store images: frozen options, each a number or a string with a default.

    What a codec stores besides the images themselves, such as ranges or tables, belongs to its streams, so that the
    bytes of a set are counted in full.

    Attributes:
        name: that it is registered under.
        every: steps of learning between two of :meth:`through`, in which what it changed is left as it is; 0 for a
            codec that what is learned does not go through.
    """

    name: ClassVar[str]
    every: ClassVar[int]

    def check(self, shape: tuple[int, ...], preprocess: str) -> None:
        """Refuse samples that the codec cannot hold.

        Args:
            shape: of a sample.
            preprocess: kind of the preprocessing.

        Raises:
            OptionError: the message says what can be used instead.
        """

    def encode(self, pixels: Tensor, groups: Sequence[int]) -> dict[str, Tensor]:
        """Code samples.

        Args:
            pixels: ``(M, *shape)`` float32 in pixel space, on the CPU.
            groups: numbers of successive samples that belong together, as those of a class.

        Returns:
            The streams.
        """

    def through(self, pixels: Tensor, groups: Sequence[int]) -> Tensor:
        """Return what :meth:`decode` would give of what :meth:`encode` gives, for learning through the codec.

        Args:
            pixels: see :meth:`encode`.
            groups: see :meth:`encode`.

        Returns:
            ``(M, *stored)`` float32 in pixel space.
        """

    def keep(
        self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...], kept: Sequence[int]
    ) -> dict[str, Tensor] | None:
        """Return the streams of some groups alone, such as those of some classes.

        Args:
            payload: the streams.
            groups: as they were given to :meth:`encode`.
            shape: of a sample, as it was given to :meth:`encode`.
            kept: positions of the groups to keep, in order.

        Returns:
            Streams that decode to the same samples; ``None`` where the codec cannot do that without a further loss.
        """

    def decode(self, payload: Payload, groups: Sequence[int], shape: tuple[int, ...]) -> Tensor:
        """Decode samples; the streams are not trusted.

        Args:
            payload: the streams.
            groups: as they were given to :meth:`encode`.
            shape: of a sample, as it was given to :meth:`encode`.

        Returns:
            ``(M, *stored)`` float32 in pixel space, where ``stored`` is the shape, or a smaller one for images.

        Raises:
            FormatError: the streams are not whole or do not fit groups and shape.
        """


def codec_of(spec: str | Codec) -> Codec:
    """Make the codec that a name with options stands for.

    Args:
        spec: e.g. ``"avif:quality=15"``; a codec is given back.

    Returns:
        The codec.

    Raises:
        OptionError: the name, an option or a value is not known.

    Example:
        >>> codec_of("pixels:bits=1,side=14")
        Pixels(bits=1, side=14)
    """
    if not isinstance(spec, str):
        return spec
    name, options = specs.parse("codec", spec)
    cls: type[Codec] = registry.resolve("codec", name)
    made: Codec = specs.build(f"codec {name!r}", cls, options)
    return made


def spec_of(codec: str | Codec) -> str:
    """Write a codec as a name with the options that differ from their defaults.

    Raises:
        OptionError: see :func:`codec_of`.

    Example:
        >>> spec_of("pixels:side=14,bits=8")
        'pixels:side=14'
    """
    made = codec_of(codec)
    if not hasattr(made, "name"):
        raise OptionError(f"{made!r} is not a codec; give a name such as 'avif:quality=15'")
    return specs.spec(made.name, made)
