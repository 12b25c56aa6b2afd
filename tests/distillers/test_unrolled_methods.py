"""DD and soft-label DD against slow and obvious loops in float64, and the training that travels with their sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, one_hot

from ddplug import distill
from ddplug.distillers.dd import DD
from ddplug.distillers.parts.images import balanced_labels
from ddplug.distillers.soft_label_dd import SoftLabelDD, shared_labels
from ddplug.errors import DivergedError, FormatError, OptionError
from ddplug.evaluation.learned import train_as_learned
from ddplug.evaluation.results import accuracy
from ddplug.functional.optim import adam_start, adam_step
from ddplug.networks.convnet import ConvNet
from ddplug.networks.factory import build
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.learned import LearnedTraining
from ddplug.testing import check_distiller, toy_images, toy_table
from tests.exact import Exact, exact_images, generator, twin

SMALL = "convnet:width=4,depth=1"


def double_convnet(norm: str = "instance") -> nn.Module:
    return ConvNet((1, 8, 8), 3, width=4, depth=1, norm=norm).double()


def doubles(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.double() if t.is_floating_point() else t for name, t in state.items()}


def parameters(state: Mapping[str, Tensor], method: DD, rng: torch.Generator) -> dict[str, Tensor]:
    """The initial network of an update: the state's, or the next one that the generator gives."""
    if method.initialization == "fixed":
        return {name[8:]: tensor for name, tensor in state.items() if name.startswith("network.")}
    module = build(method.network, (1, 8, 8), 3, rng)
    return {name: p.detach() for name, p in module.named_parameters()}


def slow_loss(
    method: DD, inputs: Tensor, labels: Tensor, raw: Tensor, start: dict[str, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """Train on the images, written out: which images a step takes, a step of descent, the loss at the end."""
    with torch.random.fork_rng(devices=[]):
        module = double_convnet()
    weights = {name: w.clone().requires_grad_() for name, w in start.items()}
    per_class = len(inputs) // 3
    step = 0
    for _ in range(method.epochs):
        for first in range(0, per_class, method.images_per_step):
            taken = range(first, min(first + method.images_per_step, per_class))
            chosen = [c * per_class + k for c in range(3) for k in taken] if per_class else range(len(inputs))
            logs = functional_call(module, weights, (inputs[list(chosen)],)).log_softmax(1)
            loss = -(labels[list(chosen)] * logs).sum() / len(list(chosen))
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
            rate = (1 + raw[step].exp()).log()
            weights = {name: w - rate * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
            step += 1
    assert step == len(raw)
    return cross_entropy(functional_call(module, weights, (x,)), y)


FEW: dict[str, Any] = {
    "clip": 0.0,
    "network": double_convnet,
    "batch_real": 20,
    "init_from": "real",
    "train_learning_rate": 0.3,
}


@pytest.mark.parametrize(
    "method",
    [
        DD(images_per_class=3, images_per_step=2, epochs=2, initialization="fixed", steps=3, **{**FEW, "clip": 1e-3}),
        DD(images_per_class=2, images_per_step=2, epochs=3, networks=2, halve_every=1, **FEW),
        SoftLabelDD(images_per_class=2, epochs=2, initialization="fixed", **FEW),
        SoftLabelDD(images_per_class=2, epochs=2, learn_images=False, **FEW),
    ],
    ids=["fixed", "random", "soft", "labels"],
)
def test_a_step_is_the_papers(method: DD) -> None:
    data, rng = exact_images((9, 12, 10)), generator(5)
    state: Mapping[str, Tensor] = doubles(method.init(data, rng))
    soft = isinstance(method, SoftLabelDD)
    leaves = {"inputs": nn.Parameter(state["inputs"].clone()), "rates": nn.Parameter(state["rates"].clone())}
    if soft:
        leaves["labels"] = nn.Parameter(state["labels"].clone())
    assert torch.equal(state["labels"].argmax(1) if soft else balanced_labels(data, 2), balanced_labels(data, 2))
    moved = [leaf for name, leaf in leaves.items() if f"first.{name}" in state]
    assert len(moved) == 2 if not soft or not getattr(method, "learn_images", True) else 3
    optimizer = torch.optim.Adam(moved, lr=method.learning_rate, betas=(0.5, 0.999))
    scheduler = (
        torch.optim.lr_scheduler.StepLR(optimizer, method.halve_every, 0.5)
        if method.halve_every
        else torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, method.steps)
    )
    for _ in range(3):
        other = twin(rng)
        state, metrics = method.step(state, data, rng)
        index = torch.randperm(len(data), generator=other)[:20]
        x, y = data.batch(index), data.targets[index]
        labels = leaves["labels"] if soft else one_hot(balanced_labels(data, method.images_per_class), 3).double()
        losses = [
            slow_loss(method, leaves["inputs"], labels, leaves["rates"], parameters(state, method, other), x, y)
            for _ in range(method.networks)
        ]
        loss = torch.stack(losses).mean()
        torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-10, atol=1e-12)
        optimizer.zero_grad()
        loss.backward()
        for leaf in moved:
            if method.clip:
                assert leaf.grad is not None and float(leaf.grad.norm()) > method.clip
                nn.utils.clip_grad_norm_([leaf], method.clip)
        optimizer.step()
        scheduler.step()
        for name, leaf in leaves.items():
            torch.testing.assert_close(state[name], leaf.detach(), rtol=1e-7, atol=1e-9)


def test_naming_the_classes_in_another_order_gives_the_same_images() -> None:
    """With the rows of the last layer named in that order too."""
    data = exact_images((9, 12, 10))
    shifted = Exact(
        **{f.name: getattr(data, f.name) for f in fields(data) if f.init and f.name != "targets"},
        targets=(data.targets + 1) % 3,
    )
    method = DD(images_per_class=2, initialization="fixed", **{**FEW, "init_from": "kmeans"})
    one = doubles(method.init(data, generator()))
    other = dict(one)
    for name in ("inputs", "first.inputs", "second.inputs"):
        other[name] = one[name].roll(2, 0)
    for name in ("network.head.weight", "network.head.bias"):
        other[name] = one[name].roll(1, 0)
    for seed in range(3):
        one, _ = method.step(one, data, generator(seed))
        other, _ = method.step(other, shifted, generator(seed))
    torch.testing.assert_close(other["inputs"], one["inputs"].roll(2, 0), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(other["rates"], one["rates"], rtol=1e-7, atol=1e-9)


def test_adam_is_torchs() -> None:
    start = torch.randn(4, generator=generator(), dtype=torch.float64)
    leaf, state = nn.Parameter(start.clone()), adam_start({"x": start})
    optimizer = torch.optim.Adam([leaf], lr=0.1, betas=(0.7, 0.9))
    for k in range(5):
        leaf.grad = torch.randn(4, generator=generator(k), dtype=torch.float64)
        optimizer.step()
        state = adam_step(state, {"x": leaf.grad}, 0.1, (0.7, 0.9))
        torch.testing.assert_close(state["x"], leaf.detach(), rtol=1e-10, atol=1e-12)


def test_steps_take_the_images_in_turn() -> None:
    data = toy_images((6, 6))
    batches = DD(images_per_class=3, images_per_step=2)._batches(data)
    assert [batch.tolist() for batch in batches] == [[0, 1, 3, 4], [2, 5]]
    batches = SoftLabelDD(images_per_class=3, images_per_step=2)._batches(data)
    assert [batch.tolist() for batch in batches] == [[0, 1, 3, 4], [2, 5]]
    assert [batch.tolist() for batch in SoftLabelDD(images=5)._batches(data)] == [[0, 3], [1, 4], [2]]
    assert [batch.tolist() for batch in SoftLabelDD(images=1)._batches(data)] == [[0]]


@pytest.mark.parametrize("images", range(1, 12))
def test_classes_are_shared_out_evenly(images: int) -> None:
    labels = shared_labels(images, 4)
    assert labels.sum(1).tolist() == pytest.approx([1] * images)
    parts = (labels > 0).sum(0 if images >= 4 else 1)
    assert int(parts.sum()) == max(images, 4) and int(parts.max() - parts.min()) <= 1
    data = toy_images((5, 6, 7, 4))
    state = SoftLabelDD(images=images, network=SMALL, init_from="real").init(data, generator())
    real = data.batch(torch.arange(len(data)))
    for image, label in zip(state["inputs"], state["labels"], strict=True):
        twins = [int(data.targets[k]) for k in range(len(data)) if torch.equal(real[k], image)]
        assert len(twins) == 1 and label[twins[0]] > 0
    assert len(state["inputs"].unique(dim=0)) == images


@pytest.mark.parametrize("initialization", ["fixed", "random"])
@pytest.mark.parametrize("kind", [DD, SoftLabelDD])
def test_the_contract_on_images_and_tables(kind: type[DD], initialization: Any) -> None:
    options: dict[str, Any] = {"initialization": initialization, "batch_real": 8, "epochs": 2}
    check_distiller(kind(images_per_class=2, network="mlp:width=5", **options), toy_table())
    if initialization == "fixed":  # the other is in the test of all registered methods
        check_distiller(kind(images_per_class=3, images_per_step=2, network=SMALL, **options))


@pytest.mark.parametrize("method", [DD(network=SMALL), SoftLabelDD(images=4, network=SMALL)])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (1, 28), (3, 128)])
def test_grey_and_color_of_all_sizes(method: DD, channels: int, size: int) -> None:
    data = toy_images((4, 5), channels=channels, size=size)
    made = distill(data, method, steps=1, device="cpu")
    assert made.shape == (channels, size, size) and bool(made.inputs.isfinite().all())


def test_labels_only_leaves_the_images_as_they_are() -> None:
    data = toy_images((4, 5))
    method = SoftLabelDD(learn_images=False, init_from="real", network=SMALL, steps=3)
    before, after = (distill(data, method, steps=steps, device="cpu") for steps in (0, 3))
    assert torch.equal(before.inputs, after.inputs) and not torch.equal(before.targets, after.targets)


def test_rates_stay_positive() -> None:
    data = toy_images((4, 5))
    method = DD(network=SMALL, learning_rate=2.0, train_learning_rate=1e-6)
    made = distill(data, method, steps=10, device="cpu")
    assert all(rate > 0 for rate in made.provenance["training"]["rates"])


@pytest.mark.parametrize("rate", [1e-6, 0.02, 1.0, 1000.0])
def test_rates_begin_where_they_are_told_to(rate: float) -> None:
    made = distill(toy_images(), DD(network=SMALL, train_learning_rate=rate), steps=0, device="cpu")
    assert made.provenance["training"]["rates"] == pytest.approx([rate] * 3, rel=1e-5)


def test_the_recipe_is_as_many_steps_at_the_mean_rate() -> None:
    made = distill(toy_images(), DD(images_per_class=4, images_per_step=2, network=SMALL), steps=2, device="cpu")
    rates = made.provenance["training"]["rates"]
    assert len(rates) == 2 * 3 == made.recipe.epochs * -(-len(made) // made.recipe.batch_size)
    assert made.recipe.learning_rate == pytest.approx(sum(rates) / 6)
    assert (made.recipe.momentum, made.recipe.weight_decay, made.recipe.schedule) == (0, 0, "constant")


@pytest.mark.parametrize("method", [DD(network=SMALL), SoftLabelDD(images=2, network=SMALL)])
def test_the_learned_training_gives_the_very_network_that_was_optimized(method: DD, tmp_path: Path) -> None:
    data = toy_images((30, 30, 30))
    method = replace(method, initialization="fixed", epochs=2)
    rng = generator()
    state: Mapping[str, Tensor] = method.init(data, rng)
    for _ in range(3):
        state, _ = method.step(state, data, rng)
    distill(data, method, steps=3, device="cpu").quantize("float32").save(tmp_path / "set.safetensors")
    made = SyntheticSet.load(tmp_path / "set.safetensors")
    module = train_as_learned(made, device="cpu")
    _, metrics = method.step(state, data, generator())  # on all data, in another order
    logits = module(data.batch(torch.arange(len(data))))
    torch.testing.assert_close(cross_entropy(logits, data.targets), metrics["loss"], rtol=1e-5, atol=1e-6)


def test_a_set_for_one_initial_network_teaches_that_network() -> None:
    train, test = toy_images((40, 40, 40)).split(0.5)
    method = DD(network=SMALL, initialization="fixed", train_learning_rate=0.1, learning_rate=0.05)
    made = distill(train, method, steps=60, device="cpu")
    assert accuracy(train_as_learned(made, device="cpu"), test) > 0.95
    untrained = build(SMALL, made.shape, 3, generator(made.provenance["training"]["seed"]))
    assert accuracy(untrained, test) < 0.8


def small_set(**options: Any) -> SyntheticSet:
    return distill(toy_images(), DD(network=SMALL, **options), steps=1, device="cpu")


def test_a_set_for_any_network_takes_other_seeds_and_architectures() -> None:
    made = small_set()
    one, other = (train_as_learned(made, rng=generator(seed), device="cpu") for seed in (0, 1))
    assert not torch.equal(one.state_dict()["head.weight"], other.state_dict()["head.weight"])
    mlp: Any = train_as_learned(made, network="mlp:width=7", rng=generator(), device="cpu")
    assert mlp.head.in_features == 7
    with pytest.raises(OptionError, match="any initial network; give a generator"):
        train_as_learned(made)


def test_another_start_than_the_one_learned_for_is_refused() -> None:
    made = small_set(initialization="fixed")
    training = made.provenance["training"]
    other = replace(made, provenance={**made.provenance, "training": {**training, "seed": 1}})
    with pytest.raises(OptionError, match=r"is for the initial network 'convnet:width=4,depth=1' of seed 1 with weigh"):
        train_as_learned(other, device="cpu")
    with pytest.raises(OptionError, match="'mlp' of that seed has"):
        train_as_learned(made, network="mlp", device="cpu")


class Scaled(ConvNet):
    """A network with a buffer that no state dictionary has."""

    def __init__(self) -> None:
        super().__init__((1, 8, 8), 3, width=4, depth=1)
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)


@pytest.mark.parametrize("network", [partial(ConvNet, (1, 8, 8), 3, width=4, depth=1), Scaled])
def test_a_network_given_as_a_function_is_given_again(network: Any) -> None:
    made = distill(toy_images(), DD(network=network, initialization="fixed"), steps=1, device="cpu")
    module: Any = train_as_learned(made, network=network, device="cpu")
    assert module.head.out_features == 3
    with pytest.raises(OptionError, match="unknown network"):
        train_as_learned(made, device="cpu")


def test_a_set_without_its_training_or_with_other_samples_is_refused() -> None:
    made = small_set()
    with pytest.raises(OptionError, match="no 'training': it was not made by dd or soft-label-dd, or was merged"):
        LearnedTraining.of(made.merge(made))
    with pytest.raises(OptionError, match="the set has 1 samples and its learned training takes 3"):
        LearnedTraining.of(made.select([1]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"network": 3},
        {"seed": -1},
        {"seed": True},
        {"weights": None},
        {"rates": ["1"]},
        {"rates": 0.1},
        {"batches": []},
        {"batches": [[]]},
        {"batches": [[0.5]]},
        {"batches": [0, 1]},
        {"more": 1},
    ],
)
def test_hostile_trainings_are_refused(wrong: dict[str, Any]) -> None:
    made = small_set()
    hostile = replace(made, provenance={"training": {**made.provenance["training"], **wrong}})
    with pytest.raises(FormatError, match="the set's 'training' is"):
        LearnedTraining.of(hostile)


def test_a_training_that_diverges_says_so() -> None:
    made = small_set()
    training = {**made.provenance["training"], "rates": [1e30, 1e30, 1e30]}
    with pytest.raises(DivergedError, match=r"diverged to NaN or infinity with rates up to 1e\+30"):
        train_as_learned(replace(made, provenance={"training": training}), rng=generator(), device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images_per_step": 0}, "images_per_step is 0; it must be at least 1"),
        ({"train_learning_rate": 0.0}, "train_learning_rate is 0.0; it must be at least 1e-06"),
        ({"initialization": "fix"}, "unknown initialization 'fix'; did you mean 'fixed'"),
        ({"images": -1}, "images is -1; it must be at least 0"),
    ],
)
def test_bad_options_name_the_value_and_the_limit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        SoftLabelDD(**options)


def test_batch_normalization_is_refused() -> None:
    with pytest.raises(OptionError, match="dd does not take batch normalization"):
        DD(network=partial(double_convnet, "batch")).init(toy_images(), generator())
