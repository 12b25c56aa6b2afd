"""One account of what was tried on a set to learn of the data that it was made from, and what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ddplug import registry
from ddplug.data.anything import Data
from ddplug.data.labeled import LabeledData
from ddplug.distillation.callbacks import Callback
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import reduced_to
from ddplug.errors import DataError, DdplugError, OptionError
from ddplug.networks.factory import Network
from ddplug.networks.forms import AUTO, SUITED, form_of
from ddplug.privacy.attacks import (
    ATTACKS,
    Membership,
    as_of_members,
    by_person,
    check_classes,
    halves,
    judge,
    judge_one,
    rows,
    signals,
)
from ddplug.privacy.beside import Beside
from ddplug.privacy.canaries import KINDS, coins, joined, judge_canaries, plant
from ddplug.privacy.neighbors import Nearest, nearest, spaces
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import holds_real_images
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.statement import in_words, privacy_statement
from ddplug.utils.checks import as_python, whole
from ddplug.utils.devices import pick_device
from ddplug.utils.forecast import Forecast
from ddplug.utils.notes import note
from ddplug.utils.progress import progress
from ddplug.utils.randomness import nth_generator
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import duration, roughly, table

__all__ = ["Audit", "audit"]

_RECORDS = 2000
"""Records that are asked about, drawn at random, on each side."""

_LEAST = 4
"""Shadow sets: two pairs, so that a score is chosen on one and counted on the other."""

_NETWORKS = {**SUITED, "image": "convnet:width=32"}
"""Form of the inputs -> the network that ``"auto"`` stands for; many of them are trained."""

_FEWEST = 4 * len(KINDS)
"""Canaries: of each kind one is guessed to be in, and one to be out."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What was tried on a set and what was found; never that it is private.

    Attributes:
        provenance: what the file says: ``method``, ``real_images`` (``None`` where it does not say), ``real_start``
            and ``statement`` of differential privacy.
        nearest: how near stored samples are to training samples, in each space.
        membership: how well members can be told, in each way; empty without shadow sets.
        beside: the same of what else might be passed on, made of the same halves of the data: random samples in the
            set's bytes, stored as it is, and a network trained on all of a half; empty where that was not asked for.
        shadows: number of shadow sets.
        pairs: of the 16 stored samples with the least ratio in pixels and of the training samples next to them, one
            behind the other, as a set of real data, for pictures.
    """

    provenance: Mapping[str, Any]
    nearest: tuple[Nearest, ...]
    membership: tuple[Membership, ...]
    beside: tuple[Membership, ...]
    shadows: int
    pairs: SyntheticSet

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON-ready values."""
        return {
            "provenance": dict(self.provenance),
            "nearest": [each.to_json() for each in self.nearest],
            "shadows": self.shadows,
            "membership": [each.to_json() for each in self.membership],
            "beside": [each.to_json() for each in self.beside],
        }

    @property
    def tables(self) -> dict[str, list[tuple[str, ...]]]:
        """Tables by what they show, the head of each first."""
        said = self.provenance
        word = {True: "yes", False: "no", None: "not known"}
        found: dict[str, list[tuple[str, ...]]] = {
            "What the file says": [
                ("what", "value"),
                ("made by", said["method"] or "not known"),
                ("holds real samples", word[said["real_images"]]),
                ("started from real samples", word[said["real_start"]]),
                ("differential privacy", in_words(said["statement"]) if said["statement"] else "nothing is stated"),
            ],
            "Stored samples near training samples": [_NEAREST_HEAD, *map(_nearest_row, self.nearest)],
        }
        attacked = {"Membership": self.membership, "The same of what else might be passed on": self.beside}
        return found | {caption: rows(each) for caption, each in attacked.items() if each}

    @property
    def conclusion(self) -> str:
        """What was tried and found on two lines, and what that does not say."""
        return _conclusion(self)

    @property
    def text(self) -> str:
        """The account for people."""
        said, *found = self.tables.values()
        return "\n\n".join([table(said[1:]), *map(table, found), self.conclusion])


_NEAREST_HEAD = (
    "distance to training over that to held-out samples",
    "median",
    "least",
    "of held-out: median",
    "least",
    "nearer than all these",
    "by chance",
)


def _nearest_row(each: Nearest) -> tuple[str, ...]:
    ends = [f"{float(end):.3g}" for r in (each.ratios, each.reference) for end in (r.median(), r.min())]
    return (f"in {each.space}", *ends, f"{each.near} of {len(each.ratios)}", f"{each.by_chance:.2g}")


def _conclusion(found: Audit) -> str:
    """Say what was tried and found, and what that does not say."""
    tried = ["distances to training data in " + " and ".join(each.space for each in found.nearest)]
    hits = [f"{each.near} samples near training samples in {each.space}" for each in found.nearest if each.found]
    if found.membership:
        tried.append(f"membership by {found.shadows} shadow sets")
        tried += ["canaries"] if any(each.exposure is not None for each in found.membership) else []
        hits += [f"{_sought(each)} by {each.signal}" for each in found.membership if each.hit]
    what = ", ".join(dict.fromkeys(hits)) if hits else "nothing by these"
    return f"tried: {', '.join(tried)}\nfound: {what}; other attacks may find more, and only a proof excludes them"


def _sought(each: Membership) -> str:
    return f"membership in {each.target}" if each.target in ("shadow sets", "this set") else each.target


def _statement(synthetic: SyntheticSet) -> dict[str, Any]:
    """Return what the file says of itself."""
    made = synthetic.provenance
    config = made.get("config")
    start = config.get("init_from") if isinstance(config, Mapping) else None
    real = holds_real_images(made)
    method = made.get("method")
    return {
        "method": method if isinstance(method, str) else None,
        "real_images": real,
        "real_start": start != "noise" if isinstance(start, str) else True if real else None,
        "statement": privacy_statement(made),
    }


def _method(synthetic: SyntheticSet) -> Distiller:
    """Make the method that made a set, as its file says."""
    name, config = (synthetic.provenance.get(key) for key in ("method", "config"))
    try:
        cls = registry.resolve("distiller", str(name))
        known = {field.name for field in fields(cls)}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(config or {}).items()}
        made: Distiller = cls(**{key: value for key, value in given.items() if key in known})
    except (DdplugError, TypeError, ValueError) as error:
        raise OptionError(
            f"the method that made the set cannot be made again from what its file says ({error}); give "
            "distiller=, or shadows=0 (--shadows 0) to leave membership out"
        ) from None
    return made


def _remade(
    synthetic: SyntheticSet, method: Distiller, data: LabeledData, seed: int, callbacks: Sequence[Callback] = ()
) -> SyntheticSet:
    """Make a set as another was made, of other data."""
    said = synthetic.provenance
    steps = said.get("steps")
    made = distill(
        data,
        method,
        steps=steps if type(steps) is int else None,
        codec=None if synthetic.stored is None else synthetic.stored.codec,
        seed=seed,
        device=data.device,
        callbacks=callbacks,
    )
    if synthetic.stored is None:
        made = reduced_to(made, tuple(synthetic.inputs.shape[1:]))
        made = made if synthetic.levels is None else made.quantize(bits=synthetic.bits)
    return made


def _check_number(name: str, number: int, least: int) -> None:
    if number and (number < least or number % 2):
        raise OptionError(f"{name} is {number}; it must be 0, or an even number of at least {least}")


def _check_apart(data: LabeledData, held_out: LabeledData) -> None:
    """Refuse held-out data that nothing can be told by."""
    if len(held_out) < 2:
        raise DataError(
            f"the held-out data {held_out.name!r} have 1 sample; give at least 2, to measure distances to one part of "
            "them and to compare another with"
        )
    if held_out.fingerprint == data.fingerprint:
        raise DataError(
            f"the held-out data are the training data {data.name!r} themselves, by which nothing is found; give "
            "samples that had no part in the set, as the second part of data.split(0.2) if it was made from the first"
        )


def _tell_of_others(synthetic: SyntheticSet, data: LabeledData) -> None:
    """Say where a set was made from other data, as far as it tells: whose records are there is not found by these."""
    if synthetic.data_fingerprint not in (None, data.fingerprint):
        note(
            f"by its file the set was made from other data than {data.name!r} as given here, or from a part of them; "
            "less may be found than there is"
        )


def _check_canaries(canaries: int, held_out: LabeledData) -> None:
    """Refuse more canaries than can be made."""
    if 2 * canaries > len(held_out):
        raise OptionError(
            f"canaries is {canaries}; they are made of held-out samples, half of which are kept: it must be at most "
            f"{len(held_out) // 2}"
        )
    if canaries and held_out.num_classes < 2:
        raise OptionError("a canary has a wrong label, and there is one class only; leave canaries out")


def _numbered(persons: Sequence[Any] | Tensor | None, records: int) -> Tensor | None:
    """Number persons in the order of their first records."""
    if persons is None:
        return None
    listed = list(as_python(persons))
    if len(listed) != records:
        raise OptionError(f"persons names {len(listed)}, and there are {records} training records; name one for each")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(listed))}
    if len(numbers) == records:
        raise OptionError(
            f"persons names a different one for each of the {records} training records, so records are asked about "
            "already; leave persons out (--persons)"
        )
    return torch.tensor([numbers[name] for name in listed])


def _tell_of_both_sides(train: Sequence[str], held_out: Sequence[str]) -> None:
    """Say where held-out records are of persons who have training records too, and so are no strangers."""
    known = set(train)
    theirs = [person for person in held_out if person in known]
    if theirs:
        note(
            f"{len(theirs)} of {len(held_out)} held-out records are of {len(set(theirs))} persons who have training "
            "records too: they are nobody new, and less is found beside them; hold out whole persons, as by parts "
            "train and test that share none"
        )


def _some(data: LabeledData, number: int, rng: torch.Generator) -> Tensor:
    return torch.randperm(len(data), generator=rng)[:number].sort().values


def _membership(
    synthetic: SyntheticSet,
    method: Distiller,
    data: LabeledData,
    held_out: LabeledData,
    *,
    shadows: int,
    canaries: int,
    persons: Tensor | None,
    network: Network,
    seed: int,
    beside: bool,
    say: Callable[[str], object],
) -> tuple[list[Membership], list[Membership]]:
    """Make shadow sets and attack them, and the set, by means of them; the same of what stands beside it."""
    rng = nth_generator(seed, 0)
    inside = halves(data, shadows, rng, persons)
    check_classes(data, inside, "records" if persons is None else "persons")
    planted, tossed, held_out = _planted(held_out, canaries, shadows, nth_generator(seed, shadows + 2))
    asked, unseen = (_some(each, _RECORDS, rng) for each in (data, held_out))
    records = [data.subset(asked), held_out.subset(unseen), *([planted] if canaries else [])]
    seen: list[dict[str, Tensor]] = []
    others = Beside(synthetic, records[0], network, seed, shadows) if beside else None

    def look(made: SyntheticSet, n: int) -> dict[str, Tensor]:
        return signals(made, records, network, nth_generator(seed, n))

    def foretold(part: str, seconds: float) -> None:
        what = f"preparing ({part}) alone" if part else "each"
        say(f"{shadows} shadow sets: {what} takes about {roughly(seconds)}; fewer (--shadows), or none (0), take less")

    for k in progress(range(shadows), "shadow sets"):
        begun = time.monotonic()
        watching = [Forecast(foretold)] if k == 0 else []
        half = data.subset(inside[k].nonzero()[:, 0])
        part = joined(half, planted.subset(tossed[k].nonzero()[:, 0]))
        made = _remade(synthetic, method, part, seed + 1 + k, watching)
        seen.append(look(made, k + 1))
        if others is not None:
            others.look(half, k)
        if k == 0:
            took = (time.monotonic() - begun) * shadows
            say(f"{shadows} shadow sets of halves of the data will take about {duration(took)}")
    own = look(synthetic, shadows + 1)
    known = inside[:, asked]
    out = torch.cat([~known, as_of_members(shadows, len(unseen), rng)], 1)
    delta = (privacy_statement(synthetic.provenance) or {"delta": 0.0})["delta"]
    found = []
    for name in own:
        real, of_canaries = torch.stack([each[name] for each in seen]).tensor_split([out.shape[1]], 1)
        members = real[:, : len(asked)]
        found += [judge(name, members, known, attack) for attack in ATTACKS]
        found.append(judge_one(name, own[name][: out.shape[1]], real, out, len(asked)))
        if persons is not None:
            of_persons = [by_person(values, persons[asked]) for values in (members, known)]
            found += [judge(name, of_persons[0], of_persons[1] > 0.5, attack, "persons") for attack in ATTACKS]
        if canaries:
            found += judge_canaries(name, of_canaries, tossed, delta)
    return found, [] if others is None else others.judged(known)


def _planted(
    held_out: LabeledData, canaries: int, shadows: int, rng: torch.Generator
) -> tuple[LabeledData, Tensor, LabeledData]:
    """Return canaries, in which shadow sets each of them is, and the records that none was made of."""
    planted, rest = plant(held_out, canaries, rng)
    return planted, coins(halves(planted, shadows, rng), rng), rest


def _pairs(synthetic: SyntheticSet, data: LabeledData, found: Nearest) -> SyntheticSet:
    """Put the stored samples that are nearest to training samples, and these, one behind the other."""
    worst = found.ratios.argsort(stable=True)[:16]
    stored, labels = synthetic[:][0].cpu()[worst], synthetic.hard_targets.cpu()[worst]
    real = data.batch(found.positions[worst]).cpu()
    both = torch.stack([stored, real], 1).flatten(0, 1)
    names = synthetic.class_names
    return SyntheticSet(
        both, labels.repeat_interleave(2), synthetic.num_classes, synthetic.preprocess.to("cpu"), class_names=names
    )


@own_surroundings()
def audit(
    synthetic: AnySet,
    data: Data,
    held_out: Data,
    *,
    shadows: int = 16,
    canaries: int = 0,
    persons: Sequence[Any] | Tensor | None = None,
    distiller: Distiller | None = None,
    network: Network = AUTO,
    beside: bool = True,
    seed: int = 0,
    device: str | torch.device = "auto",
    say: Callable[[str], object] = lambda text: None,
) -> Audit:
    """Measure what a set gives away of single records of its data, by attacks.

    Args:
        synthetic: any set, or the file of one.
        data: the data that it was made from.
        held_out: at least two samples of the same kind that had no part in it.
        shadows: sets to make of random halves of the data, an even number of at least 4; each takes as long as the set
            took. 0 to leave membership out.
        canaries: records made to be found, which are put among the data of shadow sets
            (:mod:`ddplug.privacy.canaries`), an even number of at least 8; 0 for none. The more, the larger a bound on
            epsilon can be.
        persons: whose each training record is, to guess whether a person is among the data, as ``data.persons`` where
            they were loaded with it; by default it is nobody's.
        distiller: the method that made the set; by default what its provenance says.
        network: to train on sets, and at random for features; ``"auto"`` for convnet:width=32 where the set holds
            images, conv1d where it holds series, and mlp where it holds rows of numbers.
        beside: whether to attack in the same way what else might be passed on of the same halves of the data.
        seed: of all randomness.
        device: see :func:`ddplug.utils.devices.pick_device`.
        say: told the expected time, once the first shadow set is there.

    Returns:
        What was tried and found.

    Raises:
        OptionError: the number of shadow sets or of canaries is odd, too small or too large, persons do not fit the
            data, or the method cannot be made again.
        DataError: the data are not of the set's kind, or what is held out is too little or the data themselves.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)), toy_images((20, 20), seed=1)
        >>> made = distill(train, "random", images_per_class=3, device="cpu")
        >>> found = audit(made, train, rest, shadows=0, network="convnet:width=4,depth=1", device="cpu")
        >>> found.provenance["real_images"], found.nearest[0].near
        (True, 6)
    """
    synthetic = as_set(synthetic)
    shadows, canaries = whole("shadows", shadows), whole("canaries", canaries)
    _check_number("shadows", shadows, _LEAST)
    _check_number("canaries", canaries, _FEWEST)
    if not shadows and (canaries or persons is not None):
        raise OptionError(
            "canaries and persons are looked for in shadow sets, and shadows is 0; make at least 4 (--shadows 4, or "
            "--audit 4 of a report)"
        )
    method = (distiller or _method(synthetic)) if shadows else None
    network = _NETWORKS[form_of(synthetic.shape)] if network == AUTO else network
    place = pick_device(device)
    train, rest = (same_space(synthetic, each, what, place) for each, what in ((data, "train"), (held_out, "held-out")))
    _check_apart(train, rest)
    _tell_of_others(synthetic, train)
    _check_canaries(canaries, rest)
    whose = _numbered(persons, len(train))
    if whose is not None:
        _tell_of_both_sides(train.persons, rest.persons)
    rng = nth_generator(seed, 0)
    order = torch.randperm(len(rest), generator=rng)
    parts = [
        rest.subset(part.sort().values) for part in (order[len(order) // 2 :], order[: len(order) // 2][:_RECORDS])
    ]
    stored = synthetic[:][0].to(place)
    near = nearest(stored, train, parts, spaces(train, network, rng))
    found: list[Membership] = []
    others: list[Membership] = []
    if method is not None:
        options: dict[str, Any] = {"network": network, "seed": seed, "say": say, "persons": whose, "beside": beside}
        found, others = _membership(synthetic, method, train, rest, shadows=shadows, canaries=canaries, **options)
    pairs = _pairs(synthetic, train, near[0])
    return Audit(_statement(synthetic), tuple(near), tuple(found), tuple(others), shadows, pairs)
