"""Three images that teach a network to find ill patients: distillation of large X-ray images.

Large gray images are cut into patches of three classes: outside the organ, from healthy patients, from ill ones. One
image a class is distilled with a soft label; a network trained on the three alone judges the patches of new patients,
and the patches vote on each patient. The protocol is that of Li, Togo, Ogawa & Haseyama, "Soft-Label Anonymous Gastric
X-ray Image Distillation", ICIP 2020; that distilled images tell nothing about a patient is not proved there or here.
So beside it stand a set made with differential privacy, and for each set whether an audit finds its images to be near
patches of patients. Patients' images cannot be shipped: these are phantoms, in which the folds of an organ run side by
side in healthy patients and in all directions in ill ones, with the same brightness and coarseness.

    python examples/medical.py            # some minutes; writes medical.png
    python examples/medical.py --images DIR --masks DIR

reads your own: an image a patient in DIR/negative and DIR/positive, and masks of the organ under the same names.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, cast

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

import ddplug
from ddplug.data.preprocess import Standardize
from ddplug.distillation import ProgressBar
from ddplug.distillers import DPDM, ClassMean, Random, SoftLabelDD
from ddplug.evaluation import train_as_learned
from ddplug.evaluation.train import train_each
from ddplug.privacy import audit
from ddplug.synthetic import SyntheticSet

CLASSES = ("irrelevant", "negative", "positive")
SIDE, STRIDE, SHRINK = 64, 32, 2
OUTSIDE, INSIDE = 0.01, 0.85
"""Shares of a patch in the organ below and above which it is trained with; those between only ever vote."""

KNOWN = (0.35, 0.1)
"""Brightness of such images and its deviation, as they are known without looking at any patient's."""


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
        gray = [pil_to_tensor(folder.loader(str(file)).convert("L"))[0] / 255 for file in (path, mask)]
        if gray[0].shape != gray[1].shape or min(gray[0].shape) < SIDE:
            raise SystemExit(f"{path} and its mask must be of one size, at least {SIDE} pixels a side")
        patients.append(Patient(gray[0], gray[1].round(), bool(label)))
    return patients


def cut(image: Tensor) -> Tensor:
    """Cut an ``(H, W)`` image into overlapping patches ``(n, 1, side, side)``, half as large for a quick example."""
    patches = image.unfold(0, SIDE, STRIDE).unfold(1, SIDE, STRIDE).reshape(-1, 1, SIDE, SIDE)
    return avg_pool2d(patches, SHRINK)


def labeled(patient: Patient) -> tuple[Tensor, Tensor]:
    """Return the patches of a patient that lie outside the organ, or well inside it, and their classes."""
    share = cut(patient.mask).mean((1, 2, 3))
    keep = (share < OUTSIDE) | (share > INSIDE)
    return cut(patient.image)[keep], torch.where(share > INSIDE, 1 + int(patient.ill), 0)[keep]


def training_patches(patients: Sequence[Patient]) -> ddplug.LabeledData:
    """Return the labeled patches of all patients as data of three classes."""
    images, labels = zip(*map(labeled, patients), strict=True)
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


def draw(patients: Sequence[Patient], data: ddplug.LabeledData, sets: Mapping[str, SyntheticSet]) -> Figure:
    """Draw a healthy and an ill patient with the organ's edge, a real patch a class, and the images of sets."""
    figure = Figure(figsize=(9, 5.6), dpi=100, layout="constrained", facecolor="white")
    left, right = cast(Sequence[Any], figure.subfigures(1, 2, width_ratios=(1, 1.6)))
    for axes, ill in zip(left.subplots(2, 1), (False, True), strict=True):
        patient = next(patient for patient in patients if patient.ill == ill)
        axes.imshow(patient.image.numpy(), cmap="gray", vmin=0, vmax=1)
        axes.contour(patient.mask.numpy(), levels=[0.5], colors="#E69F00", linewidths=1)
        axes.set_title("ill" if ill else "healthy", fontsize="medium")
        axes.set_axis_off()
    real = torch.stack([data.inputs[members[len(members) // 2]] for members in data.class_indices]) / 255
    rows: dict[str, tuple[Tensor, Tensor | None]] = {"a real patch": (real, None)}
    for name, made in sets.items():
        first = [int((made.hard_targets == label).nonzero()[0]) for label in range(len(CLASSES))]
        rows[name] = made.pixels()[first], made.targets[first] if made.targets.ndim == 2 else None
    grid = right.subplots(len(rows), len(CLASSES))
    for axes, (name, (images, labels)) in zip(grid, rows.items(), strict=True):
        for k, cell in enumerate(axes):
            cell.imshow(images[k, 0].clamp(0, 1).numpy(), cmap="gray", vmin=0, vmax=1)
            cell.set_xticks([])
            cell.set_yticks([])
            if labels is not None:
                cell.set_xlabel(" / ".join(f"{100 * share:.0f}" for share in labels[k].softmax(0)), fontsize="small")
        axes[0].set_ylabel(name, fontsize="small")
    for cell, name in zip(grid[0], CLASSES, strict=True):
        cell.set_title(name, fontsize="medium")
    return figure


def side_by_side(
    sets: Mapping[str, SyntheticSet], data: ddplug.LabeledData, held_out: ddplug.LabeledData, network: str
) -> None:
    """Print for each set what its file says and whether its images lie nearer to training patches than to others."""
    print(f"\n{'set':24} {'real images':>11}  {'near, in pixels':>15}  {'in features':>11}  differential privacy")
    for name, made in sets.items():
        found = audit(made, data, held_out, shadows=0, network=network)
        near = [f"{each.near} of {len(made)}" for each in found.nearest]
        said = found.provenance["statement"]
        stated = f"epsilon {said['epsilon']:g}, delta {said['delta']:g} for one patch" if said else "none"
        real = "yes" if found.provenance["real_images"] else "no"
        print(f"{name:24} {real:>11}  {near[0]:>15}  {near[1]:>11}  {stated}")


def main(
    images: Path | None = None,
    masks: Path | None = None,
    *,
    patients: int = 120,
    steps: int = 300,
    whole_steps: int = 150,
    repeats: int = 1,
    network: str = "convnet:width=16",
    epsilon: float = 10.0,
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
    method = SoftLabelDD(
        images_per_class=1, network=network, initialization="fixed", epochs=10, batch_real=128, steps=steps,
        init_from="real", learning_rate=0.02,
    )  # fmt: skip
    # its only look at the patches is noisy; a mean and deviation that were computed from them would be another look
    proven = DPDM(images_per_class=1, network=network, pool_size=4, epsilon=epsilon, steps=steps)
    private = ddplug.distill(
        replace(data, preprocess=Standardize(*torch.tensor(KNOWN)[:, None])), proven, callbacks=[ProgressBar()]
    ).quantize()
    recipe = ddplug.Recipe.quick()
    sets: dict[str, SyntheticSet] = {}
    for seed in range(repeats):
        sets = {
            "distilled, soft labels": ddplug.distill(data, method, seed=seed, callbacks=[ProgressBar()]).quantize(),
            f"dp-dm, epsilon {epsilon:g}": private,
            "random patches": ddplug.distill(data, Random(images_per_class=1), seed=seed),
            "mean patches": ddplug.distill(data, ClassMean(images_per_class=1)).quantize(),
        }
        sets["distilled, soft labels"].save(f"patches-{seed}.safetensors")
        for name, made in sets.items():
            fresh = torch.Generator().manual_seed(seed)
            learned = name.startswith("distilled")
            trained = train_as_learned(made) if learned else train_each([made], network, recipe, rng=fresh)[0]
            found.setdefault(name, []).append(rates(trained, new, replace(data, preprocess=made.preprocess)))
        whole = train_each([data], network, recipe, rng=torch.Generator().manual_seed(seed), steps=whole_steps)[0]
        found.setdefault("all patches", []).append(rates(whole, new, data))
        print(f"{seed + 1} of {repeats} done")
    print(f"{'trained on':24} {'bytes':>9}  sensitivity  specificity  harmonic mean")
    for name, results in found.items():
        cells = [
            f"{fmean(c):.2f} +- {stdev(c):.2f}" if len(c) > 1 else f"{c[0]:.2f}" for c in zip(*results, strict=True)
        ]
        nbytes = sets[name].nbytes if name in sets else data.inputs.numel()
        print(f"{name:24} {nbytes:9,}  {'  '.join(f'{cell:>11}' for cell in cells)}")
    side_by_side(sets, data, training_patches(new), network)
    most = max(len(labeled(patient)[1]) for patient in known)
    print(f"a patient has up to {most} patches: epsilon {most * epsilon:g} for one patient, which promises nothing")
    draw(known, data, dict(list(sets.items())[:2])).savefig("medical.png")
    print("wrote medical.png")
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder with negative/ and positive/, an image a patient")
    parser.add_argument("--masks", type=Path, help="folder with the organs' masks under the same names")
    arguments = parser.parse_args()
    main(arguments.images, arguments.masks)
