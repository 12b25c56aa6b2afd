"""Real labeled data, kept as they came (uint8 stays uint8) and turned into model space a batch at a time."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from ddplug.data.cache import take
from ddplug.data.preprocess import Preprocess, pieces, to_pixels
from ddplug.errors import DataError, OptionError
from ddplug.utils.checks import values_at_least
from ddplug.utils.devices import named_device
from ddplug.utils.pictures import as_html, drawable, first_of_each, opened, sheet
from ddplug.utils.randomness import seeded
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import known_by

__all__ = ["LabeledData"]


@dataclass(frozen=True)
class _Range:
    """Values that images are known to have.

    Attributes:
        black: the least.
        white: the largest.
        least: that the largest value of the data is at least; resizing oversteps both ends a little.
    """

    black: float
    white: float
    least: float

    def fits(self, low: float, high: float) -> bool:
        slack = (self.white - self.black) / 8
        return low >= self.black - slack and self.least <= high <= self.white + slack


_RANGES = (_Range(0, 1, -1), _Range(-1, 1, -1), _Range(0, 255, 128))


_SHUFFLED = 1 << 15
"""Samples of a class up to which a few are drawn by shuffling all."""


def _different(size: int, n: int, rng: torch.Generator) -> Tensor:
    """Draw ``(n,)`` different numbers below a size that is much larger, without touching all of them."""
    found: dict[int, None] = {}
    while len(found) < n:
        found.update(dict.fromkeys(torch.randint(size, (n - len(found),), generator=rng).tolist()))
    return torch.tensor(list(found))


@dataclass(frozen=True, eq=False)
class LabeledData:
    """Real data: inputs as stored, labels, and the way to model space.

    Inputs are kept as they are stored, in memory, on a device or memory-mapped, so that MNIST takes 47 MB; a batch is
    turned into model space when it is drawn. So data in memory and data in a memory-mapped cache take
    one path and give the same values. Nothing writes to the inputs, and nothing else should.

    Attributes:
        inputs: ``(N, *shape)`` uint8 (pixel space after division by 255) or float32 (pixel space as it is).
        targets: ``(N,)`` int64 in ``0..num_classes-1``; the loaders see to it that every class is present.
        num_classes: number of classes.
        preprocess: from pixel space to model space.
        class_names: one name a class.
        name: short name, for provenance.
        augmentation: operations of :mod:`ddplug.functional.augmentation`, joined by ``_``, that keep the label of such
            data; ``""`` for none. Distillers and recipes told ``augment="auto"`` use it.
        scratch: for memory-mapped inputs the folder where a large :meth:`subset` is mapped in its turn; ``None``
            keeps subsets in memory.
        columns: names of the numbers of a row, where the data came as a table with a head; ``()`` otherwise.
        target: name of the column of labels there.
        persons: ``(N,)`` whose each sample is, where that was said; ``()`` otherwise. Nothing is learned from it.
    """

    inputs: Tensor
    targets: Tensor
    num_classes: int
    preprocess: Preprocess
    class_names: tuple[str, ...]
    name: str = "data"
    augmentation: str = ""
    scratch: str | None = None
    columns: tuple[str, ...] = ()
    target: str = ""
    persons: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        kind = str(self.inputs.dtype).removeprefix("torch.")
        what = f"{self.name!r}: {len(self)} x {self.shape} {kind}, {self.num_classes} classes, {self.preprocess.shown}"
        return f"LabeledData({what})"

    @own_surroundings()
    def _repr_html_(self) -> str:
        if not drawable(self.shape):
            return as_html(repr(self))
        some = self.subset(first_of_each(self.targets, self.num_classes))
        return as_html(repr(self), self.class_names, some._image_bytes(), some.targets)

    @own_surroundings()
    def show(self, per_row: int = 10) -> Image.Image:
        """Draw the first images of each class, a class a row.

        Args:
            per_row: images of a class, at least 1.

        Returns:
            A picture, which a notebook displays; ``.show()`` opens it in a window, ``.save("data.png")`` writes it.

        Raises:
            DataError: the inputs are not images with one or three channels.
            OptionError: ``per_row`` is below 1.

        Example:
            >>> from ddplug.data.datasets import load
            >>> load("digits").show(per_row=3).size
            (249, 704)
        """
        if not drawable(self.shape):
            raise DataError(f"samples of the shape {self.shape} are not images of one or three channels to be shown")
        values_at_least(1, per_row=per_row)
        some = self.subset(first_of_each(self.targets, self.num_classes, per_row))
        return opened(sheet(some._image_bytes(), some.targets, self.class_names, per_row))

    def _image_bytes(self) -> Tensor:
        """Return the images as they are drawn, ``(N, H, W)`` or ``(N, H, W, 3)`` uint8 on the CPU."""
        black, white = (torch.tensor(end).view(1, -1, 1, 1) for end in self.value_range or ([0.0], [1.0]))
        units = (to_pixels(self.inputs).cpu() - black) / (white - black)
        found = (units * 255).round().clamp(0, 255).to(torch.uint8)
        return found[:, 0] if self.shape[0] == 1 else found.permute(0, 2, 3, 1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, without the number of samples."""
        return tuple(self.inputs.shape[1:])

    @property
    def device(self) -> torch.device:
        """Device of every batch, and of the inputs, unless these are memory-mapped."""
        return self.inputs.device if self.inputs.is_meta else self.targets.device

    @cached_property
    def class_indices(self) -> tuple[Tensor, ...]:
        """Positions of the samples of each class, ``(n_c,)`` int64, ascending, on the CPU."""
        targets = self.targets.cpu()
        order = targets.argsort(stable=True)
        return torch.split(order, torch.bincount(targets, minlength=self.num_classes).tolist())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over inputs, labels and preprocessing: equal data have equal fingerprints."""
        head = (self.shape, str(self.inputs.dtype), self.num_classes, self.preprocess.kind)
        digest = hashlib.sha256(repr(head).encode())
        for tensor in (self.targets, *self.preprocess.tensors().values(), *pieces(self.inputs)):
            digest.update(tensor.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @cached_property
    def value_range(self) -> tuple[list[float], list[float]] | None:
        """What black and white are in each channel of floating-point images; ``None`` for 0 and 1, as of bytes.

        Told by all the values: 0 and 255, or -1 and 1, where they fit that; otherwise, as after a normalization by
        means and deviations, the least and the largest of each channel.
        """
        if self.inputs.ndim != 4 or self.inputs.dtype == torch.uint8 or self.inputs.numel() == 0:
            return None
        ends = [part.transpose(0, 1).flatten(1).aminmax(dim=1) for part in pieces(self.inputs)]
        low = torch.stack([end.min for end in ends]).amin(0).tolist()
        high = torch.stack([end.max for end in ends]).amax(0).tolist()
        known = next((known for known in _RANGES if known.fits(min(low), max(high))), None)
        if known is None:
            return low, [end if end > start else start + 1 for start, end in zip(low, high, strict=True)]
        return None if known.black == 0 and known.white == 1 else ([known.black] * len(low), [known.white] * len(low))

    def batch(self, index: Tensor) -> Tensor:
        """Return samples in model space.

        Args:
            index: ``(n,)`` int64 positions.

        Returns:
            ``(n, *shape)`` float32, on :attr:`device`.
        """
        if self.inputs.is_meta:
            return torch.empty(len(index), *self.shape, device="meta")
        return self.preprocess.forward(to_pixels(self.inputs[index.to(self.inputs.device)].to(self.device)))

    def labels(self, index: Tensor) -> Tensor:
        """Return the ``(n,)`` labels of samples at ``(n,)`` positions, on the device of :attr:`targets`."""
        return self.targets[index.to(self.targets.device)]

    def draw(self, label: int, n: int, rng: torch.Generator) -> Tensor:
        """Draw positions of samples of a class; none is repeated before all have been drawn.

        Args:
            label: class index.
            n: number of samples, at least 1.
            rng: generator on the CPU.

        Returns:
            ``(n,)`` int64 positions, on the CPU.

        Raises:
            DataError: the class has no sample, which only a :meth:`subset` can bring about.
        """
        members = self.class_indices[label]
        if len(members) == 0:
            raise DataError(f"class {self.class_names[label]!r} has no sample to draw; keep at least one of each class")
        if len(members) > _SHUFFLED and n <= len(members) // 8:
            return members[_different(len(members), n, rng)]
        rounds = -(-n // len(members))
        picks = torch.cat([torch.randperm(len(members), generator=rng, device=rng.device) for _ in range(rounds)])[:n]
        return members[picks]

    def sample(self, label: int, n: int, rng: torch.Generator) -> Tensor:
        """Draw samples of a class in model space; see :meth:`draw`.

        Args:
            label: class index.
            n: number of samples, at least 1.
            rng: generator on the CPU.

        Returns:
            ``(n, *shape)`` float32, on :attr:`device`.
        """
        return self.batch(self.draw(label, n, rng))

    def to(self, device: torch.device | str) -> LabeledData:
        """Move the data to a device; inputs that are memory-mapped stay, and are moved a batch at a time."""
        device = named_device(device)
        if device == self.device:
            return self
        inputs = self.inputs if self.scratch is not None else self.inputs.to(device)
        return replace(self, inputs=inputs, targets=self.targets.to(device), preprocess=self.preprocess.to(device))

    def shadow(self) -> LabeledData:
        """Return such data without their inputs' values: what draws from them draws the same, and computes nothing.

        Returns:
            Data on the device ``meta``, where results have a shape and no more; asking for a number raises an error.
            The labels are there.

        Example:
            >>> from ddplug.testing import toy_images
            >>> toy_images().shadow().sample(0, 2, torch.Generator().manual_seed(0)).device
            device(type='meta')
        """
        found = replace(self, inputs=self.inputs.to("meta"), preprocess=self.preprocess.to("meta"), scratch=None)
        vars(found)["class_indices"] = self.class_indices
        return found

    def subset(self, index: Tensor | Sequence[int]) -> LabeledData:
        """Keep the samples at some positions.

        Args:
            index: ``(n,)`` positions from 0, or ``(N,)`` truths that say which samples to keep; a tensor, an array or a
                list.

        Returns:
            Those samples in that order, with the preprocessing of the whole.

        Raises:
            OptionError: they are neither, or a position is outside the data.

        Example:
            >>> from ddplug.testing import toy_images
            >>> data = toy_images()
            >>> len(data.subset([3, 0])), data.subset(data.targets == 1).targets.unique().tolist()
            (2, [1])
        """
        index = self._positions(index)
        inputs = take(self.inputs, index.to(self.inputs.device), self.scratch)
        persons = tuple(self.persons[k] for k in index.tolist()) if self.persons else ()
        return replace(self, inputs=inputs, targets=self.labels(index), persons=persons)

    def _positions(self, index: Tensor | Sequence[int]) -> Tensor:
        """Return what samples are chosen by as ``(n,)`` int64 positions."""
        try:
            found = index if isinstance(index, Tensor) else torch.as_tensor(index, device="cpu")
        except (TypeError, ValueError, RuntimeError):
            raise OptionError(f"index is {reprlib.repr(index)}; give positions of samples, as [0, 2]") from None
        if found.dtype == torch.bool and found.shape == (len(self),):
            return found.nonzero()[:, 0]
        if found.ndim != 1 or (len(found) and (found.is_floating_point() or found.dtype == torch.bool)):
            raise OptionError(
                f"index has the shape {tuple(found.shape)} and the type {found.dtype}; give positions of samples, as "
                f"[0, 2], or a truth for each of the {len(self)}"
            )
        found = found.long()
        for bad in found[(found < 0) | (found >= len(self))][:1].tolist():
            raise OptionError(f"position {bad} is outside 0..{len(self) - 1} of {self.name}")
        return found

    def arranged(self, columns: tuple[str, ...], preprocess: Preprocess) -> LabeledData:
        """Put the columns of a table in the order that others have, by their names.

        Args:
            columns: names in the order that is wanted; ``()`` where it is not known.
            preprocess: for the numbers in that order.

        Returns:
            The data, with that preprocessing; in their own order where either has no names, or has one twice.

        Raises:
            DataError: the columns are not the same.

        Example:
            >>> from ddplug.data.loaders import from_arrays
            >>> data = replace(from_arrays([[1.0, 2.0], [3.0, 4.0]], [0, 1]), columns=("a", "b"))
            >>> data.arranged(("b", "a"), data.preprocess).inputs.tolist()
            [[2.0, 1.0], [4.0, 3.0]]
        """
        place = {known_by(name): k for k, name in enumerate(self.columns)}
        fewest = min(len(place), len(set(map(known_by, columns))))
        if columns == self.columns or fewest < max(len(columns), len(self.columns), 1):
            return replace(self, preprocess=preprocess)
        lacking = [name for name in columns if known_by(name) not in place]
        if lacking:
            raise DataError(f"{self.name}: column {lacking[0]!r} is missing; there are {', '.join(self.columns[:5])}")
        inputs = self.inputs[:, [place[known_by(name)] for name in columns]]
        return replace(self, inputs=inputs, columns=columns, preprocess=preprocess)

    @own_surroundings()
    def split(self, fraction: float, seed: int = 0) -> tuple[LabeledData, LabeledData]:
        """Split into training data and a held-out validation part, class by class.

        Choose anything on the second part, never on the test set.

        Args:
            fraction: share of each class to hold out, in (0, 1); at least one sample of a class goes to each side.
            seed: of the draw.

        Returns:
            Training part and validation part, each in the order of the whole.

        Raises:
            OptionError: the fraction is outside (0, 1).
            DataError: a class has fewer than two samples.
        """
        if not 0 < fraction < 1:
            raise OptionError(f"the held-out fraction is {fraction}; it must lie between 0 and 1")
        rng = seeded(seed)
        train, held = [], []
        for label, members in enumerate(self.class_indices):
            if len(members) < 2:
                name = self.class_names[label]
                raise DataError(f"class {name!r} has {len(members)} sample(s); a split needs at least 2: add some")
            members = members[torch.randperm(len(members), generator=rng)]
            cut = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held.append(members[:cut])
            train.append(members[cut:])
        return self.subset(torch.cat(train).sort().values), self.subset(torch.cat(held).sort().values)
