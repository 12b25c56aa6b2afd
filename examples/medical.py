"""Three images that teach a network to find ill patients: distillation of large X-ray images.

Large grey images are cut into patches of three classes: outside the organ, from healthy patients, from ill ones. One
image a class is distilled with a soft label; a network trained on the three alone judges the patches of new patients,
and the patches vote on each patient. The protocol is that of Li, Togo, Ogawa & Haseyama, "Soft-Label Anonymous Gastric
X-ray Image Distillation", ICIP 2020; that distilled images tell nothing about a patient is not proved there or here.
Patients' images cannot be shipped: these are phantoms, in which the folds of an organ run side by side in healthy
patients and in all directions in ill ones, with the same brightness and coarseness.

    python examples/medical.py
    python examples/medical.py --images DIR --masks DIR

reads your own: an image a patient in DIR/negative and DIR/positive, and masks of the organ under the same names.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

import ddplug
from ddplug.distillers import ClassMean, Random, SoftLabelDD
from ddplug.evaluation import train_as_learned
from ddplug.evaluation.train import train_each

CLASSES = ("irrelevant", "negative", "positive")
SIDE, STRIDE, SHRINK = 64, 32, 2
OUTSIDE, INSIDE = 0.01, 0.85
"""Shares of a patch in the organ below and above which it is trained with; those between only ever vote."""


@dataclass(frozen=True)
class Patient:
    """An image ``(H, W)`` and the organ's mask, in [0, 1], and whether the patient is ill."""

    image: Tensor
    mask: Tensor
    ill: bool


def _smooth(size: int, grain: int, rng: torch.Generator) -> Tensor:
    coarse = torch.randn(1, 1, grain, grain, generator=rng)
    return interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)[0, 0]


def _folds(size: int, disorder: float, rng: torch.Generator) -> Tensor:
    """A texture of one coarseness: waves side by side, mixed with waves of all directions, of deviation 1."""
    wave = 1 / 14
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    angle, phase = (2 * torch.pi * torch.rand(2, generator=rng)).tolist()
    along = x * torch.cos(torch.tensor(angle)) + y * torch.sin(torch.tensor(angle)) + 5 * _smooth(size, 4, rng)
    ordered = 2**0.5 * torch.sin(2 * torch.pi * wave * along + phase)
    frequency = torch.fft.fftfreq(size)
    ring = ((frequency[:, None].square() + frequency.square()).sqrt() - wave).abs() < 0.015
    mixed = torch.fft.ifft2(torch.fft.fft2(torch.randn(size, size, generator=rng)) * ring).real
    texture: Tensor = disorder**0.5 * mixed / mixed.std() + (1 - disorder) ** 0.5 * ordered
    return texture


def phantom(ill: bool, rng: torch.Generator, size: int = 256) -> Patient:
    """Draw a patient: an organ of some shape and brightness in a dim body, seen through noise."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    draw = torch.rand(5, generator=rng).tolist()
    across = (x - 0.3 * (draw[0] - 0.5)) / (0.45 + 0.25 * draw[1])
    down = (y - 0.3 * (draw[2] - 0.5)) / (0.45 + 0.25 * draw[3])
    mask = ((across.square() + down.square()).sqrt() + 0.1 * _smooth(size, 5, rng) < 1).float()
    disorder = 0.3 * draw[4] + (0.7 if ill else 0.0)
    image = 0.3 + 0.06 * _smooth(size, 4, rng) + mask * (0.2 + 0.09 * _folds(size, disorder, rng))
    noisy = image + 0.06 * torch.randn(size, size, generator=rng)
    return Patient(noisy.clamp(0, 1), mask, ill)


def read_patients(images: Path, masks: Path) -> list[Patient]:
    """Read one patient from each image, of any size, and the mask of its name."""
    folder = ImageFolder(str(images))
    if folder.classes != ["negative", "positive"]:
        raise SystemExit(f"{images} has the folders {', '.join(folder.classes)}; it must have negative and positive")
    patients = []
    for path, label in folder.samples:
        mask = masks / Path(path).relative_to(images)
        if not mask.exists():
            raise SystemExit(f"{mask} does not exist; give every image a mask of its name")
        grey = [pil_to_tensor(folder.loader(str(file)).convert("L"))[0] / 255 for file in (path, mask)]
        if grey[0].shape != grey[1].shape or min(grey[0].shape) < SIDE:
            raise SystemExit(f"{path} and its mask must be of one size, at least {SIDE} pixels a side")
        patients.append(Patient(grey[0], grey[1].round(), bool(label)))
    return patients


def cut(image: Tensor) -> Tensor:
    """Cut an ``(H, W)`` image into overlapping patches ``(n, 1, side, side)``, half as large for a quick example."""
    patches = image.unfold(0, SIDE, STRIDE).unfold(1, SIDE, STRIDE).reshape(-1, 1, SIDE, SIDE)
    return avg_pool2d(patches, SHRINK)


def training_patches(patients: Sequence[Patient]) -> ddplug.LabeledData:
    """Return the patches that lie outside the organ, or well inside it, with their three classes."""
    images, labels = [], []
    for patient in patients:
        share = cut(patient.mask).mean((1, 2, 3))
        label = torch.where(share > INSIDE, 1 + int(patient.ill), 0)
        keep = (share < OUTSIDE) | (share > INSIDE)
        images.append(cut(patient.image)[keep])
        labels.append(label[keep])
    pixels = (torch.cat(images) * 255).round().to(torch.uint8)
    return ddplug.from_arrays(pixels, torch.cat(labels), class_names=CLASSES, name="patches", augmentation="")


@torch.no_grad()
def vote(network: nn.Module, patient: Patient, data: ddplug.LabeledData) -> bool:
    """Call a patient ill if more patches look ill than healthy."""
    found = network(data.preprocess.forward(cut(patient.image))).argmax(1)
    return int((found == 2).sum()) > int((found == 1).sum())


def rates(network: nn.Module, patients: Sequence[Patient], data: ddplug.LabeledData) -> tuple[float, float, float]:
    """Return sensitivity, specificity and their harmonic mean."""
    right = {ill: [vote(network, p, data) == ill for p in patients if p.ill == ill] for ill in (True, False)}
    sensitivity, specificity = (sum(right[ill]) / len(right[ill]) for ill in (True, False))
    return sensitivity, specificity, 2 * sensitivity * specificity / max(sensitivity + specificity, 1e-9)


def split(patients: Sequence[Patient], rng: torch.Generator) -> tuple[list[Patient], list[Patient]]:
    """Put half of the ill and half of the healthy patients aside to be judged: patients, not patches."""
    parts: tuple[list[Patient], list[Patient]] = ([], [])
    for ill in (False, True):
        own = [patient for patient in patients if patient.ill == ill]
        if len(own) < 2:
            raise SystemExit(f"there are {len(own)} {CLASSES[1 + ill]} patients; give at least 2")
        for number, k in enumerate(torch.randperm(len(own), generator=rng).tolist()):
            parts[number % 2].append(own[k])
    return parts


def main(
    images: Path | None = None,
    masks: Path | None = None,
    *,
    patients: int = 120,
    steps: int = 600,
    whole_steps: int = 300,
    repeats: int = 3,
    network: str = "convnet:width=16",
) -> dict[str, list[tuple[float, float, float]]]:
    """Distill, train on the three images and on what they must beat, and judge patients nobody has seen."""
    rng = torch.Generator().manual_seed(0)
    if (images is None) != (masks is None):
        raise SystemExit("give both --images and --masks, or neither")
    if images is None or masks is None:
        everyone = [phantom(bool(k % 2), rng) for k in range(patients)]
    else:
        everyone = read_patients(images, masks)
    known, new = split(everyone, rng)
    data = training_patches(known)
    print(f"{len(known)} patients, {len(data)} patches of {data.shape[1]} pixels a side; {len(new)} new patients")
    found: dict[str, list[tuple[float, float, float]]] = {}
    bytes_of: dict[str, int] = {"all patches": data.inputs.numel()}
    method = SoftLabelDD(
        images_per_class=1, network=network, initialization="fixed", epochs=10, batch_real=128, steps=steps,
        init_from="real", learning_rate=0.02,
    )  # fmt: skip
    recipe = ddplug.Recipe.quick()
    for seed in range(repeats):
        sets = {
            "distilled, soft labels": ddplug.distill(data, method, seed=seed).quantize(),
            "random patches": ddplug.distill(data, Random(images_per_class=1), seed=seed),
            "mean patches": ddplug.distill(data, ClassMean(images_per_class=1)).quantize(),
        }
        sets["distilled, soft labels"].save(f"patches-{seed}.safetensors")
        for name, made in sets.items():
            fresh = torch.Generator().manual_seed(seed)
            learned = name.startswith("distilled")
            trained = train_as_learned(made) if learned else train_each([made], network, recipe, rng=fresh)[0]
            found.setdefault(name, []).append(rates(trained, new, data))
            bytes_of[name] = made.nbytes
        whole = train_each([data], network, recipe, rng=torch.Generator().manual_seed(seed), steps=whole_steps)[0]
        found.setdefault("all patches", []).append(rates(whole, new, data))
    print(f"{'trained on':24} {'bytes':>9}  sensitivity  specificity  harmonic mean")
    for name, results in found.items():
        cells = [f"{fmean(c):.2f} +- {stdev(c) if len(c) > 1 else 0:.2f}" for c in zip(*results, strict=True)]
        print(f"{name:24} {bytes_of[name]:9,}  {'  '.join(f'{cell:>11}' for cell in cells)}")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with negative/ and positive/, an image a patient")
    parser.add_argument("--masks", type=Path, help="folder with the organs' masks under the same names")
    arguments = parser.parse_args()
    main(arguments.images, arguments.masks)
