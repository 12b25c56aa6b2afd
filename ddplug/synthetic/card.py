"""The data-set card of a synthetic set."""

from __future__ import annotations

import json
from typing import Any

from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.export import inspect
from ddplug.synthetic.ready import SOURCES, Ready, ready
from ddplug.synthetic.statement import in_words
from ddplug.utils.surroundings import own_surroundings

__all__ = ["card"]


@own_surroundings()
def card(synthetic: SyntheticSet, file: str = "set.safetensors") -> str:
    """Write a data set card: what the set is, how it was made, how to use it, what it is not for.

    Args:
        synthetic: any set.
        file: name of the set's file, for the example; that of a set which comes with the package adds its source.

    Returns:
        Markdown.

    Example:
        >>> import torch
        >>> from ddplug.data.preprocess import Identity
        >>> card(SyntheticSet(torch.zeros(2, 3), torch.tensor([0, 1]), 2, Identity())).splitlines()[0]
        '# Synthetic training set'
    """
    facts = inspect(synthetic)
    made, promised = synthetic.provenance, facts["privacy"]
    method, data = made.get("method"), made.get("data")
    data = data.get("name") if isinstance(data, dict) else data
    origin = [f"made by {_code(method)}" if method else "", f"from {_code(data)}" if data else ""]
    shape = " x ".join(map(str, synthetic.shape))
    soft = f"soft labels over {synthetic.num_classes} classes{' as float16' if synthetic.half_labels else ''}"
    labels = soft if facts["labels"] == "soft" else "class indices"
    storage = _code(facts["codec"]) if facts["codec"] else facts["storage"]
    psnr, real = facts["psnr"], {True: "yes", False: "no", None: "not known"}[facts["real_images"]]
    stored = " x ".join(map(str, facts["stored_shape"]))
    small = f" images of {stored}, enlarged when read" if synthetic.network_shape else ""
    fields = {
        name: tensor.tolist() if tensor.numel() <= 64 else f"{tensor.numel()} numbers, in the file"
        for name, tensor in synthetic.preprocess.tensors().items()
    }
    return "\n".join(
        [
            "# Synthetic training set",
            "",
            f"{len(synthetic)} samples of shape {shape} {' '.join(filter(None, origin))}".rstrip() + ".",
            "",
            "| | |",
            "|---|---|",
            f"| stored bytes, labels counted | {synthetic.nbytes:,} |",
            f"| bits per class | {synthetic.bits_per_class:,.0f} |",
            f"| stored as | {storage}{small}, {labels} |",
            *([f"| nearness to what was stored (PSNR) | {psnr:.1f} dB |"] if isinstance(psnr, int | float) else []),
            f"| holds real images | {real} |",
            *([f"| differential privacy | {in_words(promised)} |"] if promised else []),
            f"| values before preprocessing | {facts['pixel_range'][0]:.4g} to {facts['pixel_range'][1]:.4g} |",
            f"| share of them outside [0, 1] | {facts['outside_unit_range']:.1%} |",
            "",
            *_source(ready(file)),
            "## Classes",
            "",
            *_classes(synthetic, facts["samples_per_class"]),
            "",
            "## Use",
            "",
            "```python",
            "from ddplug import SyntheticSet",
            f"synthetic = SyntheticSet.load({file!r})  # a torch Dataset, in model space",
            "real = synthetic.preprocess.forward(pixels)  # real data must go through the same preprocessing",
            "```",
            "",
            "## Preprocessing",
            "",
            f"{_code(synthetic.preprocess.shown)}, from pixels ([0, 1] for data stored as bytes) to model space:",
            "",
            *_block(fields),
            "",
            "## Training recipe",
            "",
            *_block(facts["recipe"]),
            "",
            "## Provenance",
            "",
            *_block(facts["provenance"]),
            "",
            "## Limits",
            "",
            "- It stands in for the real data in training a classifier on them, not as a sample of them.",
            "- Accuracy depends on the network and the recipe; judge it on real test data, next to real samples of the",
            "  same bytes.",
            *(_PROMISED if promised else _UNPROMISED),
            "",
        ]
    )


_UNPROMISED = (
    "- It may show traits of single real samples; it is not anonymous, and the license of the real data applies.",
)
_PROMISED = (
    "- What it may tell of a single record is bounded as said above, if that is all that was published of the data;",
    "  epsilons of further releases add up. The license of the real data applies.",
)


def _source(known: Ready | None) -> list[str]:
    """Say where the real data of a set come from, what made it, and what was measured."""
    if known is None:
        return []
    source = SOURCES[known.source]
    return [
        "## Source",
        "",
        f"- Made from: [{source.title}]({source.url}), by {source.authors}.",
        f"- License of the set, which is that of these data: [{source.license}]({source.license_url}).",
        f"- Made by: `{known.command}`",
        f"- Accuracy on test data: {known.accuracy}",
        "",
    ]


def _classes(synthetic: SyntheticSet, counts: list[int], most: int = 100) -> list[str]:
    """Return the rows of the table of classes."""
    rows = [f"| {_code(name)} | {count} |" for name, count in zip(synthetic.class_names, counts, strict=True)]
    more = [f"| and {len(rows) - most} more | |"] if len(rows) > most else []
    return ["| class | samples |", "|---|---|", *rows[:most], *more]


def _code(text: object) -> str:
    """Quote text that may be hostile as Markdown code inside a table."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text)[:200])
    return "`" + (shown.replace("`", "'").replace("|", "/") or " ") + "`"


def _block(values: dict[str, Any]) -> list[str]:
    """Return a fenced block of JSON; no string in JSON can close the fence, for it cannot hold a line break."""
    return ["```json", json.dumps(values, indent=2, ensure_ascii=False), "```"]
