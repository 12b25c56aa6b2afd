"""The space of 720 networks: its members, what it refuses, and NNI's strategies and hub spaces at work."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.nas.evaluator import FunctionalEvaluator
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.hub.pytorch import NasBench201
from nni.nas.nn.pytorch import ModelSpace
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import DARTS, TPE, GridSearch, Random, RegularizedEvolution
from torch import nn

import ddplug
from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random as Draw
from ddplug.errors import OptionError
from ddplug.networks.convnet import ConvNet, convnet
from ddplug.nni import ProxyEvaluator
from ddplug.nni.samples import plain
from ddplug.nni.spaces import ConvNetSpace, architectures, candidates
from ddplug.search import Judge, convnets
from ddplug.search.candidate import train_and_score
from ddplug.search.protocol import Protocol
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import toy_images
from ddplug.utils.randomness import temporary_seed

# NNI never closes its log file
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")

CHOICE = {"width": 32, "depth": 2, "norm": "layer", "activation": "leakyrelu", "pooling": "max"}


def small() -> ConvNetSpace:
    """Return 12 networks for 8x8 inputs."""
    return ConvNetSpace((1, 8, 8), 3, (4, 8), (1, 2), ("none", "batch", "instance"), ("relu",), ("avg",))


def test_the_space_has_720_architectures_with_the_published_choices() -> None:
    space = ConvNetSpace((1, 28, 28), 10)
    found = architectures(space, 720)
    assert len({tuple(sorted(sample.items())) for sample in found}) == 720
    assert {label: Counter(sample[label] for sample in found) for label in found[0]} == {
        "width": dict.fromkeys((32, 64, 128, 256), 180),
        "depth": dict.fromkeys((1, 2, 3, 4), 180),
        "norm": dict.fromkeys(("none", "batch", "layer", "instance", "group"), 144),
        "activation": dict.fromkeys(("sigmoid", "relu", "leakyrelu"), 240),
        "pooling": dict.fromkeys(("none", "max", "avg"), 240),
    }
    with pytest.raises(OptionError, match="n is 721, but the space seems to have 720 architectures"):
        architectures(space, 721)


def test_every_architecture_is_equally_likely() -> None:
    space = small()
    counts = Counter(repr(architectures(space, 1, seed)) for seed in range(1200))
    assert len(counts) == 12
    assert sum((count - 100) ** 2 / 100 for count in counts.values()) < 31.3  # chi-squared, 11 degrees, 0.1 %


def test_a_longer_draw_begins_with_a_shorter_one_and_seeds_differ() -> None:
    space = ConvNetSpace((3, 32, 32), 10)
    assert architectures(space, 9, seed=4)[:5] == architectures(space, 5, seed=4)
    assert architectures(space, 5, seed=4) != architectures(space, 5, seed=5)
    with pytest.raises(OptionError, match="n is 0; it must be at least 1"):
        architectures(space, 0)


@pytest.mark.parametrize("how", ["freeze", "simplified", "through a file"])
def test_a_member_is_the_convnet_of_its_options(how: str) -> None:
    space = ConvNetSpace((1, 28, 28), 10)
    member: Any = SimplifiedModelSpace.from_model(space).freeze(CHOICE)
    if how == "through a file":
        member = nni.load(nni.dump(member))
    with temporary_seed(3):
        network = space.freeze(CHOICE) if how == "freeze" else member.executable_model()
    with temporary_seed(3):
        wanted = convnet((1, 28, 28), 10, width=32, depth=2, norm="layer", act="leakyrelu", pool="max")
    assert type(network) is ConvNet and str(network) == str(wanted)
    for name, tensor in wanted.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name])


def test_every_member_can_be_built_where_the_space_is_accepted() -> None:
    space = small()
    for width, depth, norm in itertools.product((4, 8), (1, 2), ("none", "batch", "instance")):
        sample = {"width": width, "depth": depth, "norm": norm, "activation": "relu", "pooling": "avg"}
        with temporary_seed(0):
            network = space.freeze(sample)
        assert network(torch.zeros(2, 1, 8, 8)).shape == (2, 3)


def test_a_sample_outside_the_space_is_refused() -> None:
    with pytest.raises(ValueError, match="33 not found in"):
        ConvNetSpace((1, 28, 28), 10).freeze({**CHOICE, "width": 33})


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 8, 8), {}, r"'depth': 4, .*does not suit 8x8 inputs: .*use depth=3 or pool=none; leave that choice out"),
        ((3, 4, 32), {}, r"does not suit 4x32 inputs: convnet depth=4 pools 4x32 images below 1x1"),
        ((3, 2, 2), {"depths": (2,), "poolings": ("none", "avg")}, r"'pooling': 'avg'}, which does not suit 2x2"),
        ((3, 32, 32), {"widths": (32, 30)}, r"'width': 30.*4 groups, which do not divide width=30"),
        ((3, 32, 32), {"depths": (0, 2)}, r"'depth': 0.*depth is 0; it must be at least 1"),
        ((3, 32, 32), {"norms": ("bach",)}, r"'bach'; did you mean 'batch'"),
        ((3, 32, 32), {"activations": ("relu", "rel")}, r"'rel'; did you mean 'relu'"),
        ((3, 32, 32), {"poolings": ("mx",)}, r"'mx'; did you mean 'max'"),
        ((3, 32, 32), {"depths": ()}, r"the choices \[\] of depth; give one or more different values"),
        ((3, 32, 32), {"widths": (8, 8)}, r"the choices \[8, 8\] of width"),
        ((64,), {}, r"ConvNetSpace needs \(C, H, W\) images, not inputs of shape \(64,\)"),
    ],
)
def test_what_does_not_suit_is_refused_in_one_line(
    shape: tuple[int, ...], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        ConvNetSpace(shape, 10, **options)
    assert "\n" not in str(caught.value)


def test_a_space_is_no_network() -> None:
    with pytest.raises(OptionError, match=r"many networks.*call space\.freeze"):
        small()(torch.zeros(1, 1, 8, 8))
    with temporary_seed(0), pytest.raises(OptionError, match="DARTS cannot search a ConvNetSpace"):
        DARTS().mutate_model(small())


def parameters(network: nn.Module) -> None:
    """Score a network by its size."""
    nni.report_final_result(sum(p.numel() for p in network.parameters()))


@pytest.mark.parametrize("name", ["Random", "GridSearch", "RegularizedEvolution", "TPE"])
def test_strategies_search_the_space_in_one_process(name: str) -> None:
    make = {
        "Random": lambda: Random(seed=0),
        "GridSearch": GridSearch,
        "RegularizedEvolution": lambda: RegularizedEvolution(population_size=4, sample_size=2),
        "TPE": TPE,
    }
    config = NasExperimentConfig("sequential", "simplified")
    config.max_trial_number = 12 if name == "GridSearch" else 6
    kept = np.random.get_state(), random.getstate()
    experiment = NasExperiment(small(), FunctionalEvaluator(parameters), make[name](), config)
    try:
        with temporary_seed(0):
            experiment.run()
        models = experiment.export_top_models(12)
    finally:
        experiment.stop()
        np.random.set_state(kept[0])
        random.setstate(kept[1])
    assert len(models) == 12 or name != "GridSearch"
    assert len({repr(model.sample) for model in models}) > 2
    for model in models:
        with temporary_seed(0):
            network = small().freeze(model.sample)
        assert model.metric == sum(p.numel() for p in network.parameters())


def test_cells_of_the_hub_train_on_grey_images_with_the_channel_repeated() -> None:
    data = toy_images((12, 10, 8))
    made = distill(data, Draw(images_per_class=8), device="cpu")
    real = SyntheticSet(data.batch(torch.arange(30)), data.targets, 3, data.preprocess, class_names=data.class_names)
    with temporary_seed(0):
        space: ModelSpace = NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=3)
    protocol = Protocol(epochs=8, learning_rate=0.05, channels=3, device="cpu")
    for sample in architectures(space, 2, seed=1):
        model = SimplifiedModelSpace.from_model(space).freeze(sample)
        result = train_and_score(lambda rng, model=model: model.executable_model(), made, real, protocol)  # type: ignore[misc]
        assert result.failure is None
        assert result.metric is not None and result.metric > 0.5  # chance is 0.4


def test_loops_that_know_no_nni_draw_and_build_the_same_networks() -> None:
    space = ConvNetSpace((1, 8, 8), 3, (4, 8), (1, 2))
    drawn = convnets((1, 8, 8), 3, 9, 4, width=(4, 8), depth=(1, 2))
    assert architectures(space, 9, seed=4) == drawn.samples
    ours = candidates(space, drawn.samples)
    for sample in drawn.samples[:2]:
        with temporary_seed(1):
            network = drawn.make(sample)()
        with temporary_seed(1):
            assert str(ours.make(sample)()) == str(network)


def test_a_judge_knows_what_an_evaluator_found(tmp_path: Path) -> None:
    train, held = toy_images((20, 20, 20)).split(0.5)
    ddplug.distill(train, Draw(images_per_class=2), device="cpu").save(tmp_path / "train")
    ddplug.holdout(held).save(tmp_path / "rest")
    files, journal = (tmp_path / "train", tmp_path / "rest"), tmp_path / "j.jsonl"
    evaluator = ProxyEvaluator(*files, steps=3, device="cpu", journal=journal)
    (sample,) = architectures(small(), 1)
    record = evaluator.settle(SimplifiedModelSpace.from_model(small(), evaluator).freeze(sample))
    drawn = candidates(small(), [sample])
    judge = Judge(*files, Protocol(steps=3, device="cpu"), journal, drawn.about)
    assert judge.find(drawn.make(sample), sample) == record


def test_spaces_whose_arguments_differ_are_told_apart() -> None:
    alike = {"rate": np.float32(0.5), "kernel": (3, 3)}, {"rate": 0.5, "kernel": [3, 3]}
    assert plain(alike[0]) == plain(alike[1])
    for one, other in (
        (np.array([1, 2]), np.array([1, 3])),
        (torch.zeros(2), torch.ones(2)),
        (nn.LeakyReLU(0.1), nn.LeakyReLU(0.2)),
        (Protocol(steps=1), Protocol(steps=2)),
        (nn.ReLU, nn.Tanh),
    ):
        assert plain({"a": one}) == plain({"a": one}) != plain({"a": other})
    assert plain(object()) == "builtins.object"  # whose repr is another in each process
