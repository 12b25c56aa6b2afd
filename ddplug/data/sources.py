"""Files and folders that hold data sets, each by a scheme: ``csv:FILE``, ``imagefolder:DIR`` and the like.

Every scheme is a row of :data:`SCHEMES`. What it reads may have a test part; a fixed fifth of each class is held out
where it has none. The test part always goes through the preprocessing of the training part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image

from ddplug.data.decoding import MAX_MEMORY
from ddplug.data.images import Folder
from ddplug.data.items import LABELS
from ddplug.data.labeled import LabeledData
from ddplug.data.listed import Listed, persons_of
from ddplug.data.loaders import from_arrays, from_dataset, read_folder
from ddplug.data.npz import opened_npz
from ddplug.data.persons import Persons, owned
from ddplug.data.preprocess import Preprocess, fit
from ddplug.data.scan import parts, roles
from ddplug.data.tables import Table, read_csv, read_parquet
from ddplug.errors import DataError, MissingExtraError, OptionError, unknown
from ddplug.utils.paths import local
from ddplug.utils.text import known_by, one_line

__all__ = ["SCHEMES", "Source", "Wanted", "held_out", "read", "source_of"]

_HELD_OUT = 0.2
"""Share of each class that serves as the test split of data that come without one."""

_HUGGING_FACE = ({"dataset_dict.json"}, {"dataset_info.json", "state.json"})
"""Files that data sets of Hugging Face have, saved to a folder: several parts, or one."""

_FILES: Mapping[str, str] = {
    ".safetensors": "ddplug.SyntheticSet.load reads such a set; name the real data here",
    **dict.fromkeys((".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar"), "unpack it and give that"),
    **dict.fromkeys((".txt", ".data", ".dat"), "if it is a table with a header row, give csv:FILE"),
    ".npy": "np.savez('FILE.npz', x=inputs, y=labels) puts it and its labels into one file: give "
    "npz:FILE.npz, or call ddplug.from_arrays(inputs, labels)",
    "": "read its arrays in Python and call ddplug.from_arrays(inputs, labels)",
}
"""Ending of a file that no scheme reads -> what to do with it."""


@dataclass(frozen=True)
class Wanted:
    """What of a source is wanted, and how it is to be read; see :func:`ddplug.data.load_dataset`."""

    split: str = "train"
    size: tuple[int, int] | None = None
    target: str | None = None
    ignore: Sequence[str] = ()
    labels: str | os.PathLike[str] | None = None
    persons: Persons | None = None
    download: bool = False
    cache: str | Path | None = None
    max_memory: int = MAX_MEMORY
    progress: bool = False

    def check(self, name: str, takes: Iterable[str]) -> None:
        """Refuse options that a source has no use for.

        Raises:
            OptionError: one is given; the message says which sources take it.
        """
        for option in ("size", "target", "ignore", "labels"):
            if getattr(self, option) not in (None, (), []) and option not in takes:
                others = " and ".join(scheme.usage for scheme in SCHEMES.values() if option in scheme.takes)
                more = f"has the {option} it has" if option == "size" else "does not take it"
                raise OptionError(f"{option} is an option of {others}; {name!r} {more}: leave it out")

    @property
    def decoding(self) -> dict[str, Any]:
        """Options of what is decoded one by one."""
        return {"cache": self.cache, "max_memory": self.max_memory}


@dataclass(frozen=True)
class Scheme:
    """A way to hold a data set.

    Attributes:
        read: gives the wanted part of what lies at a place.
        takes: options of :class:`Wanted` that it has a use for.
        usage: how it is written.
        about: what it is, in a few words.
        endings: of files that are of this kind by their names.
    """

    read: Callable[[str, Wanted], LabeledData]
    takes: tuple[str, ...]
    usage: str
    about: str
    endings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A data set in a file or a folder.

    Attributes:
        scheme: a key of :data:`SCHEMES`.
        place: path of the file or folder, or a name on a hub.
    """

    scheme: str
    place: str


def source_of(name: str | os.PathLike[str], known: Sequence[str]) -> Source | None:
    """Return the file or folder that a name or a path means, or ``None`` for a name that is known.

    Args:
        name: as for :func:`ddplug.data.load_dataset`.
        known: names of registered data sets.

    Raises:
        OptionError: it is neither.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise OptionError(f"a {type(name).__name__} is not the name of a data set; give a name or a folder")
    text = os.fspath(name)
    scheme, colon, rest = text.partition(":")
    if colon and scheme in SCHEMES:
        return Source(scheme, local(rest) if rest else "")
    if text in known:
        return None
    place = local(name)
    if os.path.isdir(place):
        return Source(_scheme_of_folder(place), place)
    if os.path.isfile(place):
        return Source(_scheme_of(text, place), place)
    if isinstance(name, os.PathLike) or os.sep in text:
        raise OptionError(f"there is no file or folder {text}, nor a data set of that name; give imagefolder:DIR")
    names = [*known, *(scheme.usage for scheme in SCHEMES.values())]
    found = unknown("dataset", one_line(text, most=100), names)
    raise OptionError(f"{found}; nor is there a file or folder of that name")


def _scheme_of(text: str, place: str) -> str:
    """Tell a file's kind by its ending."""
    ending = os.path.splitext(place)[1].casefold()
    for name, scheme in SCHEMES.items():
        if ending in scheme.endings:
            return name
    raise OptionError(f"{text} is a file, not a data set; {_FILES.get(ending, _FILES[''])}")


def _scheme_of_folder(place: str) -> str:
    """Tell a folder's kind by the files that only one kind has; any that holds folders is one of images."""
    _, folders, files = next(os.walk(place), (place, [], []))  # what cannot be read is told where it is scanned
    if any(names <= set(files) for names in _HUGGING_FACE):
        return "hf"
    if any(not name.startswith(".") for name in folders):
        return "imagefolder"
    return next((name for name in ("csv", "parquet") if f"train.{name}" in files), "imagefolder")


def read(source: Source, wanted: Wanted) -> LabeledData:
    """Read a part of a data set.

    Args:
        source: where it is.
        wanted: the part, and how.

    Returns:
        The part, on the CPU.

    Raises:
        OptionError: an option is missing, or has no use here.
        DataError: the data are missing, damaged or unfit.
        MissingExtraError: a package is missing that reads them.
    """
    scheme = SCHEMES[source.scheme]
    wanted.check(f"{source.scheme}:{source.place}", scheme.takes)
    if not source.place:
        raise OptionError(f"{source.scheme}: names no place; write {scheme.usage}")
    return scheme.read(source.place, wanted)


def held_out(whole: LabeledData, split: str) -> LabeledData:
    """Split data that come in one piece, always in the same way, with the preprocessing fitted on the first part.

    Args:
        whole: the data, with any preprocessing.
        split: the wanted part, ``"train"`` or ``"test"``.
    """
    train, test = whole.split(_HELD_OUT, seed=0)
    preprocess = fit("standardize", train.inputs)
    return replace(train if split == "train" else test, preprocess=preprocess)


def _in_parts(
    make: Callable[[str, str | Preprocess], LabeledData | None],
    wanted: Wanted,
    test_as: Callable[[str], LabeledData | None] = lambda mode: None,
) -> LabeledData:
    """Return the wanted part of data that may have a test part, which ``make`` then gives; ``None`` where not.

    Of pictures ``test_as`` gives the test part read as Pillow's mode that it is given, ``"L"`` or ``"RGB"``.
    """
    test = make("test", "identity")
    if test is None:
        whole = make("train", "identity")
        assert whole is not None
        return held_out(owned(whole, wanted.persons), wanted.split)
    train = make("train", "standardize")
    assert train is not None
    if wanted.split == "train":
        return owned(train, wanted.persons)
    _check_classes(train.name, train.class_names, test.class_names)
    if test.shape[1:] == train.shape[1:] and {len(test.inputs[0]), len(train.inputs[0])} == {1, 3}:
        # as in folders, pictures to test are gray where those to train on are, and in color where those are
        test = test_as("L" if train.shape[0] == 1 else "RGB") or test
    test = test.arranged(train.columns, train.preprocess)
    if test.shape != train.shape:
        raise DataError(f"{train.name}: inputs to train on are {train.shape}, to test {test.shape}; make them equal")
    one, other = _scale(train), _scale(test)
    if one != other and (None not in (one, other) or torch.uint8 in (train.inputs.dtype, test.inputs.dtype)):
        raise DataError(
            f"{train.name}: values to train on are {one or 'normalized'}, to test {other or 'normalized'}; bring them "
            "to one range"
        )
    return test


def _scale(data: LabeledData) -> str | None:
    """Return the range of the values of images, where it is a usual one; bytes are read as 0..1."""
    found = data.value_range
    if found is None:
        return "0..1"
    ends = [set(end) for end in found]
    known = ((0.0, 255.0), (-1.0, 1.0))
    return next((f"{low:g}..{high:g}" for low, high in known if ends == [{low}, {high}]), None)


def _check_classes(name: str | Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    """Refuse parts of other classes."""
    for here, there, one, other in (("train", "test", train, test), ("test", "train", test, train)):
        there_too = set(map(known_by, other))
        only = [name for name in one if known_by(name) not in there_too]
        if only:
            more = f" and {len(only) - 5} more" if len(only) > 5 else ""
            raise DataError(
                f"{name}: the classes of train and test differ: {', '.join(only[:5])}{more} only in {here}; make them "
                f"equal in {here} and {there}"
            )


def _image_folder(place: str, wanted: Wanted) -> LabeledData:
    path = Path(place)
    found, name = parts(path), path.resolve().name
    if not found:
        otherwise = f"add some, or put what there is into {path}/train and {path}/test"
        return _pictures(Folder(path, wanted.size, wanted.progress), path, name, wanted, otherwise)
    folder = Folder(found["train"], wanted.size, wanted.progress)
    train = read_folder(folder, "standardize", name, **wanted.decoding)
    if wanted.split == "train":
        return replace(train, persons=_persons_of(folder, path, wanted))
    # read as the training part is, whatever the pictures themselves are
    folder = Folder(found["test"], wanted.size, wanted.progress, mode="L" if train.shape[0] == 1 else "RGB")
    _check_classes(path, train.class_names, folder.classes)
    test = read_folder(folder, "identity", name, **wanted.decoding)
    if test.shape != train.shape:
        raise DataError(
            f"{path}: the pictures of train are {_sides(train)}, those of test {_sides(test)} (height x width); give "
            "size=(height, width) (--size) to resize all images"
        )
    return replace(test, preprocess=train.preprocess, persons=_persons_of(folder, path, wanted))


def _persons_of(folder: Folder, path: Path, wanted: Wanted) -> tuple[str, ...]:
    """Return whose each picture is, as far as it is said; ``path`` is what names of pictures are relative to."""
    if wanted.persons is None:
        return ()
    if isinstance(wanted.persons, Path):
        return persons_of(folder, path, wanted.persons)
    if isinstance(wanted.persons, str) and isinstance(folder, Listed):
        return persons_of(folder, path, folder.labels, wanted.persons)
    what = f"{wanted.persons!r}: there is no such file" if isinstance(wanted.persons, str) else "a list"
    raise OptionError(
        f"persons is {what}, and pictures of {path} go by their names; give a CSV file with a column of file names and "
        "one of persons"
    )


def _sides(data: LabeledData) -> str:
    return " x ".join(map(str, data.shape[1:]))


def _pictures(folder: Folder, path: Path, name: str, wanted: Wanted, otherwise: str) -> LabeledData:
    """Read pictures that come without a test part; ``otherwise`` says what to do where there are too few."""
    fewest, count = folder.smallest()
    if count < 2:
        raise DataError(
            f"{path}: class {fewest!r} has {count} image; a fifth of each class is held out as the test part, "
            f"which takes at least 2: {otherwise}"
        )
    whole = read_folder(folder, "identity", name, **wanted.decoding)
    return held_out(replace(whole, persons=_persons_of(folder, path, wanted)), wanted.split)


def _images(place: str, wanted: Wanted) -> LabeledData:
    if wanted.labels is None:
        raise OptionError(
            f"which picture of {place} is of which class is not given; add labels=FILE.csv (--label-file FILE.csv), or "
            "give imagefolder:DIR, which has a folder for each class"
        )
    path = Path(place)
    folder = Listed(path, Path(local(wanted.labels)), wanted.target, wanted.size, wanted.progress)
    return _pictures(folder, path, path.resolve().name, wanted, "add some, or drop the rows of that class")


_ReadTable: TypeAlias = Callable[[Path, str | None, Sequence[str], int, str | None], Table]


def _table(read_table: _ReadTable, ending: str, place: str, wanted: Wanted) -> LabeledData:
    path = Path(place)
    column = wanted.persons if isinstance(wanted.persons, str) else None
    files = {part: path / f"{part}{ending}" if path.is_dir() else path for part in ("train", "test")}

    def make(part: str, preprocess: str | Preprocess) -> LabeledData | None:
        if part == "test" and not (path.is_dir() and files["test"].exists()):
            return None
        try:
            found = read_table(files[part], wanted.target, wanted.ignore, wanted.max_memory, column)
        except OptionError as error:
            if part == "train":
                raise
            raise OptionError(
                f"{error}; the test part is a table of the same columns: make it one, or give {files['train']} alone"
            ) from None
        _check_labels(files[part], found)
        made = from_arrays(found.inputs, found.labels, preprocess=preprocess, name=path.stem)
        return replace(made, columns=found.columns, target=found.target, persons=found.persons)

    return _in_parts(make, wanted)


def _check_labels(path: Path, table: Table) -> None:
    """Refuse a column that is no column of classes."""
    different = len(np.unique(table.labels))
    if len(table.labels) > 10 and different > len(table.labels) / 2:
        raise DataError(
            f"{path}: column {table.target!r} has {different} different values in {len(table.labels)} rows, too many "
            "for classes; name another target (--target), or cut the values into ranges"
        )


def _arrays(place: str, wanted: Wanted) -> LabeledData:
    with opened_npz(Path(place), wanted.max_memory) as make:
        return _in_parts(make, wanted)


def _hugging_face(place: str, wanted: Wanted) -> LabeledData:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(f"hf:{place} needs Hugging Face's datasets; run pip install datasets") from None
    if not os.path.isdir(place) and not wanted.download:
        raise OptionError(
            f"hf:{place} is not an existing folder, and a name on the Hugging Face hub is fetched only with "
            "download=True (--download)"
        )
    try:
        found = datasets.load_from_disk(place) if os.path.isdir(place) else datasets.load_dataset(place)
    except Exception as error:  # network, disk and parsers all have their own
        raise DataError(f"cannot read hf:{place}: {one_line(error, most=300)}") from error
    whole = found if isinstance(found, Mapping) else {"train": found}
    parts_of = roles(list(whole))
    tests = parts_of["test"] + parts_of["val"]
    if len(parts_of["train"]) != 1:
        raise DataError(f"hf:{place} has the parts {', '.join(whole)}, not train; give ddplug.from_dataset one")

    def make(part: str, preprocess: str | Preprocess, mode: str | None = None) -> LabeledData | None:
        if part == "test" and not tests:
            return None
        own = whole[tests[0] if part == "test" else parts_of["train"][0]]
        persons = _persons_in(own, wanted.persons, f"hf:{place}") if isinstance(wanted.persons, str) else ()
        if wanted.target is not None:
            own = _with_label(own, wanted.target, f"hf:{place}")
        if wanted.size is not None or mode is not None:
            own = own.with_transform(partial(_changed, wanted.size, mode))
        name = os.path.basename(os.path.normpath(place))
        made = from_dataset(own, preprocess=preprocess, name=name, progress=wanted.progress, **wanted.decoding)
        return replace(made, persons=persons)

    return _in_parts(make, wanted, lambda mode: make("test", "identity", mode))


def _persons_in(own: Any, column: str, where: str) -> tuple[str, ...]:
    """Return what a column says whose each item is."""
    if column not in own.column_names:
        raise OptionError(
            f"{unknown(f'column of {where}', column, own.column_names)}; nor is there a file of that name"
        )
    return tuple(map(str, own[column]))


def _with_label(own: Any, target: str, where: str) -> Any:
    """Keep one column of labels, under the name that labels go by."""
    if target not in own.column_names:
        raise unknown(f"column of {where}", target, own.column_names)
    kinds = {name: type(feature).__name__ for name, feature in own.features.items()}
    others = [name for name, kind in kinds.items() if name != target and (kind == "ClassLabel" or name in LABELS)]
    found = own.remove_columns(others)
    return found if target in LABELS else found.rename_column(target, LABELS[0])


def _changed(size: tuple[int, int] | None, mode: str | None, batch: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Bring the pictures among some items to one size, and to gray or color."""

    def changed(value: Any) -> Any:
        if not isinstance(value, Image.Image):
            return value
        value = value if mode is None else value.convert(mode)
        return value if size is None else value.resize(size[::-1], Image.Resampling.BILINEAR)

    return {column: list(map(changed, values)) for column, values in batch.items()}


SCHEMES: Mapping[str, Scheme] = {
    "imagefolder": Scheme(
        _image_folder,
        ("size",),
        "imagefolder:DIR",
        "Pictures, in one folder for each class, or in such folders within train and test.",
    ),
    "images": Scheme(
        _images, ("size", "labels", "target"), "images:DIR", "Pictures whose classes --label-file FILE.csv names."
    ),
    "csv": Scheme(
        lambda place, wanted: _table(read_csv, ".csv", place, wanted),
        ("target", "ignore"),
        "csv:FILE",
        "A table with a header row; --target names the column of labels.",
        (".csv", ".tsv"),
    ),
    "parquet": Scheme(
        lambda place, wanted: _table(read_parquet, ".parquet", place, wanted),
        ("target", "ignore"),
        "parquet:FILE",
        "The same as Parquet; needs pyarrow.",
        (".parquet",),
    ),
    "npz": Scheme(_arrays, (), "npz:FILE", "Arrays of NumPy, such as x and y, or those of MedMNIST.", (".npz",)),
    "hf": Scheme(
        _hugging_face,
        ("size", "target"),
        "hf:NAME",
        "A data set of the Hugging Face hub, or saved as a folder; needs datasets.",
    ),
}
"""What stands before the colon -> how such data are read."""
