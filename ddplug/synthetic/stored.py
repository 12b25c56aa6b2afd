"""The images of a set as a codec stored them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from ddplug.data.preprocess import Preprocess
from ddplug.synthetic.codecs.protocol import Codec, codec_of, spec_of

__all__ = ["Stored", "store"]


@dataclass(frozen=True)
class Stored:
    """What a codec made of the images of a set.

    Attributes:
        codec: its name with options, e.g. ``"avif:quality=15"``.
        shape: of the samples that it was given.
        groups: numbers of successive samples that it was told belong together.
        streams: by name, each ``(n,)`` uint8 on the CPU.
        labels: the same of soft labels (:mod:`ddplug.functional.top_labels`), where these are stored so.
    """

    codec: str
    shape: tuple[int, ...]
    groups: tuple[int, ...]
    streams: Mapping[str, Tensor]
    labels: Mapping[str, Tensor] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Stored({self.codec!r}, {sum(self.groups)} x {self.shape}, {self.nbytes:,} bytes)"

    @property
    def nbytes(self) -> int:
        """Bytes of all streams."""
        return sum(stream.numel() for streams in (self.streams, self.labels) for stream in streams.values())

    def keep(self, labels: Sequence[int]) -> Stored | None:
        """Return the streams of some groups alone, without those of labels; ``None`` where that would lose more.

        Args:
            labels: positions of the groups, in any order.
        """
        kept = sorted(set(labels))
        streams = codec_of(self.codec).keep(self.streams, self.groups, self.shape, kept)
        groups = tuple(number if k in kept else 0 for k, number in enumerate(self.groups))
        return None if streams is None else Stored(self.codec, self.shape, groups, streams)

    def decode(self, preprocess: Preprocess) -> Tensor:
        """Decode the images.

        Args:
            preprocess: the map to model space.

        Returns:
            ``(M, *stored)`` float32 in model space, on the CPU.

        Raises:
            FormatError: the streams are not whole.
            OptionError: the codec is not known, or cannot hold such samples.
        """
        codec = codec_of(self.codec)
        codec.check(self.shape, preprocess.kind)
        return preprocess.to("cpu").forward(codec.decode(self.streams, self.groups, self.shape))


def store(codec: str | Codec, inputs: Tensor, groups: Sequence[int], preprocess: Preprocess) -> Stored:
    """Code images.

    Args:
        codec: name with options, or the codec itself.
        inputs: ``(M, *shape)`` in model space.
        groups: numbers of successive samples that belong together.
        preprocess: the map to model space.

    Returns:
        The streams.

    Raises:
        OptionError: the codec is not known, or cannot hold such samples.
    """
    made, shape = codec_of(codec), tuple(inputs.shape[1:])
    made.check(shape, preprocess.kind)
    pixels = preprocess.to("cpu").inverse(inputs.detach().cpu())
    return Stored(spec_of(made), shape, tuple(groups), made.encode(pixels, groups))
