"""The parts without the loop: a method's three functions by hand, and one of the losses in a loop of your own."""

from __future__ import annotations

import torch
from torch import Tensor

import ddplug
from ddplug.distillation import State
from ddplug.distillers import DM
from ddplug.functional import augment, centroids, mean_matching
from ddplug.networks import build, embed
from ddplug.synthetic import Recipe, SyntheticSet

NETWORK = "convnet:width=16,depth=1"


def by_hand(data: ddplug.LabeledData, rng: torch.Generator, steps: int) -> SyntheticSet:
    """Call what ``ddplug.distill`` calls; the state is a mapping of tensors, to look at or to change between steps."""
    method = DM(images_per_class=1, network=NETWORK, pool_size=4)
    state: State = method.init(data, rng)
    for _ in range(steps):
        state, metrics = method.step(state, data, rng)
    print(f"by hand: loss {metrics['loss']:.3f}")
    return method.result(state, data)


def own_loop(data: ddplug.LabeledData, rng: torch.Generator, steps: int) -> SyntheticSet:
    """Match mean features in random networks, with an optimizer of torch: every line of it can be changed."""
    labels = torch.arange(data.num_classes)
    images = torch.cat([data.sample(c, 1, rng) for c in range(data.num_classes)]).requires_grad_()
    optimizer = torch.optim.Adam([images], lr=0.05)
    for _ in range(steps):
        network = build(NETWORK, data.shape, data.num_classes, rng)
        real = augment(torch.cat([data.sample(c, 32, rng) for c in range(data.num_classes)]), "scale_rotate", rng)
        means: Tensor = centroids(embed(network, real), labels.repeat_interleave(32)).detach()
        loss = mean_matching(means, embed(network, images))  # one image a class is its own mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"own loop: loss {loss.item():.3f}")
    return SyntheticSet(images.detach(), labels, data.num_classes, data.preprocess, Recipe.quick(data.augmentation))


def main(steps: int = 60, repeats: int = 2) -> None:
    """Make both sets, and judge them in the same way."""
    train, test = ddplug.load_dataset("digits"), ddplug.load_dataset("digits", split="test")
    for make in (by_hand, own_loop):
        synthetic = make(train, torch.Generator().manual_seed(0), steps)
        result = ddplug.evaluate(synthetic, test, network=NETWORK, repeats=repeats, recipe=Recipe.quick())
        print(f"{make.__name__}: accuracy {result.mean:.3f} from {synthetic.nbytes} bytes")


if __name__ == "__main__":
    main()
