"""Distill your own images: a folder that holds one folder of pictures for each class."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits

import ddplug
from ddplug.distillers import DM
from ddplug.synthetic.export import to_image_folder, to_png


def make_folder(root: Path, classes: int = 3, number: int = 20) -> None:
    """Write real digits as PNG files, to stand for your own pictures."""
    digits = load_digits()
    for label in range(classes):
        folder = root / f"digit-{label}"
        folder.mkdir(parents=True)
        for n, image in enumerate(digits.images[digits.target == label][:number]):
            Image.fromarray((image / 16 * 255).astype("uint8")).save(folder / f"{n}.png")


def distill(images: Path, output: Path, steps: int) -> None:
    """Distill a folder of images to two a class, and write a file, a picture and a folder of images."""
    data = ddplug.from_image_folder(images)
    print(f"{len(data)} images of the classes {', '.join(data.class_names)}")
    method = DM(images_per_class=2, network="convnet:width=16,depth=1", steps=steps, pool_size=4)
    synthetic = ddplug.distill(data, method)
    synthetic.save(str(output / "own.safetensors"))
    to_png(synthetic, output / "own.png")
    to_image_folder(synthetic, output / "own")
    print(f"{len(synthetic)} distilled images are in {output}")


def main(images: str | None = None, output: str = ".", steps: int = 100) -> None:
    """Distill the images of a folder, or of a folder made for the purpose."""
    with tempfile.TemporaryDirectory() as made:
        if images is None:
            make_folder(Path(made))
        distill(Path(images or made), Path(output), steps)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
