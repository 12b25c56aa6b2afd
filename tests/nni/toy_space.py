"""Files and spaces small enough for tests; trials import this module."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images

with warnings.catch_warnings():
    # what NNI's layers say of new classes of torch
    warnings.filterwarnings("ignore", ".*is found to be not a nn.Module", RuntimeWarning)
    from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableLinear

SHAPE, CLASSES = (1, 8, 8), 3


def files(folder: Path, *, images: int = 8) -> tuple[Path, Path]:
    """Write a set of ``images`` a class and a real validation split of 60 samples in the same model space."""
    train, held = toy_images((48, 44, 40)).split(60 / 132)
    made = distill(train, Random(images_per_class=images), device="cpu")
    recipe = Recipe(epochs=20, learning_rate=0.05, schedule="constant", batch_size=16)
    sets = real_set(train), real_set(held)
    paths = folder / "train.safetensors", folder / "validation.safetensors"
    SyntheticSet(made.inputs, made.targets, CLASSES, made.preprocess, recipe).save(paths[0])
    assert sets[0].shape == SHAPE
    sets[1].save(paths[1])
    return paths


def real_set(data: Any) -> SyntheticSet:
    """Return real data as a set."""
    return SyntheticSet(data.batch(torch.arange(len(data))), data.targets, data.num_classes, data.preprocess)


class Crash(nn.Linear):
    """A layer that fails as soon as it is trained."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no such kernel")
        return super().forward(x)


class Hang(nn.Linear):
    """A layer that never comes back."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            time.sleep(600)
        return super().forward(x)


class Coin(nn.Linear):
    """A layer that learns nothing."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 0


KINDS = {"linear": nn.Linear, "crash": Crash, "hang": Hang, "coin": Coin}


class KindSpace(ModelSpace):
    """Linear classifiers, some of which do not behave."""

    def __init__(self, kinds: tuple[str, ...] = ("linear", "crash"), classes: int = CLASSES) -> None:
        super().__init__()
        self.head = LayerChoice({kind: KINDS[kind](64, classes) for kind in kinds}, label="kind")

    def forward(self, x: Tensor) -> Any:
        return self.head(x.flatten(1))


class WidthSpace(ModelSpace):
    """Two-layer networks of two widths."""

    def __init__(self, widths: tuple[int, ...] = (4, 16), inputs: int = 64, classes: int = CLASSES) -> None:
        super().__init__()
        import nni

        width = nni.choice("width", list(widths))
        self.body = MutableLinear(inputs, width)
        self.head = MutableLinear(width, classes)

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.body(x.flatten(1))))


class ColorSpace(ModelSpace):
    """Networks with a stem of three channels, as NNI's hub has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.head = LayerChoice({"linear": nn.Linear(4, CLASSES)}, label="head")

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.relu(self.stem(x)).mean((2, 3)))
