"""One account of what was tried on a set to learn of the data that it was made from, and what was found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ddplug import registry
from ddplug.data.anything import Data
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import Distiller
from ddplug.distillation.storage import reduced_to
from ddplug.errors import DdplugError, OptionError
from ddplug.networks.factory import Network
from ddplug.privacy.attacks import Membership, halves, judge, judge_one, rows, signals
from ddplug.privacy.neighbors import Nearest, nearest, spaces
from ddplug.synthetic.compat import same_space
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import holds_real_images
from ddplug.synthetic.given import AnySet, as_set
from ddplug.synthetic.statement import in_words, privacy_statement
from ddplug.utils.checks import whole
from ddplug.utils.devices import pick_device
from ddplug.utils.progress import progress
from ddplug.utils.randomness import nth_generator
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import duration, table

__all__ = ["Audit", "audit"]

_RECORDS = 2000
"""Records that are asked about, drawn at random, on each side."""

_LEAST = 4
"""Shadow sets: two pairs, so that a score is chosen on one and counted on the other."""


@dataclass(frozen=True, eq=False)
class Audit:
    """What was tried on a set and what was found; never that it is private.

    Attributes:
        provenance: what the file says: ``method``, ``real_images`` (``None`` where it does not say), ``real_start``
            and ``statement`` of differential privacy.
        nearest: how near stored samples are to training samples, in each space.
        membership: how well members can be told, in each way; empty without shadow sets.
        shadows: number of shadow sets.
        pairs: of the 16 stored samples with the least ratio in pixels and of the training samples next to them, one
            behind the other, as a set of real data, for pictures.
    """

    provenance: Mapping[str, Any]
    nearest: tuple[Nearest, ...]
    membership: tuple[Membership, ...]
    shadows: int
    pairs: SyntheticSet

    def to_json(self) -> dict[str, Any]:
        """Return it in JSON-ready values."""
        return {
            "provenance": dict(self.provenance),
            "nearest": [each.to_json() for each in self.nearest],
            "shadows": self.shadows,
            "membership": [each.to_json() for each in self.membership],
        }

    @property
    def text(self) -> str:
        """The account for people."""
        said = self.provenance
        word = {True: "yes", False: "no", None: "not known"}
        parts = [
            table(
                [
                    ("made by", said["method"] or "not known"),
                    ("holds real samples", word[said["real_images"]]),
                    ("started from real samples", word[said["real_start"]]),
                    ("differential privacy", in_words(said["statement"]) if said["statement"] else "nothing is stated"),
                ]
            ),
            table([_NEAREST_HEAD, *map(_nearest_row, self.nearest)]),
        ]
        if self.membership:
            parts.append(table(rows(self.membership)))
        return "\n\n".join([*parts, _conclusion(self)])


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
        hits += [f"membership in {each.target} by {each.signal}" for each in found.membership if each.interval[0] > 0.5]
    what = ", ".join(hits) if hits else "nothing by these"
    return f"tried: {', '.join(tried)}\nfound: {what}; other attacks may find more, and only a proof excludes them"


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


def _remade(synthetic: SyntheticSet, method: Distiller, data: LabeledData, seed: int) -> SyntheticSet:
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
    )
    if synthetic.stored is None:
        made = reduced_to(made, tuple(synthetic.inputs.shape[1:]))
        made = made if synthetic.levels is None else made.quantize(bits=synthetic.bits)
    return made


def _some(data: LabeledData, number: int, rng: torch.Generator) -> Tensor:
    return torch.randperm(len(data), generator=rng)[:number].sort().values


def _membership(
    synthetic: SyntheticSet,
    method: Distiller,
    data: LabeledData,
    held_out: LabeledData,
    *,
    shadows: int,
    network: Network,
    seed: int,
    say: Callable[[str], object],
) -> list[Membership]:
    """Make shadow sets and attack them, and the set, by means of them."""
    rng = nth_generator(seed, 0)
    inside = halves(data, shadows, rng)
    asked, unseen = (_some(each, _RECORDS, rng) for each in (data, held_out))
    records, strangers = data.subset(asked), held_out.subset(unseen)
    seen: list[dict[str, Tensor]] = []

    def look(made: SyntheticSet, n: int) -> dict[str, Tensor]:
        return signals(made, (records, strangers), network, nth_generator(seed, n))

    for k in progress(range(shadows), "shadow sets"):
        begun = time.monotonic()
        made = _remade(synthetic, method, data.subset(inside[k].nonzero()[:, 0]), seed + 1 + k)
        seen.append(look(made, k + 1))
        if k == 0:
            took = (time.monotonic() - begun) * shadows
            say(f"{shadows} shadow sets of halves of the data will take about {duration(took)}")
    own = look(synthetic, shadows + 1)
    known = inside[:, asked]
    # of a stranger, who is in no half, as many sets are compared with as of a member
    chosen = (torch.arange(shadows) % 2 == 0)[:, None].expand(shadows, len(unseen))
    found = []
    for name in own:
        values = torch.stack([each[name] for each in seen])
        found.append(judge(name, values[:, : len(asked)], known))
        found.append(judge_one(name, own[name], values, torch.cat([~known, chosen], 1), len(asked)))
    return found


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
    distiller: Distiller | None = None,
    network: Network = "convnet:width=32",
    seed: int = 0,
    device: str | torch.device = "auto",
    say: Callable[[str], object] = lambda text: None,
) -> Audit:
    """Measure what a set gives away of single records of its data, by attacks.

    Args:
        synthetic: any set, or the file of one.
        data: the data that it was made from.
        held_out: data of the same kind that had no part in it.
        shadows: sets to make of random halves of the data, an even number of at least 4; each takes as long as the set
            took. 0 to leave membership out.
        distiller: the method that made the set; by default what its provenance says.
        network: to train on sets, and at random for features.
        seed: of all randomness.
        device: see :func:`ddplug.utils.devices.pick_device`.
        say: told the expected time, once the first shadow set is there.

    Returns:
        What was tried and found.

    Raises:
        OptionError: the number of shadow sets is odd or too small, or the method cannot be made again.
        DataError: the data are not of the set's kind.

    Example:
        >>> from ddplug import distill
        >>> from ddplug.testing import toy_images
        >>> train, rest = toy_images((30, 30)), toy_images((20, 20), seed=1)
        >>> made = distill(train, "random", images_per_class=3, device="cpu")
        >>> found = audit(made, train, rest, shadows=0, network="convnet:width=4,depth=1", device="cpu")
        >>> found.provenance["real_images"], found.nearest[0].near
        (True, 6)
    """
    synthetic, shadows = as_set(synthetic), whole("shadows", shadows)
    if shadows and (shadows < _LEAST or shadows % 2):
        raise OptionError(f"shadows is {shadows}; it must be 0, or an even number of at least {_LEAST}")
    method = (distiller or _method(synthetic)) if shadows else None
    place = pick_device(device)
    train, rest = (same_space(synthetic, each, what, place) for each, what in ((data, "train"), (held_out, "held-out")))
    rng = nth_generator(seed, 0)
    order = torch.randperm(len(rest), generator=rng)
    parts = [
        rest.subset(part.sort().values) for part in (order[len(order) // 2 :], order[: len(order) // 2][:_RECORDS])
    ]
    stored = synthetic[:][0].to(place)
    near = nearest(stored, train, parts, spaces(train, network, rng))
    found: list[Membership] = []
    if method is not None:
        options: dict[str, Any] = {"shadows": shadows, "network": network, "seed": seed, "say": say}
        found = _membership(synthetic, method, train, rest, **options)
    return Audit(_statement(synthetic), tuple(near), tuple(found), shadows, _pairs(synthetic, train, near[0]))
