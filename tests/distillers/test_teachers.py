"""Teachers: a user's module is used as it is, refused where it does not fit, and never changed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug import distill
from ddplug.distillation.config import config_of
from ddplug.distillers.parts.teachers import frozen, predict, soft_labels, teacher_module, teacher_state, train_teacher
from ddplug.distillers.parts.training import train
from ddplug.distillers.rded import RDED
from ddplug.distillers.sre2l import SRe2L
from ddplug.errors import CheckpointError, OptionError
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.testing import toy_images, toy_table
from tests.exact import generator

NAME = "convnet:width=8,depth=1,norm=batch"
DATA = toy_images((12, 10, 8))


def own(name: str = NAME, classes: int = 3) -> nn.Module:
    return build(name, DATA.shape, classes, generator(5))


class Counting(nn.Module):
    """A module that writes to a buffer at every call, drops out in training mode, and keeps a part in it."""

    def __init__(self) -> None:
        super().__init__()
        self.network = own()
        self.noise = nn.Dropout(0.5)
        self.register_buffer("calls", torch.zeros(()))
        self.network.eval()
        self.noise.train()

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        logits: Tensor = self.noise(self.network(x))
        return logits


METHODS = [RDED(images_per_class=2), SRe2L(images_per_class=2, steps=2)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_own_module_is_left_as_it_was(method: RDED | SRe2L) -> None:
    module = Counting()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    assert True in modes and False in modes
    distill(DATA, replace(method, teacher=module), device="cpu")
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())
    assert not any(part._forward_pre_hooks for part in module.modules())


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_an_own_module_gives_what_the_named_network_gives(method: RDED | SRe2L) -> None:
    rng = generator()
    module = train_teacher(NAME, DATA, epochs=2, rng=rng)
    named = replace(method, teacher=NAME, train_epochs=2)
    # the same generator state, for the draws that follow the training
    state_of_named = named.init(DATA, generator())
    state_of_own = replace(method, teacher=module).init(DATA, rng)
    assert torch.equal(state_of_named["inputs"], state_of_own["inputs"])
    result = named.result(state_of_named, DATA), replace(method, teacher=module).result(state_of_own, DATA)
    torch.testing.assert_close(result[0].targets, result[1].targets)


def test_a_lent_teacher_is_the_network_in_evaluation_mode() -> None:
    module = own().train()
    x = DATA.batch(torch.arange(7))
    with frozen(module, {}, torch.device("cpu")) as ready:
        ours = predict(ready, x)
        single = torch.cat([predict(ready, row[None]) for row in x])
    expected = module.eval()(x)
    torch.testing.assert_close(ours, expected.detach())
    torch.testing.assert_close(single, expected.detach())
    tensors = teacher_state(NAME, DATA, 1, 5, generator())
    with frozen(teacher_module(NAME, DATA), tensors, torch.device("cpu")) as ready:
        trained = own()
        trained.load_state_dict(tensors)
        torch.testing.assert_close(predict(ready, x), trained.eval()(x).detach())


def test_a_mode_is_given_back_after_an_error() -> None:
    module = own().train()
    with pytest.raises(RuntimeError), frozen(module, {}, torch.device("cpu")) as ready:
        ready(torch.zeros(1, 7))
    assert module.training


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (lambda: own(classes=4), r"turns one input into \(1, 4\); it must give \(1, 3\), one logit for each class"),
        (lambda: ConvNet((3, 8, 8), 3, width=4, depth=1, norm="batch"), r"cannot take an input of shape \(1, 8, 8\)"),
        (lambda: own().bfloat16(), "cannot take an input of shape"),
        (lambda: nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(0), nn.Linear(64, 3)), r"into \(3,\); it must give"),
        (lambda: nn.LSTM(8, 3), "cannot take an input|into tuple"),
    ],
)
def test_a_teacher_that_does_not_fit_is_one_clear_line(module: object, message: str) -> None:
    with torch.random.fork_rng(devices=[]):
        teacher = module()  # type: ignore[operator]
    with pytest.raises(OptionError, match=message) as caught:
        distill(DATA, RDED(images_per_class=2, teacher=teacher), device="cpu")
    assert "\n" not in str(caught.value)


def test_the_weights_of_a_teacher_are_a_part_of_the_run(tmp_path: object) -> None:
    module = own()
    method = SRe2L(images_per_class=1, teacher=module)
    config = config_of(method)["teacher"]
    assert config["module"] == "ddplug.networks.convnet.ConvNet" and len(config["weights"]) == 64
    path = f"{tmp_path}/run.safetensors"
    made = distill(DATA, method, steps=1, device="cpu", checkpoint=path)
    assert made.provenance["config"]["teacher"] == config
    with torch.no_grad():
        next(module.parameters())[0] += 1
    assert config_of(method)["teacher"]["weights"] != config["weights"]
    with pytest.raises(CheckpointError, match="hyper-parameter teacher was"):
        distill(DATA, method, steps=2, device="cpu", checkpoint=path)


def test_soft_labels_are_the_teachers_probabilities() -> None:
    module = train_teacher("convnet:width=8,depth=1", DATA, epochs=30, rng=generator())
    made = distill(DATA, "class-mean", device="cpu").quantize()
    labeled = soft_labels(made, module, device="cpu")
    torch.testing.assert_close(labeled.targets, module(made.inputs).softmax(1).detach())
    assert torch.equal(labeled.inputs, made.inputs) and labeled.levels is not None
    # labeling again, and rounded labels, go through the same way
    assert torch.equal(soft_labels(labeled.quantize(), module, device="cpu").targets, labeled.targets)
    with pytest.raises(OptionError, match=r"one logit for each class"):
        soft_labels(made, own(classes=5), device="cpu")


def test_a_teacher_sees_small_images_as_networks_do() -> None:
    with torch.random.fork_rng(devices=[]):  # it takes images of any size
        pooled = nn.Sequential(nn.Conv2d(1, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    made = distill(DATA, "class-mean", device="cpu").reduced(2)
    for module in (own(), pooled):
        labeled = soft_labels(made, module, device="cpu")
        torch.testing.assert_close(labeled.targets, module.eval()(made[:][0]).softmax(1).detach())
        assert torch.equal(labeled.inputs, made.inputs) and labeled.shape == made.shape


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_a_network_of_torchvision_is_a_teacher(method: RDED | SRe2L) -> None:
    from torchvision.models import resnet18

    with torch.random.fork_rng(devices=[]):
        module = resnet18(weights=None, num_classes=2)
    data = toy_images((6, 6), channels=3, size=32)
    made = distill(data, replace(method, teacher=module), device="cpu")
    assert made.inputs.shape == (4, 3, 32, 32) and made.targets.shape == (4, 2)
    torch.testing.assert_close(made.targets, module.eval()(made.inputs).softmax(1).detach())


def test_training_learns_and_is_repeatable() -> None:
    one, other = (train_teacher("mlp", toy_table(), epochs=40, rng=generator(1)) for _ in range(2))
    data = toy_table()
    predicted = one(data.batch(torch.arange(len(data)))).argmax(1)
    assert float((predicted == data.targets).double().mean()) > 0.9
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(OptionError, match="epochs is 0; it must be at least 1"):
        train_teacher("mlp", data, epochs=0, rng=generator())


def test_scoring_networks_are_trained_as_by_torch() -> None:
    data, index = toy_images((9, 8)), torch.arange(17)
    ours, theirs = (build("convnet:width=4,depth=1", data.shape, 2, torch.Generator().manual_seed(0)) for _ in "ab")
    with torch.random.fork_rng(devices=[]):
        ours.unused = theirs.unused = nn.Linear(2, 2)  # nothing flows back to it
    list(train(ours, data, index, 3, torch.Generator().manual_seed(1), batch_size=5))
    rng, optimizer = torch.Generator().manual_seed(1), torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9)
    for _ in range(3):
        torch.randint(2**31, (), generator=rng)
        for part in torch.randperm(17, generator=rng).tensor_split(4):
            optimizer.zero_grad()
            cross_entropy(theirs(data.batch(part)), data.targets[part]).backward()
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
