"""Real data kept apart to judge candidates by, in the same kind of file as a synthetic set."""

from __future__ import annotations

import torch

from ddplug.data.anything import Data, as_labeled
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.ranges import ranges
from ddplug.utils.surroundings import own_surroundings

__all__ = ["METHOD", "holdout"]

METHOD = "holdout"
"""The method that such a file names in its provenance."""


@own_surroundings()
def holdout(data: Data, cut_from: Data | None = None) -> SyntheticSet:
    """Turn real data into a set, to be saved with the distilled one and judged by wherever the data are not at hand.

    Choose nothing by test data: take the second part of :meth:`LabeledData.split
    <ddplug.data.LabeledData.split>`, and distill the first.

    Args:
        data: real data, see :func:`ddplug.data.as_labeled`; all of them are held in memory as float32.
        cut_from: the data that they are a part of; a set made from all of these has seen what it would be judged by,
            and is refused wherever this file judges.

    Returns:
        The same samples in the same order. Images that are bytes are stored as bytes, bit for bit.

    Example:
        >>> import ddplug
        >>> train, rest = ddplug.load_dataset("digits").split(0.2)
        >>> len(rest) == len(holdout(rest)), holdout(rest).provenance["method"]
        (True, 'holdout')
    """
    data = as_labeled(data)
    source = {"name": data.name, "fingerprint": data.fingerprint}
    if cut_from is not None:
        source["cut_from"] = as_labeled(cut_from).fingerprint
    made = SyntheticSet(
        data.batch(torch.arange(len(data))).cpu(),
        data.targets.cpu(),
        data.num_classes,
        data.preprocess.to("cpu"),
        class_names=data.class_names,
        provenance={"method": METHOD, "data": source, **ranges(data)},
    )
    return made.quantize() if data.inputs.dtype == torch.uint8 else made
