"""A latent memory: a network learned four digits before, its features are frozen, and the others come as a stream."""

from __future__ import annotations

import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.training.supervised import Naive
from avalanche_replay import split, strategy_of
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ddplug.avalanche import DistilledReplay

KNOWN = 4
"""Digits that the features are learned on."""


class Network(nn.Module):
    """Features that are frozen, and a part that goes on learning."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.AvgPool2d(2)
        )
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return the ``(n, 10)`` scores."""
        out: Tensor = self.head(self.backbone(x))
        return out


def pretrained(data: TensorDataset, steps: int) -> Network:
    """Train on the first digits, and freeze the features."""
    torch.manual_seed(0)
    model = Network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = (tensor[data.tensors[1] < KNOWN] for tensor in data.tensors)
    for _ in range(steps):
        batch = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
        optimizer.step()
    model.backbone.requires_grad_(requires_grad=False)
    return model


def main(epochs: int = 4, images: int = 10, steps: int = 200) -> None:
    """Train on all ten digits, two at a time, with no memory, one of images and one of features."""
    train, test = split("train"), split("test")
    benchmark = nc_benchmark(train, test, 5, task_labels=False, fixed_class_order=list(range(10)))
    for name, strategy_class, options in (
        ("no memory", Naive, {}),
        ("images", DistilledReplay, {"mem_size": images}),
        ("features", DistilledReplay, {"mem_size": images, "features": "backbone"}),
    ):
        strategy, accuracy = strategy_of(strategy_class, pretrained(train, steps), train_epochs=epochs, **options)
        for experience in benchmark.train_stream:
            strategy.train(experience)
        print(f"{name:10} accuracy {accuracy(benchmark):.3f}")
    print(strategy.storage_policy.memory_report())


if __name__ == "__main__":
    main()
