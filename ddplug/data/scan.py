"""What a folder of images means: its parts or its classes, its images, and what in it is not read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ddplug.errors import DataError
from ddplug.utils.notes import note
from ddplug.utils.text import os_reason

__all__ = ["Found", "formats", "parts", "roles", "scan"]

_JUNK = frozenset(
    {"__macosx", "__pycache__", "@eadir", "@recycle", "#recycle", "$recycle.bin", "system volume information"}
    | {"lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
)
"""What systems and servers leave behind; so is everything whose name begins with a dot."""

_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
"""What Pillow recognizes without reading it by itself: EPS runs another program, the others are stubs."""

_PREFIX = r"([^ _.-]+[ _.-])*"
_SUFFIX = r"s?([ _.-]?(set|data|images?|imgs?|split|\d+))?"
_ROLES = {
    "train": re.compile(rf"{_PREFIX}(train|training){_SUFFIX}", re.IGNORECASE),
    "test": re.compile(rf"{_PREFIX}(test|testing){_SUFFIX}", re.IGNORECASE),
    "val": re.compile(
        rf"{_PREFIX}(val|valid|validation|dev|eval|evaluation|(hold|held)[ _-]?out){_SUFFIX}", re.IGNORECASE
    ),
}
"""Part of a data set -> what its folder may be called."""

_MARKED = re.compile(
    r"(masks?|annotations?|labels?|segmentations?|bboxes|trimaps?|ground[ _-]?truths?|gt)", re.IGNORECASE
)
_PICTURES = re.compile(r"(images?|imgs?|pictures?|photos?|jpeg-?images)", re.IGNORECASE)
"""What folders are called that hold pictures, and what is marked in them."""


def formats() -> list[str]:
    """Return the names of all formats that Pillow reads by itself."""
    Image.init()
    return [name for name in Image.OPEN if name not in _NO_PICTURES]


def _endings() -> frozenset[str]:
    known = set(formats())
    return frozenset(ending for ending, name in Image.registered_extensions().items() if name in known)


@dataclass(frozen=True)
class Found:
    """What lies in a folder that holds one folder a class.

    Attributes:
        classes: their names, sorted.
        samples: path and class of every image, sorted by class and path.
        unread: paths of the other files, without those that systems leave behind.
    """

    classes: tuple[str, ...]
    samples: list[tuple[str, int]]
    unread: list[str]

    def said(self, path: Path) -> str | None:
        """Return one line about the files that are not read; ``None`` where there are none."""
        if not self.unread:
            return None
        kinds: dict[str, list[str]] = {}
        for file in self.unread:
            kinds.setdefault(os.path.splitext(file)[1].casefold(), []).append(file)
        most = sorted(kinds.items(), key=lambda kind: -len(kind[1]))
        some = ", ".join(
            f"{len(files)} {ending or 'without an extension'} ({os.path.relpath(files[0], path)})"
            for ending, files in most[:5]
        )
        more = f" and {len(most) - 5} kinds more" if len(most) > 5 else ""
        return f"{path}: {len(self.unread)} of {len(self.unread) + len(self.samples)} files are not read: {some}{more}"


def _listed(path: str | Path) -> tuple[list[str], list[str]]:
    """Return the names of the folders and of the files in a folder, sorted, without those that mean nothing."""
    try:
        with os.scandir(path) as entries:
            seen = sorted((entry.name, _is_folder(entry)) for entry in entries)
    except OSError as error:
        raise DataError(f"cannot read the folder {path}: {os_reason(error)}; make it readable or remove it") from None
    kept = [(name, folder) for name, folder in seen if not name.startswith(".") and name.casefold() not in _JUNK]
    return [name for name, folder in kept if folder], [name for name, folder in kept if not folder]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself leads nowhere, as one to what is gone
        return False


def _walk(path: str, above: frozenset[str] = frozenset()) -> Iterator[tuple[str, list[str]]]:
    """Go through a folder, links included, and give each folder in it and its files; a link upward ends there."""
    real = os.path.realpath(path)
    if real in above:
        return
    folders, files = _listed(path)
    yield path, files
    for name in folders:
        yield from _walk(os.path.join(path, name), above | {real})


def _is_image(name: str, endings: frozenset[str]) -> bool:
    return os.path.splitext(name)[1].casefold() in endings


def _holds_images(path: Path) -> bool:
    endings = _endings()
    return any(_is_image(name, endings) for _, files in _walk(str(path)) for name in files)


def roles(names: list[str]) -> dict[str, list[str]]:
    """Return the names that are called like each part of a data set: ``"train"``, ``"test"`` and ``"val"``."""
    return {role: [name for name in names if named.fullmatch(name)] for role, named in _ROLES.items()}


def _inside(path: Path) -> Path:
    """Return the folder that holds it all, where a folder has nothing but one of the same name, as archives do."""
    folders, files = _listed(path)
    return path / folders[0] if folders == [path.name] and not files else path


def parts(path: Path) -> dict[str, Path]:
    """Tell whether a folder holds the parts of a data set, and which.

    Args:
        path: the folder.

    Returns:
        Folders of ``"train"`` and ``"test"``; the second is that of validation data where there is none for tests, or
        none that holds classes. Empty where the folder holds classes.

    Raises:
        DataError: it is no folder, or can be read in two ways, which are both named.
    """
    if not os.path.isdir(path):  # the method of Path raises where a name is too long
        raise DataError(f"{path} is not a folder; give one that holds one folder of images for each class")
    folders, _ = _listed(path)
    called = roles(folders)
    train, held = called["train"], called["test"] + called["val"]
    if not train or not held:
        _refuse_half(path, folders, train, held)
        _refuse_parts_in_names(path, folders)
        return {}
    others = [name for name in folders if name not in train + held and _holds_images(path / name)]
    if others:
        raise DataError(
            f"{path} can be read in two ways: {_and(train + held)} as parts of a data set, or as classes beside "
            f"{_and(others)}; move either out of it"
        )
    for names in called.values():
        if len(names) > 1:
            raise DataError(f"{path} can be read in two ways: {_and(names)} mean the same part; rename or remove one")
    own = _with_classes(path, train)
    return {"train": own, "test": _with_classes(path, held, f"; or give imagefolder:{own} to split that", 2)}


def _with_classes(path: Path, names: list[str], otherwise: str = "", least: int = 1) -> Path:
    """Return the first of some folders that holds folders, ``least`` or more."""
    places = [_inside(path / name) for name in names]
    found = next((place for place in places if len(_listed(place)[0]) >= least), None)
    if found is None:
        has = _listed(places[0])[0]
        raise DataError(
            f"{path / names[0]} has {f'one class folder, {has[0]!r}' if has else 'no class folders'}; put its images "
            "into one folder for each class, or, if "
            f"{names[0]} is a class, give {path} under other names{otherwise}"
        )
    return found


def _refuse_half(path: Path, folders: list[str], train: list[str], held: list[str]) -> None:
    """Refuse parts of a data set that lack the other part."""
    if len(held) > 1 and len(held) == len(folders):
        raise DataError(f"{path} holds {_and(held)} but no train; add it, or give {path / held[0]} to read that alone")
    if folders and folders == train:
        where = path / train[0]
        if _listed(where)[0]:
            raise DataError(f"{path} holds {_and(train)} and no part to test on; give imagefolder:{where} to split it")


def _part_and_rest(name: str) -> tuple[str | None, tuple[str, ...]]:
    """Return what part of a data set a word of a name says, and the other words; ``train_cat``, ``catTrain``."""
    words = [word.casefold() for word in re.split(r"[\W_]+|(?<=[^\W\dA-Z_])(?=[A-Z])", name) if word]
    said = {word: role for word in words for role, named in _ROLES.items() if named.fullmatch(word)}
    if len(said) != 1:
        return None, ()
    return next(iter(said.values())), tuple(word for word in words if word not in said)


def _refuse_parts_in_names(path: Path, folders: list[str]) -> None:
    """Refuse folders each of which is a part of a data set and a class in one, or the part of one of several sets."""
    both = [_part_and_rest(name) for name in folders]
    train = {rest for role, rest in both if role == "train"}
    held = {rest for role, rest in both if role in ("test", "val")}
    if all(role for role, _ in both) and train & held:
        raise DataError(
            f"{path} can be read in two ways: {_and(folders[:5])} as classes, or as the parts of one or several data "
            "sets; put the classes into folders within train and test, or give them other names"
        )


def scan(path: Path) -> Found:
    """List the classes, the images and the rest of a folder that holds one folder a class.

    Args:
        path: the folder.

    Returns:
        What is there. Images are told by the endings of all formats that Pillow reads.

    Raises:
        DataError: it is no folder, has no class folders or one, holds the parts of a data set, or a class has no image.
    """
    own = parts(path)
    if own:
        both = _and([place.relative_to(path).parts[0] for place in own.values()])
        raise DataError(
            f"{path} holds the parts {both} of a data set, not classes; load_dataset('imagefolder:{path}') takes them, "
            f"or give {own['train']}"
        )
    folders, files = _listed(path)
    if not folders:
        raise DataError(f"{path} has no class folders; put the images of each class into a folder")
    if len(folders) == 1 and _holds_images(path / folders[0]):
        raise DataError(f"{path} has one class, {folders[0]!r}; at least 2 class folders are needed{_below(path)}")
    _refuse_marks(path, folders)
    endings, above = _endings(), frozenset({os.path.realpath(path)})
    samples: list[tuple[str, int]] = []
    unread = [os.path.join(path, name) for name in files]
    for label, name in enumerate(folders):
        _refuse_parts_within(path / name)
        count = len(samples)
        for place, inner in _walk(os.path.join(path, name), above):
            for file in inner:
                if _is_image(file, endings):
                    samples.append((os.path.join(place, file), label))
                else:
                    unread.append(os.path.join(place, file))
        if len(samples) == count:
            raise DataError(f"{path / name} has no image{_only(path / name, unread)}; add some or remove the folder")
    _look_for_parts(path, folders)
    return Found(tuple(folders), samples, unread)


def _look_for_parts(path: Path, folders: list[str]) -> None:
    """Look whether all classes hold the same folders: then these may be the classes, and those the parts.

    Raises:
        DataError: one of them is called like data to train on.
    """
    within = {tuple(_listed(path / name)[0]) for name in folders}
    inner = list(min(within))
    if len(folders) < 2 or len(within) > 1 or len(inner) < 2:
        return
    said = f"{path} can be read in two ways: {_and(folders[:5])} as classes, or as parts of a data set"
    if roles(folders)["train"]:
        raise DataError(f"{said} with the classes {_and(inner[:5])}; call the parts train and test, or read one alone")
    note(f"{said} with the classes {_and(inner[:5])}; they are read as classes")


def _refuse_marks(path: Path, folders: list[str]) -> None:
    """Refuse pictures beside what is marked in them, as data for detection and segmentation come."""
    marked = [name for name in folders if _MARKED.fullmatch(name)]
    pictures = [name for name in folders if _PICTURES.fullmatch(name)]
    if marked and pictures and len(marked) + len(pictures) == len(folders):
        raise DataError(
            f"{path} can be read in two ways: {_and(folders)} as classes, or as pictures and what is marked in them; "
            f"put the pictures of each class into a folder, give images:{path / pictures[0]} with --label-file, or "
            "give classes other names"
        )


def _only(folder: Path, unread: list[str]) -> str:
    """Say what lies in a class without an image."""
    files = [file for file in unread if Path(file).is_relative_to(folder)]
    return f" that Pillow reads, but {len(files)} other files ({os.path.basename(files[0])})" if files else ""


def _below(path: Path) -> str:
    """Say where classes are, where a folder holds nothing but the folder of a data set."""
    inner = path / _listed(path)[0][0]
    return f", or is imagefolder:{inner} meant?" if len(_listed(inner)[0]) > 1 else ""


def _refuse_parts_within(path: Path) -> None:
    called = roles(_listed(path)[0])
    held = called["test"] + called["val"]
    if called["train"] and held:
        raise DataError(
            f"the class {path} holds {_and(called['train'] + held)}, whose images would be mixed; put the parts "
            f"outermost, as in {path.parent / 'train' / path.name}"
        )


def _and(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
