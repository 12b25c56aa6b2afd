"""The stream's own training transforms, taken on remembered rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import v2

from ddplug.avalanche import DistilledGDumb, DistilledReplay, DistilledReplayPlugin
from ddplug.avalanche.variations import own_variation
from ddplug.errors import OptionError
from tests.avalanche.streams import nc
from tests.avalanche.test_strategy import made, run, stream

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")

NORMAL = transforms.Normalize((0.5,), (0.25,))


class Negative:
    """A variation that is no accident."""

    def __call__(self, x: Tensor) -> Tensor:
        return 1 - x

    def __repr__(self) -> str:
        return "Negative()"


def first(train: Any, judged: Any) -> Any:
    return nc(train_transform=train, eval_transform=judged).train_stream[0].dataset


@pytest.mark.parametrize("compose", [transforms.Compose, v2.Compose])
def test_the_steps_beyond_eval_are_taken_before_the_normalization(compose: Any) -> None:
    dataset = first(compose([Negative(), NORMAL]), compose([NORMAL]))
    remembered = dataset.eval()[0][0]
    wanted = dataset.train()[0][0]
    assert torch.allclose(own_variation(dataset)(remembered), wanted, atol=1e-6)
    assert not torch.allclose(remembered, wanted)


def test_a_crop_fills_up_with_black() -> None:
    dataset = first(transforms.Compose([transforms.RandomCrop(8, padding=8), NORMAL]), NORMAL)
    variation = own_variation(dataset)
    row = torch.full((1, 8, 8), 2.0)
    assert {round(float(value), 3) for _ in range(9) for value in variation(row).unique()} == {-2.0, 2.0}


def test_steps_on_either_side_and_in_frozen_transforms_are_found() -> None:
    dataset = first(transforms.Compose([NORMAL, Negative()]), NORMAL).freeze_transforms()
    assert torch.allclose(own_variation(dataset)(dataset.eval()[0][0]), dataset.train()[0][0], atol=1e-6)


@pytest.mark.parametrize(
    ("train", "judged", "message"),
    [
        (NORMAL, NORMAL, "no step beyond eval"),
        (None, None, "no step beyond eval"),
        (transforms.Compose([Negative(), NORMAL]), None, "the same one normalization"),
        (transforms.RandomCrop(4), None, "makes .* of"),
        (transforms.ToTensor(), None, "do not take tensors"),
    ],
)
def test_what_cannot_be_taken_is_said(train: Any, judged: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        own_variation(first(train, judged))


@pytest.mark.parametrize("kind", [DistilledReplay, DistilledGDumb])
def test_a_strategy_varies_its_memory_as_the_stream_does(kind: Any) -> None:
    calls: list[int] = []

    class Counted(Negative):
        def __call__(self, x: Tensor) -> Tensor:
            calls.append(x.ndim)
            return super().__call__(x)

    experiences = stream(train_transform=Counted(), eval_transform=None).train_stream
    strategy = made(kind, augment="stream", mem_size=4)
    run(strategy, experiences[:1])
    before = len(calls)
    run(strategy, experiences[1:])
    of_the_stream = len(experiences[1].dataset) if kind is DistilledReplay else 0
    assert len(calls) - before - of_the_stream >= 16  # a batch of the memory


@pytest.mark.parametrize("kind", [DistilledReplay, DistilledGDumb])
def test_a_stream_that_does_not_vary_is_said_before_training(kind: Any) -> None:
    strategy = made(kind, augment="stream")
    with pytest.raises(OptionError, match="no step beyond eval"):
        run(strategy, stream().train_stream)
    assert strategy.clock.train_iterations == 0


def test_a_latent_memory_has_no_inputs_to_vary() -> None:
    with pytest.raises(OptionError, match="augment='stream', which varies inputs"):
        DistilledReplayPlugin(4, features="0", augment="stream")
