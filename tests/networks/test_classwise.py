"""Gradients of all classes in one pass, against automatic differentiation of one class after the other in float64."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.networks.classwise import class_gradients, classes_together
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.networks.functional import stateless
from ddplug.networks.layers import Classifier
from tests.exact import generator

SHAPE = (1, 12, 12)
CPU = torch.device("cpu")
NETWORKS: dict[str, str] = {
    "convnet": "convnet:width=4,depth=2",
    "batch": "convnet:width=4,depth=2,norm=batch,pool=max,act=swish",
    "none": "convnet:width=4,depth=1,norm=none,pool=none",
    "mlp": "mlp:width=5",
}


def double(network: str) -> nn.Module:
    return build(network, SHAPE, 3, generator(7)).double()


def slow(module: nn.Module, names: list[str], images: Tensor, labels: list[int]) -> list[list[Tensor]]:
    parameters = [dict(module.named_parameters())[name] for name in names]
    return [
        list(torch.autograd.grad(cross_entropy(module(own), torch.full((len(own),), c)), parameters, create_graph=True))
        for c, own in zip(labels, images.chunk(len(labels)), strict=True)
    ]


@pytest.mark.parametrize("each", [1, 3])
@pytest.mark.parametrize("network", NETWORKS)
def test_both_derivatives_are_those_of_one_class_after_the_other(network: str, each: int) -> None:
    make = partial(double, NETWORKS[network])
    module, plain = stateless(make, SHAPE, 3, training=False), make().eval()
    names = [name for name, parameter in plain.named_parameters() if parameter.ndim >= 2]
    images = torch.randn(2 * each, *SHAPE, generator=generator(), dtype=torch.float64).requires_grad_()
    tensors = {name: tensor.detach() for name, tensor in plain.state_dict().items()}
    assert classes_together(module, names, images[:1].detach(), each, CPU) > 1
    fast = class_gradients(module, tensors, names, images, torch.tensor([2, 0]))
    expected = slow(plain, names, images, [2, 0])
    for k, name in enumerate(names):
        torch.testing.assert_close(fast[name], torch.stack([own[k] for own in expected]), rtol=1e-9, atol=1e-12)
    total = torch.stack([g.sin().sum() for g in fast.values()]).sum()
    wanted = torch.stack([g.sin().sum() for own in expected for g in own]).sum()
    torch.testing.assert_close(*(torch.autograd.grad(t, images)[0] for t in (total, wanted)), rtol=1e-8, atol=1e-12)


class Twice(nn.Module):
    """A layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x))
        return out


@pytest.mark.parametrize(
    "module",
    [
        ConvNet(SHAPE, 3, width=4, depth=1, norm="layer"),  # whose scales have the shape of a map
        Classifier(Twice(), nn.Linear(4, 3)),
        Classifier(nn.Sequential(nn.Conv2d(2, 2, 1, groups=2), nn.Flatten()), nn.Linear(2, 3)),
        Classifier(nn.Conv2d(2, 2, 3, padding="same"), nn.Linear(2, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),  # nobody knows what others do with a batch
    ],
    ids=["layer norm", "twice", "groups", "padding", "others"],
)
def test_what_has_no_closed_form_goes_class_by_class(module: nn.Module) -> None:
    shapes = {"Twice": (1, 4), "Conv2d": (1, 2, 1, 1), "Sequential": (1, 2, 1, 1)}
    features = getattr(module, "features", None)
    shape = (1, *SHAPE) if isinstance(module, ConvNet) else shapes.get(type(features).__name__, (1, 4))
    names = [name for name, parameter in module.named_parameters() if parameter.ndim >= 2]
    assert classes_together(module.eval(), names, torch.zeros(shape), 1, CPU) == 1


def test_biases_have_no_closed_form() -> None:
    module = stateless(NETWORKS["convnet"], SHAPE, 3)
    names = [name for name, _ in module.named_parameters()]
    assert classes_together(module, names, torch.zeros(1, *SHAPE), 1, CPU) == 1


def test_many_images_a_class_go_class_by_class() -> None:
    module, sample = stateless(NETWORKS["convnet"], SHAPE, 3), torch.zeros(1, *SHAPE)
    numbers = [classes_together(module, ["head.weight"], sample, each, CPU) for each in (1, 10, 100, 1000)]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 100 and numbers[-1] == 1
    assert classes_together(module, ["head.weight"], sample, 1, torch.device("meta")) == 1
