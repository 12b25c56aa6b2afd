"""Your own folder of images as a stream: a folder a class, training and eval transforms, a memory of AVIF images."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.models import SimpleMLP
from avalanche_replay import compared, report, split
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, RandomCrop, Resize, ToTensor
from torchvision.transforms.functional import to_pil_image


def draw_folder(folder: Path, each: int, classes: int) -> None:
    """Write color images in a folder a class; yours take their place."""
    for name in ("train", "test"):
        x, y = split(name).tensors
        tint = torch.rand(len(x), 3, 1, 1, generator=torch.Generator().manual_seed(0))
        for label in range(classes):
            target = folder / name / f"digit-{label}"
            target.mkdir(parents=True)
            for place in (y == label).nonzero()[:each, 0].tolist():
                to_pil_image(0.1 * tint[place] + 0.9 * x[place]).save(target / f"{place}.png")


def main(epochs: int = 4, images: int = 4, each: int = 100, classes: int = 4) -> None:
    """Train three strategies on two experiences, and print a line for each."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_folder(folder, each, classes)
        benchmark = nc_benchmark(
            ImageFolder(str(folder / "train")),
            ImageFolder(str(folder / "test")),
            n_experiences=2,
            task_labels=False,
            shuffle=False,
            train_transform=Compose([Resize((32, 32)), RandomCrop(32, padding=2), ToTensor()]),
            eval_transform=Compose([Resize((32, 32)), ToTensor()]),
        )
        model = partial(SimpleMLP, classes, input_size=3 * 32 * 32)
        report(compared(model, benchmark, benchmark.train_stream, images, train_epochs=epochs))


if __name__ == "__main__":
    main()
