"""What a distiller gives: a few images, their labels, and everything needed to train on them elsewhere."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from ddplug.data.preprocess import Preprocess
from ddplug.errors import DataError, FormatError, OptionError
from ddplug.functional import top_labels
from ddplug.functional.packing import BITS, check_bits, packed_bytes
from ddplug.functional.resize import enlarge
from ddplug.synthetic import checks, compression, file_format, quantize
from ddplug.synthetic.codecs.plain import FLOAT, Plain
from ddplug.synthetic.codecs.protocol import Codec, codec_of, spec_of
from ddplug.synthetic.compat import difference, first_difference, numbered, places, same_levels
from ddplug.synthetic.pictures import grid, image_bytes
from ddplug.synthetic.ready import locate
from ddplug.synthetic.recipe import Recipe
from ddplug.synthetic.stored import Stored
from ddplug.utils.checks import one_of, scalar, whole
from ddplug.utils.devices import named_device
from ddplug.utils.files import read_tensors, write_tensors
from ddplug.utils.pictures import as_html, drawable, first_of_each, opened
from ddplug.utils.surroundings import own_surroundings

__all__ = ["SyntheticSet", "load"]


@dataclass(frozen=True, eq=False)
class SyntheticSet(Dataset[tuple[Tensor, Tensor]]):
    """A synthetic set: a map-style torch ``Dataset`` that knows how it is to be used.

    Attributes:
        inputs: ``(M, *stored)`` float32, model space.
        targets: ``(M,)`` int64 class indices, or ``(M, num_classes)`` float32 soft labels (class probabilities).
        num_classes: number of classes.
        preprocess: the map that real data must go through before they meet a network trained on this set, and back.
        recipe: how to train on the set.
        class_names: one name a class.
        provenance: JSON-ready account of how the set was made: method, config, seed, steps, data, versions, seconds.
        levels: ``None`` for float32 storage; ``(2, C)`` float32 pixel values that the codes 0 and 255 stand for in
            each channel, where the inputs lie on equal levels between them (see :meth:`quantize`).
        network_shape: the shape that networks see. Images stored smaller than it (multi-formation) are brought to it by
            bilinear interpolation (:func:`ddplug.functional.enlarge`) whenever a sample is read by its index. ``()``
            where networks see what is stored.
        half_labels: whether the soft labels are stored as float16, whose values they then have.
        bits: that a number takes where there are levels, one of :data:`ddplug.functional.packing.BITS`: ``2**bits``
            levels.
        stored: where a codec holds the images (see :meth:`compress`), its streams, which decode to the inputs.

    Raises:
        DataError: shapes, labels or values that do not fit together; the message says which.
    """

    inputs: Tensor
    targets: Tensor
    num_classes: int
    preprocess: Preprocess
    recipe: Recipe = field(default_factory=Recipe)
    class_names: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    levels: Tensor | None = None
    network_shape: tuple[int, ...] = ()
    half_labels: bool = False
    bits: int = 8
    stored: Stored | None = None

    def __post_init__(self) -> None:
        none = checks.no_tensor(vars(self))
        if none:
            raise DataError(f"not a synthetic set: {none}")
        shape, names = tuple(self.network_shape), tuple(map(str, self.class_names))
        settled = {
            "num_classes": scalar(self.num_classes),
            "bits": 8 if self.levels is None and scalar(self.bits) in BITS else scalar(self.bits),
            "class_names": names or tuple(map(str, range(self.num_classes))),
            "network_shape": () if shape == tuple(self.inputs.shape[1:]) else shape,
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        problem = checks.problem(vars(self))
        if problem:
            raise DataError(f"not a synthetic set: {problem}")

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        labels = "hard" if self.targets.ndim == 1 else "soft"
        what = f"{len(self)} x {self.shape}, {self.num_classes} classes, {labels} labels, {self.nbytes:,} bytes"
        codec = "" if self.codec in (None, Plain.name) else f", {self.codec}"
        method = self.provenance.get("method")
        return f"SyntheticSet({what}{codec}{'' if method is None else f', by {reprlib.repr(method)}'})"

    @own_surroundings()
    def _repr_html_(self) -> str:
        if not drawable(self.shape):
            return as_html(repr(self))
        index = first_of_each(self.hard_targets, self.num_classes)
        inputs, targets = self.inputs.cpu()[index], self.targets.cpu()[index]
        some = replace(self.to("cpu"), inputs=inputs, targets=targets, stored=None, levels=None)
        return as_html(repr(self), self.class_names, image_bytes(some), some.hard_targets)

    def show(self, per_row: int = 10) -> Image.Image:
        """Draw the images, a class a row; see :func:`ddplug.synthetic.pictures.grid`.

        Args:
            per_row: images of a class, at least 1.

        Returns:
            A picture, which a notebook displays; ``.show()`` opens it in a window, ``.save("set.png")`` writes it.

        Raises:
            DataError: the inputs are not images with one or three channels.
            OptionError: ``per_row`` is below 1.

        Example:
            >>> SyntheticSet.load("digits-dm").show().size
            (113, 704)
        """
        return opened(grid(self, per_row))

    def __getitem__(self, index: Any) -> tuple[Tensor, Tensor]:
        inputs, whole = self.inputs[index], self.shape
        single = inputs.ndim < self.inputs.ndim
        return enlarge(inputs[None], whole)[0] if single else enlarge(inputs, whole), self.targets[index]

    @property
    def hard_targets(self) -> Tensor:
        """``(M,)`` int64: the labels, or the most probable class where they are soft."""
        return self.targets if self.targets.ndim == 1 else self.targets.argmax(1)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, as networks see it."""
        return self.network_shape or tuple(self.inputs.shape[1:])

    @property
    def codec(self) -> str | None:
        """What holds the images, as :meth:`compress` takes it; ``None`` where they are float32."""
        if self.stored is not None:
            return self.stored.codec
        return None if self.levels is None else spec_of(Plain(self.bits))

    @property
    def soft_type(self) -> torch.dtype:
        """Type that soft labels are stored as."""
        return torch.float16 if self.half_labels else torch.float32

    @property
    def nbytes(self) -> int:
        """Bytes that the file holds for the set: images, with all that a codec needs besides them, and labels.

        Without a codec inputs are float32 or a few bits a number, with their levels. A hard label takes one byte up to
        256 classes and four above; a soft label four a class, or two where ``half_labels`` says so. Labels of a set
        held by a codec are sorted: hard ones are stored as counts, soft ones as :meth:`compress` says. The
        preprocessing is not counted: whoever trains on the data needs it with or without this set.
        """
        if self.stored is not None:
            counted = self.hard_targets if self.stored.labels else self.targets
            return self.stored.nbytes + file_format.label_bytes(counted, self.num_classes, self.half_labels)
        soft = self.num_classes * self.soft_type.itemsize
        label = soft if self.targets.ndim == 2 else 1 if self.num_classes <= 256 else 4
        if self.levels is None:
            return self.inputs.numel() * 4 + len(self) * label
        return len(self) * (packed_bytes(self.inputs[0].numel(), self.bits) + label) + self.levels.numel() * 4

    @property
    def bits_per_class(self) -> float:
        """Bits that are stored for each class, the unit in which compressed sets are compared.

        Reference: Bao et al., "Dataset Distillation as Data Compression: A Rate-Utility Perspective", ICCV 2025.
        """
        return 8 * self.nbytes / self.num_classes

    @property
    def data_fingerprint(self) -> str | None:
        """Fingerprint of the real data that the set was made from; ``None`` where its provenance names none."""
        data = self.provenance.get("data")
        found = data.get("fingerprint") if isinstance(data, Mapping) else None
        return found if isinstance(found, str) else None

    @own_surroundings()
    def pixels(self) -> Tensor:
        """Return what networks see in pixel space, ``(M, *shape)``; synthetic pixels may lie outside ``[0, 1]``."""
        return self.preprocess.inverse(self[:][0])

    @own_surroundings()
    def enlarged(self) -> SyntheticSet:
        """Return the set with its images stored as networks see them, in float32; itself where they are."""
        if not self.network_shape:
            return self
        return replace(self, inputs=self[:][0], levels=None, stored=None, network_shape=())

    @own_surroundings()
    def reduced(self, factor: int) -> SyntheticSet:
        """Store the images smaller by a factor, averaged; networks go on seeing the shape they saw.

        A set of ``factor**2`` times as many images then takes the bytes of the whole ones: how any selection is
        compared with a method that learns small images.

        Raises:
            OptionError: see :func:`ddplug.functional.reduced_shape`.
            DataError: the preprocessing is ZCA.

        Example:
            >>> from ddplug.data.preprocess import Identity
            >>> made = SyntheticSet(torch.rand(8, 1, 4, 4), torch.arange(8) % 2, 2, Identity())
            >>> made.reduced(2).inputs.shape, made.reduced(2).shape
            (torch.Size([8, 1, 2, 2]), (1, 4, 4))
        """
        return self._of(compression.reduced(vars(self), factor))

    @own_surroundings()
    def compress(self, codec: str | Codec, labels: Literal["float16", "top3"] = "float16") -> SyntheticSet:
        """Let a codec hold the images: what it gives back takes their place, and what it stores is what they take.

        Samples are sorted by class first, unless they are stored one by one, as by ``"plain"`` (:meth:`quantize`).
        ``provenance["psnr"]`` says how near images are to what they were, in dB.

        Args:
            codec: a name from ``ddplug.names("codec")`` with options, as ``"avif:quality=15"`` for photographs,
                ``"pixels:bits=1,side=14"`` for drawings, or ``"plain:bits=2"`` for anything; or the codec itself.
            labels: how soft labels are stored: as float16, two bytes a class, or as ``"top3"``, which rounds them to
                three classes in fifteenths (:mod:`ddplug.functional.top_labels`) and takes one or two bytes for each.
                Labels that are rounded so already are stored so in any case.

        Returns:
            The set, whose :attr:`nbytes` are those of the streams and the labels.

        Raises:
            OptionError: the codec or an option is not known, or it cannot hold such samples; or ``labels`` is another
                word, or ``"top3"`` for labels that are no probabilities or where samples are stored one by one.

        Example:
            >>> from ddplug.data.preprocess import Identity
            >>> dots = (torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.9).float()
            >>> made = SyntheticSet(dots, torch.arange(50) % 2, 2, Identity()).compress("pixels:bits=1")
            >>> made.nbytes, made.quantize(bits=1).nbytes, made.bits_per_class
            (222, 458, 888.0)
        """
        one_of("way to store soft labels", labels, ("float16", "top3"))
        return self._of(compression.compressed(vars(self), codec_of(codec), labels))

    def _of(self, fields: Mapping[str, Any]) -> SyntheticSet:
        """Return the set of these fields: itself where they are its own."""
        return self if fields is vars(self) else replace(self, **fields)

    @own_surroundings()
    def to(self, device: torch.device | str) -> SyntheticSet:
        """Move every tensor to a device.

        Raises:
            OptionError: it is not known, or not present.
        """
        device = named_device(device)
        levels = None if self.levels is None else self.levels.to(device)
        preprocess = self.preprocess.to(device)
        inputs, targets = self.inputs.to(device), self.targets.to(device)
        return replace(self, inputs=inputs, targets=targets, preprocess=preprocess, levels=levels)

    @own_surroundings()
    def select(self, labels: Sequence[int]) -> SyntheticSet:
        """Keep the samples of some classes; labels and ``num_classes`` stay as they are.

        Raises:
            OptionError: a label is no number of a class of the set, or no sample is left.
        """
        if not isinstance(labels, Iterable) or isinstance(labels, str):
            raise OptionError(f"labels is {labels!r}; give a list of labels, as [0, 1]")
        labels = [whole("a label", label) for label in labels]
        for label in labels:
            if not 0 <= label < self.num_classes:
                raise OptionError(f"label {label} is outside 0..{self.num_classes - 1}")
        keep = torch.isin(self.hard_targets, torch.tensor(labels, dtype=torch.int64, device=self.inputs.device))
        if not bool(keep.any()):
            raise OptionError(f"the set has no sample of the classes {labels}")
        targets = self.targets[keep]
        by_class = self.stored is not None and (self.targets.ndim == 1 or bool(self.stored.labels))
        stored = self.stored.keep(labels) if self.stored is not None and by_class else None
        if stored is not None and targets.ndim == 2:
            stored = replace(stored, labels=top_labels.encode(targets) or {})
        return replace(self, inputs=self.inputs[keep], targets=targets, stored=stored)

    @own_surroundings()
    def merge(self, other: SyntheticSet) -> SyntheticSet:
        """Append another set of the same data: same shape, classes, kind of labels and preprocessing.

        Classes are told by their names, where both sets have names; they stay in the order that they have here.

        Sets quantized between different levels are merged as float32, soft labels of which one side is not float16 too;
        quantize the result again. Of different bits a number the larger ones are kept.

        Raises:
            DataError: the two do not fit together.
        """
        if not isinstance(other, SyntheticSet):
            raise DataError(
                f"a {type(other).__name__} is no set to merge with; give one, as of SyntheticSet.load(path)"
            )
        stored = first_difference(zip(("stored shape", "labels"), self._form(), other._form(), strict=True))
        problem = difference(self, other) or stored
        if problem:
            raise DataError(f"the sets cannot be merged, since they differ in {problem}")
        other = other.in_order_of(self.class_names)
        levels = self.levels if same_levels(self.levels, other.levels) else None
        return replace(
            self,
            inputs=torch.cat([self.inputs, other.inputs]),
            targets=torch.cat([self.targets, other.targets]),
            levels=levels,
            stored=None,
            bits=max(self.bits, other.bits),  # fewer bits lie on the levels of more
            half_labels=self.half_labels and other.half_labels,
            class_names=other.class_names if numbered(self.class_names) else self.class_names,
            provenance={"merged": [*self._parts(), *other._parts()]},
        )

    @own_surroundings()
    def in_order_of(self, class_names: Sequence[str]) -> SyntheticSet:
        """Number the classes as others of the same names are numbered; the set itself where they have no names.

        Args:
            class_names: the same names, perhaps in another order.

        Example:
            >>> from ddplug.data.preprocess import Identity
            >>> made = SyntheticSet(torch.rand(2, 4), torch.tensor([0, 1]), 2, Identity(), class_names=("ant", "bee"))
            >>> made.in_order_of(("bee", "ant")).targets
            tensor([1, 0])
        """
        found = places(class_names, self.class_names)
        if found is None:
            return self
        place = torch.tensor(found, device=self.targets.device)
        targets = place[self.targets] if self.targets.ndim == 1 else self.targets[:, place.argsort()]
        return replace(self, targets=targets, class_names=tuple(class_names), stored=None)

    def _form(self) -> tuple[tuple[int, ...], str]:
        """Return the shape that images are stored in, and the kind of their labels."""
        return tuple(self.inputs.shape[1:]), "hard" if self.targets.ndim == 1 else "soft"

    def _parts(self) -> list[Any]:
        """Return the provenance of each merged part; flat, so that a thousand merges are no deeper than one."""
        return list(self.provenance["merged"]) if set(self.provenance) == {"merged"} else [dict(self.provenance)]

    @own_surroundings()
    def quantize(self, dtype: Literal["uint8", "float32"] = "uint8", bits: int = 8) -> SyntheticSet:
        """Round the inputs to what fits in a byte each, on 256 equal levels a channel, and soft labels to float16.

        This is :meth:`compress` by the codec ``"plain"``. The levels, in pixel space, span the values present; for
        images they span at least ``[0, 1]``, so that real images stored as bytes come back bit for bit. No pixel moves
        by more than half a level. The root-mean-square error in model space is written to
        ``provenance["quantisation_rmse"]``. A quantized set is given back as it is.

        With fewer bits a number, images are rounded to ``2**bits`` equal levels a channel that make the squared error
        small (:func:`ddplug.functional.best_span`), and what lies outside is cut off. The bytes of one image
        then hold ``8 / bits``, which is often the better use of them.

        float16 keeps 11 significant bits, so that the small probabilities of many classes keep their order of magnitude
        (a byte each would make all below 1/510 zero). No probability moves by more than 1/4096; the largest error is
        written to ``provenance["label_error"]``.

        Args:
            dtype: ``"uint8"``, or ``"float32"`` to declare float32 storage again (the values stay rounded).
            bits: that a number takes as ``"uint8"``, one of :data:`ddplug.functional.packing.BITS`; below 8 for images
                only.

        Returns:
            A set a quarter of the size or smaller, its soft labels half. One of so few bits already is given back as it
            is.

        Raises:
            OptionError: the type or the bits are not among these, below 8 bits the inputs are not images or the
                preprocessing is ZCA, or the preprocessing is too ill-conditioned for bytes.

        Example:
            >>> from ddplug.data.preprocess import Identity
            >>> image = torch.tensor([0.1, 0.4, 0.7, 1.2]).view(1, 1, 2, 2)
            >>> made = SyntheticSet(image, torch.tensor([0]), 1, Identity()).quantize(bits=1)
            >>> made.inputs.flatten().tolist(), made.codes().flatten().tolist(), made.nbytes
            ([0.25, 0.25, 0.9500000476837158, 0.9500000476837158], [0, 0, 255, 255], 10)
        """
        if dtype == "float32":
            return self.compress(Plain(FLOAT))
        if dtype != "uint8":
            raise OptionError(f"dtype is {dtype!r}; it must be uint8 or float32")
        check_bits(bits, self.shape, self.preprocess.kind)
        return self.compress(Plain(bits))

    @own_surroundings()
    def codes(self) -> Tensor:
        """Compute the ``(M, *stored)`` uint8 codes of a quantized set; those of fewer bits than 8 span 0..255 as well.

        Raises:
            OptionError: the set is not quantized.
        """
        pixels = quantize.exact_pixels(self.preprocess, self.inputs)
        return quantize.codes(pixels, self._levels(), self.bits).to(self.inputs.device)

    @own_surroundings()
    def decode(self, codes: Tensor) -> Tensor:
        """Turn ``(M, *stored)`` uint8 codes into model-space inputs; the inverse of :meth:`codes`.

        The numbers are the same on every device and whatever samples are decoded together.
        """
        return quantize.decode(self.preprocess, codes, self._levels()).to(self.inputs.device)

    def _levels(self) -> Tensor:
        if self.levels is None:
            raise OptionError("the set is stored as float32; call quantize() first")
        return self.levels.cpu()

    @own_surroundings()
    def save(self, path: str | Path) -> None:
        """Write the set to one file (:mod:`ddplug.synthetic.file_format`); it is first read back in memory.

        Args:
            path: the file, ``.safetensors`` by convention; an existing one is replaced.

        Raises:
            OptionError: the path cannot be written.
            DataError: the set would not come back as it is.

        Example:
            >>> import tempfile
            >>> from ddplug.data.preprocess import Identity
            >>> made = SyntheticSet(torch.rand(2, 1, 4, 4), torch.tensor([0, 1]), 2, Identity())
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     made.save(folder + "/made.safetensors")
            ...     back = SyntheticSet.load(folder + "/made.safetensors")
            >>> torch.equal(made.inputs, back.inputs)
            True
        """
        own = self.to("cpu")
        tensors, header, version = file_format.encode(vars(own), None if own.levels is None else own.codes())
        try:
            back = file_format.decode(tensors, header)
        except FormatError as error:
            raise DataError(f"cannot save the set: {error}") from None
        for what in ("inputs", "targets"):
            if not torch.equal(back[what], vars(own)[what]):
                problem = f"its {what} do not lie on its levels; set levels=None and quantize again"
                if own.stored is not None:
                    problem = f"its {what} are not what its streams hold; set stored=None and compress again"
                raise DataError(f"cannot save the set: {problem}")
        write_tensors(path, file_format.KIND, tensors, header, version)

    @staticmethod
    @own_surroundings()
    def load(path: str | Path) -> SyntheticSet:
        """Read a set; the file is not trusted.

        Args:
            path: the file, or the name of a set that comes with the package (:data:`ddplug.synthetic.ready.READY`).

        Returns:
            The set, on the CPU, bit for bit what was saved.

        Raises:
            OptionError: the file does not exist or cannot be read.
            FormatError: it is not a whole and valid synthetic set, or it is from a newer version.

        Example:
            >>> SyntheticSet.load("mnist-8kB").nbytes
            7810
        """
        tensors, header = read_tensors(locate(path), file_format.KIND)
        try:
            return SyntheticSet(**file_format.decode(tensors, header))
        except (FormatError, DataError) as error:
            raise FormatError(f"{path} holds no valid synthetic set: {error}") from None


load = SyntheticSet.load
"""The same under the name that the face of the package hands out."""
