"""A training whose learning rates were learned with the set."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ddplug.errors import FormatError, OptionError
from ddplug.synthetic.dataset import SyntheticSet

__all__ = ["LearnedTraining"]


@dataclass(frozen=True)
class LearnedTraining:
    """How a set was learned to be trained on.

    Attributes:
        network: name of the architecture, with options.
        seed: of the one initial network that the set was learned for; ``None`` where it is for any.
        weights: :func:`~ddplug.utils.fingerprints.fingerprint` of that initial network; ``""`` where the set is for
            any.
        batches: positions of the samples of a step; the steps take them in turn.
        rates: learning rate of each step of plain gradient descent.
    """

    network: str
    seed: int | None
    weights: str
    batches: tuple[tuple[int, ...], ...]
    rates: tuple[float, ...]

    def __repr__(self) -> str:
        return f"LearnedTraining({self.network!r}, seed={self.seed}, {len(self.rates)} steps)"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {**asdict(self), "batches": [list(batch) for batch in self.batches], "rates": list(self.rates)}

    @classmethod
    def of(cls, synthetic: SyntheticSet) -> LearnedTraining:
        """Read what a set's provenance says.

        Raises:
            OptionError: it says nothing, or the set has other samples now, as after ``select`` or ``merge``.
            FormatError: it is not what a distiller writes.
        """
        values = synthetic.provenance.get("training")
        if values is None:
            raise OptionError(
                "the set's provenance has no 'training': it was not made by dd or soft-label-dd, or was merged; "
                "train on it by its recipe"
            )
        training = cls._from_json(values)
        positions = sorted(k for batch in training.batches for k in batch)
        if positions != list(range(len(synthetic))):
            raise OptionError(
                f"the set has {len(synthetic)} samples and its learned training takes {len(positions)}; "
                "use the whole set as it was distilled"
            )
        return training

    @classmethod
    def _from_json(cls, values: Any) -> LearnedTraining:
        if not isinstance(values, Mapping) or set(values) != {f.name for f in fields(cls)}:
            raise FormatError(f"the set's 'training' is {reprlib.repr(values)}, not what dd writes")
        seed, rates, batches = values["seed"], values["rates"], values["batches"]
        fine = (
            isinstance(values["network"], str)
            and isinstance(values["weights"], str)
            and (seed is None or _whole(seed))
            and _is_list(rates)
            and all(isinstance(rate, (int, float)) for rate in rates)
            and _is_list(batches)
            and len(batches) > 0
            and all(_is_list(batch) and len(batch) > 0 and all(map(_whole, batch)) for batch in batches)
        )
        if not fine:
            raise FormatError(f"the set's 'training' is {reprlib.repr(values)}: a field is of the wrong type")
        return cls(
            values["network"], seed, values["weights"], tuple(map(tuple, batches)), tuple(float(rate) for rate in rates)
        )


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
