"""Learning through a codec: the loss sees what is decoded, the gradient passes, and a run is resumed bit for bit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import ddplug
from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import Distiller, Metrics, State
from ddplug.distillation.through import Through, through
from ddplug.distillers import DM, NCFM, SRe2L
from ddplug.distillers.parts.images import balanced_labels, to_set
from ddplug.distillers.soft_label_dd import SoftLabelDD
from ddplug.functional.resize import enlarge
from ddplug.synthetic import Recipe, SyntheticSet
from ddplug.synthetic.codecs import codec_of
from ddplug.testing import made_small, toy_images


@dataclass(frozen=True)
class Averages:
    """Moves the mean of each class's images to that of the class, by plain descent."""

    name: ClassVar[str] = "averages"
    images_per_class: int = 4
    steps: int = 60
    rate: float = 0.5

    def init(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        return {"inputs": torch.cat([data.sample(k, self.images_per_class, rng) for k in range(data.num_classes)])}

    def step(self, state: State, data: LabeledData, rng: torch.Generator) -> tuple[State, Metrics]:
        gap = distance(state["inputs"], data)
        moved = state["inputs"] - self.rate * gap.repeat_interleave(self.images_per_class, 0)
        return {**state, "inputs": moved}, {"loss": gap.square().sum()}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        return to_set(data, state["inputs"], balanced_labels(data, self.images_per_class), Recipe())


def distance(images: Tensor, data: LabeledData) -> Tensor:
    """Return how far the mean of each class's images is from that of the class, ``(C, *shape)``."""
    own = images.view(data.num_classes, -1, *images.shape[1:]).mean(1)
    return own - torch.stack([data.batch(members).mean(0) for members in data.class_indices])


@pytest.mark.parametrize(
    ("codec", "every"), [("pixels:bits=1", 1), ("pixels:bits=2,side=4", 1), ("avif:quality=20", 5)]
)
def test_the_step_is_taken_where_the_codec_leads_and_added_to_what_is_coded(codec: str, every: int) -> None:
    data, method = toy_images(), Averages(steps=12)
    learned = method.init(data, torch.Generator().manual_seed(0))["inputs"]
    labels = balanced_labels(data, 4)

    def decoded(images: Tensor) -> Tensor:
        made = SyntheticSet(images, labels, 3, data.preprocess).compress(codec)
        return enlarge(made.inputs, data.shape)

    seen = decoded(learned)
    for k in range(1, 13):
        step = 0.5 * distance(seen, data).repeat_interleave(4, 0)
        learned, seen = learned - step, seen - step
        if k % every == 0:
            seen = decoded(learned)
    made = ddplug.distill(data, method, codec=codec, device="cpu")
    wanted = SyntheticSet(learned, labels, 3, data.preprocess).compress(codec)
    torch.testing.assert_close(made.inputs, wanted.inputs)


def test_learning_through_the_rounding_is_better_than_rounding_what_was_learned() -> None:
    data = toy_images((30, 30, 30))
    method = Averages(steps=300, rate=0.01)
    after = ddplug.distill(data, method, device="cpu").compress("pixels:bits=1")
    within = ddplug.distill(data, method, codec="pixels:bits=1", device="cpu")
    errors = [float(distance(made.inputs, data).square().mean()) for made in (within, after)]
    assert errors[0] < 0.75 * errors[1]


@pytest.mark.parametrize(
    ("method", "codec"),
    [
        (DM(steps=7), "pixels:bits=2"),
        (NCFM(steps=6), "dct:step=30"),
        (SoftLabelDD(steps=6), "pixels:bits=4,side=4"),
        (SRe2L(steps=6), "avif:quality=60"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_run_through_a_codec_goes_on_bit_for_bit(method: Any, codec: str, tmp_path: Path) -> None:
    small = replace(made_small(method), steps=method.steps)
    options: dict[str, Any] = {"codec": codec, "device": "cpu"}
    straight = ddplug.distill(toy_images(), small, **options)
    ddplug.distill(toy_images(), small, steps=3, checkpoint=tmp_path / "run", **options)
    resumed = ddplug.distill(toy_images(), small, checkpoint=tmp_path / "run", **options)
    assert torch.equal(straight.inputs, resumed.inputs)
    assert torch.equal(straight.targets, resumed.targets)
    apart = ddplug.distill(toy_images(), small, device="cpu").compress(codec)
    assert not torch.equal(straight.inputs, apart.inputs)


@pytest.mark.parametrize("codec", ["pixels:bits=2,side=6", "avif:quality=30", "dct:step=40"])
def test_what_is_seen_is_what_is_decoded_in_the_end(codec: str) -> None:
    pixels = toy_images((9, 8, 7), channels=3, size=12).inputs.float() / 255
    own = codec_of(codec)
    seen = own.through(pixels, [24])
    assert torch.equal(seen, own.decode(own.encode(pixels, [24]), [24], (3, 12, 12)))


def test_methods_that_select_and_states_without_images_stay_as_they_are() -> None:
    selection: Distiller = ddplug.registry.resolve("distiller", "random")()
    assert through(selection, "pixels") is selection
    assert through(Averages(), None) == Averages()
    wrapped = through(Averages(), "pixels:bits=2")
    assert isinstance(wrapped, Through)
    assert (wrapped.steps, wrapped.images_per_class) == (60, 4)
    assert through(DM(), "pixels").real_images is False  # type: ignore[attr-defined]
