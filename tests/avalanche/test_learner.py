"""The network that a distiller matches with: any learner, left as it is."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.models import IncrementalClassifier, MTSimpleMLP, SimpleCNN, SimpleMLP, SlimResNet18
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import Tensor, nn

from ddplug.avalanche.learner import LearnerCopy, networks_for, probabilities, with_heads_for, working_device
from ddplug.distillation.loop import distill
from ddplug.distillers.dc import DC
from ddplug.distillers.dm import DM
from ddplug.distillers.selection.el2n import El2n
from ddplug.errors import OptionError
from ddplug.networks import functional
from ddplug.networks.factory import build, embed
from ddplug.testing import toy_images
from tests.avalanche.streams import nc, seeded, zero_based


class Convolution(nn.Module):
    """No linear layer, and numbers of its own that no layer can draw."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3)
        self.scale = nn.Parameter(3 + torch.rand(500))
        self.register_buffer("steps", torch.tensor(7))

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.layer(x).mean((2, 3)) * self.scale[:4]
        return outputs


class Growing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 8)
        self.head = IncrementalClassifier(8, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x.flatten(1)).relu())


LEARNERS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "mlp": (lambda: SimpleMLP(num_classes=6, input_size=64, hidden_size=16, drop_rate=0.5), 8, 1, 16),
    "cnn": (lambda: SimpleCNN(6), 32, 3, 64),
    "resnet": (lambda: SlimResNet18(6, nf=2), 32, 3, 16),
    "multi-head": (lambda: MTSimpleMLP(input_size=64, hidden_size=12), 8, 1, 12),
    "growing": (Growing, 8, 1, 8),
    "no-linear": (Convolution, 8, 1, 4),
}
"""Name -> how to make it, side and channels of its inputs, number of its features."""


def made(name: str) -> tuple[Any, Tensor]:
    """Make a learner and a batch for it."""
    make, side, channels, _ = LEARNERS[name]
    x = torch.rand(5, channels, side, side, generator=torch.Generator().manual_seed(1))
    return seeded(make), x


def built(choice: Any, learner: nn.Module, seed: int = 0, labels: tuple[int, ...] = ()) -> Any:
    with networks_for(choice, learner, 0, labels) as network:
        assert network is not None
        return build(network, (1, 8, 8), 2, torch.Generator().manual_seed(seed))


def numbers(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("choice", ["fresh", "learner"])
def test_any_learner_gives_features_and_stays_as_it_is(name: str, choice: str) -> None:
    learner, x = made(name)
    before, state = numbers(learner), torch.get_rng_state()
    modes = [module.training for module in learner.modules()]
    network = built(choice, learner)
    assert embed(network, x).shape == (len(x), LEARNERS[name][3])
    assert same(before, numbers(learner))
    assert modes == [module.training for module in learner.modules()]
    assert all(parameter.requires_grad for parameter in learner.parameters())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", LEARNERS)
def test_fresh_is_drawn_anew_and_repeats_with_the_generator(name: str) -> None:
    learner, _ = made(name)
    one, again, other = (numbers(built("fresh", learner, seed)) for seed in (0, 0, 1))
    assert same(one, again)
    weights = [key for key in one if key.endswith(("weight", "scale")) and one[key].std() > 0]
    assert weights
    for key in weights:
        assert not torch.equal(one[key], other[key])
        assert not torch.equal(one[key], learner.state_dict()[key.removeprefix("learner.")])


def test_fresh_forgets_what_was_learnt() -> None:
    learner = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 50), nn.BatchNorm1d(50), nn.Linear(50, 3)))
    with torch.no_grad():
        learner[1].weight.fill_(100)
        learner[2].running_mean.fill_(5)
    network = built("fresh", learner)
    assert network.learner[1].weight.abs().max() <= 1 / 8  # what nn.Linear(64, ...) draws between
    assert network.learner[2].running_mean.abs().max() == 0


def test_fresh_draws_bare_parameters_like_those_it_finds() -> None:
    learner, _ = made("no-linear")
    scale = built("fresh", learner).learner.scale.detach()
    old = learner.scale.detach()
    assert float(scale.mean()) == pytest.approx(float(old.mean()), abs=0.1)
    assert float(scale.std()) == pytest.approx(float(old.std()), rel=0.2)
    assert not torch.equal(scale, old)


def test_learner_is_the_learner() -> None:
    learner, x = made("mlp")
    network = built("learner", learner).eval()
    learner.eval()
    assert torch.equal(network(x), learner(x))
    assert torch.equal(embed(network, x), learner.features(x.flatten(1)))


def test_dropout_is_off_and_batch_norm_sees_the_batch() -> None:
    learner, x = made("mlp")
    network = built("learner", learner).train()
    assert torch.equal(network(x), network(x))
    layer = seeded(lambda: nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)))
    spread = built("learner", layer).train()(x[:, :, :8, :8])
    assert spread.mean(0).abs().max() < 1e-5
    assert built("learner", layer).eval()(x[:, :, :8, :8]).mean(0).abs().max() > 0.1


def test_outputs_are_ordered_as_the_distiller_numbers_the_classes() -> None:
    learner, x = made("mlp")
    network = built("learner", learner, labels=(4, 2)).eval()
    assert torch.equal(network(x), learner.eval()(x)[:, [4, 2]])


def test_a_head_is_chosen_by_task() -> None:
    learner = seeded(lambda: MTSimpleMLP(input_size=64, hidden_size=8))
    for experience in zero_based().train_stream:
        avalanche_model_adaptation(learner, experience)
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator())
    for task in range(3):
        network = LearnerCopy(learner, task).eval()
        expected = learner.eval()(x, torch.full((4,), task))
        assert torch.equal(network(x), expected[:, : network(x).shape[1]])
        assert torch.equal(probabilities(learner, x, task, torch.device("cpu")), network(x).softmax(1))


def test_a_head_that_the_experience_needs_is_added_to_a_copy() -> None:
    learner = seeded(lambda: MTSimpleMLP(input_size=64, hidden_size=8))
    before, state = numbers(learner), torch.get_rng_state()
    grown: Any = with_heads_for(learner, zero_based().train_stream[2])
    assert "2" in grown.classifier.classifiers
    assert "2" not in learner.classifier.classifiers
    assert same(before, numbers(learner))
    assert torch.equal(state, torch.get_rng_state())
    fixed, _ = made("mlp")
    assert with_heads_for(fixed, nc().train_stream[0]) is fixed


def test_own_and_named_networks_are_left_alone() -> None:
    for choice, expected in (("own", None), ("convnet:width=8", "convnet:width=8"), (Convolution, Convolution)):
        with networks_for(choice, None) as network:
            assert network is expected or network == expected


def test_the_device_is_the_learners_if_asked() -> None:
    learner, _ = made("mlp")
    assert working_device("learner", SimpleNamespace(device="meta"), learner).type == "meta"
    assert working_device("learner", SimpleNamespace(), learner.to("meta")).type == "meta"
    assert working_device("learner", SimpleNamespace(), None).type == working_device("cpu", None, None).type == "cpu"
    with pytest.raises(OptionError, match="unknown device 'gpu'"):
        working_device("gpu", None, None)


@pytest.mark.parametrize("choice", ["fresh", "learner"])
def test_without_a_learner_the_option_is_refused(choice: str) -> None:
    with pytest.raises(OptionError, match=f"network='{choice}' needs the model"), networks_for(choice, None):
        pass


@pytest.mark.parametrize("choice", ["fresh", "learner"])
@pytest.mark.parametrize("name", ["mlp", "resnet", "multi-head", "growing", "no-linear"])
def test_distribution_matching_works_with_any_learner(name: str, choice: str) -> None:
    learner, x = made(name)
    data = toy_images((6, 5), channels=x.shape[1], size=x.shape[2])
    with networks_for(choice, learner, 0, (0, 1)) as network:
        assert network is not None
        made_set = distill(data, DM(1, network=network, pool_size=2, init_from="real"), steps=3, device="cpu")
        start = distill(data, DM(1, network=network, pool_size=2, init_from="real"), steps=0, device="cpu")
    assert made_set.inputs.isfinite().all()
    assert not torch.equal(made_set.inputs, start.inputs)


def test_gradient_matching_sees_the_outputs_of_its_classes() -> None:
    learner, _ = made("mlp")
    data = toy_images((6, 5))
    results = []
    for labels in ((0, 1), (4, 2)):
        with networks_for("learner", learner, 0, labels) as network:
            assert network is not None
            results.append(
                distill(data, DC(1, network=network, pool_size=1, init_from="real"), steps=2, device="cpu").inputs
            )
    assert not torch.equal(*results)


def test_methods_that_train_the_network_can() -> None:
    learner, _ = made("mlp")
    before = numbers(learner)
    with networks_for("fresh", learner, 0, (4, 2)) as network:
        # a method of selection takes a name, but trains whatever build() makes of it
        distill(toy_images((6, 5)), El2n(1, network=network, networks=1, train_epochs=1), device="cpu")  # type: ignore[arg-type]
    assert same(before, numbers(learner))


def test_nothing_of_the_learner_is_kept_alive() -> None:
    learner, _ = made("mlp")
    kept: list[Any] = []
    with networks_for("fresh", learner) as network:
        assert network is not None
        distill(toy_images((3,) * 6), DM(1, network=network, pool_size=1), steps=1, device="cpu")
        kept.append(weakref.ref(functional.stateless(network, (1, 8, 8), 6, embedding=True)))
        assert kept[0]() is not None
    del network
    gc.collect()
    assert kept[0]() is None


def test_probabilities_do_not_depend_on_the_mode_and_sum_to_one() -> None:
    learner, x = made("mlp")
    soft = probabilities(learner.train(), x, 0, torch.device("cpu"))
    assert torch.equal(soft, copy.deepcopy(learner).eval()(x).softmax(1))
    assert torch.allclose(soft.sum(1), torch.ones(5))
    assert learner.training
