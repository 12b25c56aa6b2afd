"""Evaluation: training equals a slow loop in float64, in pieces and together alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ddplug import errors
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity, Standardize
from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.protocols import described
from ddplug.evaluation.results import accuracy, cross_architecture, evaluate
from ddplug.evaluation.train import fit, rate_at, steps_of, train_on
from ddplug.functional import augmentation as augment
from ddplug.functional import cutmix
from ddplug.networks import batching as chunks
from ddplug.networks.factory import build
from ddplug.networks.layers import Classifier
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images, toy_table
from ddplug.utils.randomness import spawn

NETWORK = "convnet:width=4,depth=2"
SHORT = Recipe(epochs=6, learning_rate=0.05, batch_size=4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_set(n: int = 10, shape: tuple[int, ...] = (1, 8, 8), classes: int = 3, **fields: Any) -> SyntheticSet:
    inputs = torch.randn(n, *shape, generator=rng(n))
    targets = fields.pop("targets", torch.arange(n) % classes)
    return SyntheticSet(inputs, targets, classes, Identity(), **fields)


def networks(data: SyntheticSet, number: int, network: str = NETWORK) -> tuple[list[nn.Module], list[torch.Generator]]:
    rngs = spawn(rng(7), number)
    return [build(network, data.shape, data.num_classes, own) for own in rngs], rngs


def weights(modules: Sequence[nn.Module]) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def slow_training(module: nn.Module, data: SyntheticSet, recipe: Recipe, own: torch.Generator) -> nn.Module:
    """The recipe step by step, in float64, with torch's own optimizer and schedules."""
    module = module.double()
    torch.randint(2**63 - 1, (), generator=own)  # the seed that dropout would get
    optimizer = torch.optim.SGD(module.parameters(), recipe.learning_rate, recipe.momentum, 0.0, recipe.weight_decay)
    total = recipe.epochs * math.ceil(len(data) / recipe.batch_size)
    step = 0
    for epoch in range(recipe.epochs):
        if recipe.schedule == "step" and epoch == recipe.epochs // 2 + 1:
            optimizer = torch.optim.SGD(
                module.parameters(), recipe.learning_rate / 10, recipe.momentum, 0.0, recipe.weight_decay
            )
        order = torch.randperm(len(data), generator=own).tolist()
        for first in range(0, len(data), recipe.batch_size):
            chosen = order[first : first + recipe.batch_size]
            x, y = data.inputs[chosen], data.targets[chosen]
            x = augment.augment(x, recipe.augment, own).double()
            if recipe.schedule == "cosine":
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * math.cos(math.pi * step / total / 2) ** 2
            soft = y.double() if y.ndim == 2 else one_hot(y, data.num_classes).double()
            if recipe.cutmix and torch.rand((), generator=own) < recipe.cutmix:
                x, soft = cutmix(x, soft, own)
            logs = module(x).log_softmax(1)
            optimizer.zero_grad()
            (-(soft * logs).sum() / len(x)).backward()
            optimizer.step()
            step += 1
    return module


RECIPES = {
    "step": SHORT,
    "cosine": replace(SHORT, schedule="cosine"),
    "constant": replace(SHORT, schedule="constant", momentum=0.0, weight_decay=0.1),
    "one batch": replace(SHORT, batch_size=256),
    "augmented": replace(SHORT, augment="color_crop_cutout_flip_scale_rotate"),
    "mixed": replace(SHORT, augment="crop+flip", cutmix=0.6),
}


@pytest.mark.parametrize("network", [NETWORK, NETWORK + ",norm=batch", "mlp:width=8"])
@pytest.mark.parametrize("name", RECIPES)
def test_training_equals_a_slow_loop_in_float64(name: str, network: str) -> None:
    data, recipe = make_set(), RECIPES[name]
    [fast], [own] = networks(data, 1, network)
    fit([fast], [data], recipe, [own])
    [slow], [own] = networks(data, 1, network)
    slow = slow_training(slow, data, recipe, own)
    for a, b in zip(fast.state_dict().values(), slow.state_dict().values(), strict=True):
        torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-4)


def test_momentum_restarts_where_the_rate_drops() -> None:
    """Without a gradient after the drop a restarted momentum leaves the weights where they are."""
    data = make_set(4, (1,), 1)  # one class: the loss is constant, only weight decay moves anything
    recipe = Recipe(epochs=4, learning_rate=1.0, momentum=0.5, weight_decay=0.1)
    expected, momentum = 1.0, 0.0
    for epoch in range(4):
        if epoch == 3:
            momentum = 0.0
        momentum = 0.5 * momentum + 0.1 * expected
        expected -= (0.1 if epoch == 3 else 1.0) * momentum
    module = build("mlp:depth=1", (1,), 1, rng())
    with torch.no_grad():
        for p in module.parameters():
            p.fill_(1.0)
    fit([module], [data], recipe, [rng()])
    assert [float(p.detach()) for p in module.parameters()] == pytest.approx([expected] * 2, rel=1e-6)


@pytest.mark.parametrize("recipe", [RECIPES[name] for name in ("augmented", "cosine", "mixed")])
def test_networks_trained_together_equal_networks_trained_one_by_one(recipe: Recipe) -> None:
    data = [make_set(), replace(make_set(), inputs=torch.randn(10, 1, 8, 8, generator=rng(3)))]
    results = []
    for together in (False, True):
        modules, rngs = networks(data[0], 2)
        fit(modules, data, recipe, rngs, together=together)
        results.append(weights(modules))
    start = weights(networks(data[0], 2)[0])
    for one, all_, before in zip(*results, start, strict=True):
        torch.testing.assert_close(one, all_, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(one, before, atol=1e-4)


def test_a_network_does_not_depend_on_how_many_are_trained_beside_it() -> None:
    data = make_set(recipe=RECIPES["augmented"])
    many = train_on(data, NETWORK + ",norm=batch", repeats=2, rng=rng(), device="cpu")
    few = train_on(data, NETWORK + ",norm=batch", repeats=1, rng=rng(), device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(weights(few), weights(many[:1]), strict=True))


def test_pieces_of_a_batch_give_the_same_training_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    data, recipe = make_set(), replace(SHORT, batch_size=7)
    [whole], [own] = networks(data, 1)
    fit([whole], [data], recipe, [own])
    sample = data.inputs[:1]
    monkeypatch.setattr(chunks, "PIECE_BYTES", 2 * chunks.activation_bytes(whole, sample))
    assert len(chunks.batch_pieces(whole, sample, 7)) == 4
    [pieces], [own] = networks(data, 1)
    fit([pieces], [data], recipe, [own])
    for a, b in zip(weights([whole]), weights([pieces]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 16, 257])
def test_pieces_cover_a_batch_once_and_are_of_nearly_one_size(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, sample = build("mlp:width=8", (4,), 2, rng()), torch.zeros(1, 4)
    each = chunks.activation_bytes(module, sample)
    assert each == 4 * (4 + 4 * 8 + 2)  # the flattened input, two hidden layers and their rectified values, the logits
    for pieces in (1, 3, 1000):
        monkeypatch.setattr(chunks, "PIECE_BYTES", pieces * each)
        cuts = chunks.batch_pieces(module, sample, n)
        assert [i for cut in cuts for i in range(n)[cut]] == list(range(n))
        lengths = [cut.stop - cut.start for cut in cuts]
        assert max(lengths) <= pieces
        assert max(lengths) - min(lengths) <= 1


def test_batch_normalization_keeps_training_batches_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    module, sample = build(NETWORK + ",norm=batch", (1, 8, 8), 2, rng()), torch.zeros(1, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    monkeypatch.setattr(chunks, "PIECE_BYTES", 1)
    assert chunks.batch_pieces(module, sample, 5) == [slice(0, 5)]
    assert len(chunks.batch_pieces(module.eval(), sample, 5)) == 5
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_small_plain_networks_go_together_and_nothing_else() -> None:
    sample = torch.zeros(1, 1, 8, 8)

    def twice(network: str) -> list[nn.Module]:
        return [build(network, (1, 8, 8), 2, rng()) for _ in range(2)]

    assert chunks.go_together(twice(NETWORK), sample, 10)
    assert not chunks.go_together(twice(NETWORK)[:1], sample, 10)
    assert not chunks.go_together(twice(NETWORK + ",norm=batch"), sample, 10)
    assert not chunks.go_together(twice(NETWORK), sample, 10**6)
    dropout = Classifier(nn.Dropout(), twice("mlp")[0])
    assert not chunks.go_together([dropout, dropout], sample, 10)
    frozen = twice(NETWORK)
    next(frozen[0].parameters()).requires_grad_(False)
    assert not chunks.go_together(frozen, sample, 10)
    plain = nn.Sequential(twice("mlp")[0])
    assert not chunks.go_together([plain, plain], sample, 10)


def test_one_hot_soft_labels_train_as_hard_labels_do() -> None:
    data = make_set()
    soft = replace(data, targets=one_hot(data.targets, 3).float())
    results = [weights(train_on(d, NETWORK, recipe=SHORT, repeats=2, rng=rng(), device="cpu")) for d in (data, soft)]
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_soft_labels_equal_the_slow_loop() -> None:
    data = make_set(targets=torch.rand(10, 3, generator=rng(2)).softmax(1))
    [fast], [own] = networks(data, 1)
    fit([fast], [data], SHORT, [own])
    [slow], [own] = networks(data, 1)
    slow = slow_training(slow, data, SHORT, own)
    for a, b in zip(weights([fast]), weights([slow]), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4)


def test_dropout_draws_from_the_generator_given() -> None:
    def network() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 3))

    first, second, other = (
        weights(train_on(make_set(), network, recipe=SHORT, repeats=2, rng=rng(seed), device="cpu"))
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


def test_accuracy_equals_scikit_learns() -> None:
    data = toy_images((30, 20, 11))
    module = build(NETWORK, data.shape, 3, rng())
    with torch.no_grad():
        guesses = [int(module(data.batch(torch.tensor([i]))).argmax()) for i in range(len(data))]
    expected = accuracy_score(data.targets.numpy(), guesses)
    assert 0 < expected < 1
    for batch_size in (1, 7, 61, 256):
        assert accuracy(module, data, batch_size) == pytest.approx(expected)


def test_accuracy_leaves_the_mode_and_needs_no_global_randomness() -> None:
    data = toy_images()
    module = build(lambda: nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(64, 3)), data.shape, 3, rng())
    assert accuracy(module, data) == accuracy(module, data)
    assert module.training
    accuracy(module.eval(), data)
    assert not module.training


def test_separable_data_are_learned_to_the_end_and_say_so() -> None:
    train, test = toy_images((30, 30, 30)).split(0.5)
    made = distill(train, Random(images_per_class=5), device="cpu")
    result = evaluate(made, test, network=NETWORK, repeats=3, recipe=Recipe.quick(), device="cpu")
    assert result.mean > 0.98
    assert result.mean == pytest.approx(sum(result.accuracies) / 3)
    assert result.std == pytest.approx(math.sqrt(sum((a - result.mean) ** 2 for a in result.accuracies) / 3))
    assert json.loads(json.dumps(result.to_json()))["n"] == 3
    assert result.network == NETWORK
    assert result.recipe == Recipe.quick()


def test_tables_are_evaluated() -> None:
    train, test = toy_table((30, 30)).split(0.5)
    made = distill(train, Random(images_per_class=5), device="cpu")
    assert evaluate(made, test, network="mlp:width=16", repeats=2, recipe=Recipe.quick(), device="cpu").mean > 0.9


def test_a_seed_gives_one_result_and_another_seed_another() -> None:
    train, test = toy_images((20, 20, 20)).split(0.5)
    made = distill(train, Random(images_per_class=1), device="cpu")
    options: dict[str, Any] = {"network": NETWORK, "recipe": replace(SHORT, epochs=2), "repeats": 4, "device": "cpu"}
    first, again, other = (evaluate(made, test, seed=seed, **options).accuracies for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_the_sets_own_recipe_is_used_unless_another_is_given() -> None:
    data = make_set(recipe=SHORT)
    assert evaluate(data, toy_images(), network=NETWORK, repeats=1, device="cpu").recipe == SHORT


def test_test_data_go_through_the_preprocessing_of_the_set() -> None:
    test = toy_images()
    made = distill(test, Random(images_per_class=4), device="cpu")
    options: dict[str, Any] = {"network": NETWORK, "recipe": SHORT, "repeats": 2, "device": "cpu"}
    wrong = replace(test, preprocess=Standardize(torch.tensor([5.0]), torch.tensor([0.01])))
    assert evaluate(made, wrong, **options).accuracies == evaluate(made, test, **options).accuracies


def test_cross_architecture_evaluates_each_network_in_order() -> None:
    networks = (NETWORK, "mlp:width=8", "convnet:width=4,depth=1,norm=batch")
    results = cross_architecture(make_set(recipe=SHORT), toy_images(), networks, repeats=2, device="cpu")
    assert [result.network for result in results] == list(networks)
    assert (
        results[1].accuracies
        == evaluate(make_set(), toy_images(), network="mlp:width=8", recipe=SHORT, repeats=2, device="cpu").accuracies
    )


def test_cross_architecture_names_an_unsuitable_network_first() -> None:
    with pytest.raises(errors.OptionError, match="vgg11 needs images of at least 28x28 pixels, not 8x8"):
        cross_architecture(make_set(recipe=Recipe(epochs=10**9)), toy_images(), ("mlp", "vgg11"), device="cpu")
    for says, network in {
        r"into \(1, 7\); it must give \(1, 3\)": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 7)),
        r"Linear cannot take an input of shape \(1, 8, 8\)": lambda: nn.Linear(9, 3),
    }.items():
        with pytest.raises(errors.OptionError, match=says):
            cross_architecture(make_set(recipe=Recipe(epochs=10**9)), toy_images(), ("mlp", network), device="cpu")
        with pytest.raises(errors.OptionError, match=says):
            compare(make_set(recipe=Recipe(epochs=10**9)), toy_images(), toy_images(), network=network, device="cpu")


def test_classes_are_told_by_their_names() -> None:
    real = toy_images((5, 5, 5))
    made, order = make_set(class_names=real.class_names), torch.tensor([1, 2, 0])
    other = replace(real, targets=order[real.targets], class_names=tuple(real.class_names[k] for k in (2, 0, 1)))
    unnamed = replace(real, class_names=("0", "1", "2"))
    options: dict[str, Any] = {"network": NETWORK, "recipe": SHORT, "repeats": 1, "device": "cpu"}
    baselines: dict[str, Any] = {"baselines": ["class-mean"], "whole_steps": 3}

    def accuracies(data: LabeledData) -> list[tuple[float, ...]]:
        rows = [row.evaluation for row in compare(made, data, data, **baselines, **options).rows]
        return [one.accuracies for one in (evaluate(made, data, **options), *rows)]

    assert accuracies(real) == accuracies(other) == accuracies(unnamed)
    with pytest.raises(errors.DataError, match="only the set has 'class0'; only the data have 'ant'; use the data"):
        evaluate(made, replace(real, class_names=("ant", "class1", "class2")), **options)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (toy_images(channels=3), r"differ in shape: \(1, 8, 8\) and \(3, 8, 8\)"),
        (toy_images((4, 4)), "'toy-images' differ in number of classes: 3 and 2"),
        (toy_images().subset(torch.zeros(0, dtype=torch.int64)), "'toy-images' have 0 samples"),
    ],
)
def test_data_that_do_not_fit_the_set_are_said_in_one_line(test: LabeledData, message: str) -> None:
    for call in (
        lambda: evaluate(make_set(), test, network=NETWORK, recipe=SHORT, device="cpu"),
        lambda: compare(make_set(), test, toy_images(), network=NETWORK, recipe=SHORT, device="cpu"),
        lambda: compare(make_set(), toy_images(), test, network=NETWORK, recipe=SHORT, device="cpu"),
    ):
        with pytest.raises(errors.DataError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repeats": 0}, "repeats is 0; it must be at least 1"),
        ({"network": "convnt"}, "unknown network 'convnt'"),
        (
            {"network": lambda: nn.Sequential(nn.AdaptiveAvgPool2d((1, 3)), nn.Flatten())},
            "Sequential has no parameters to train",
        ),
        ({"network": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 5))}, r"into \(1, 5\); it must give \(1, 3\)"),
        ({"recipe": replace(SHORT, augment="crop_flap")}, "unknown augmentation 'flap'; did you mean 'flip'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
    ],
)  # fmt: skip
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"network": NETWORK, "recipe": SHORT, "device": "cpu", **options}
    with pytest.raises(errors.OptionError, match=message):
        evaluate(make_set(), toy_images(), **arguments)
    with pytest.raises(errors.OptionError, match=message):
        compare(make_set(), toy_images(), toy_images(), **arguments)


def test_unknown_baselines_and_steps_are_said_before_training() -> None:
    endless = make_set(recipe=Recipe(epochs=10**9))
    with pytest.raises(errors.OptionError, match="unknown distiller 'randm'; did you mean 'random'"):
        compare(endless, toy_images(), toy_images(), network=NETWORK, baselines=("randm",), device="cpu")
    with pytest.raises(errors.OptionError, match="whole_steps is 0; it must be at least 1"):
        compare(endless, toy_images(), toy_images(), network=NETWORK, whole_steps=0, device="cpu")


def test_augmentation_of_tables_is_refused() -> None:
    data = make_set(shape=(6,), recipe=replace(SHORT, augment="crop"))
    with pytest.raises(errors.OptionError, match=r"'crop' needs \(C, H, W\) images, not inputs of shape \(6,\)"):
        evaluate(data, toy_table(), network="mlp", device="cpu")


def test_cutmix_of_tables_is_refused() -> None:
    data = make_set(shape=(6,), recipe=replace(SHORT, cutmix=0.5))
    with pytest.raises(errors.OptionError, match=r"cutmix=0.5 needs \(C, H, W\) images, not inputs of shape \(6,\)"):
        evaluate(data, toy_table(), network="mlp", device="cpu")


def test_accuracy_refuses_what_it_cannot_measure() -> None:
    module, data = build("mlp", (1, 8, 8), 3, rng()), toy_images()
    with pytest.raises(errors.OptionError, match="batch_size is 0"):
        accuracy(module, data, 0)
    with pytest.raises(errors.DataError, match="'toy-images' have 0 samples"):
        accuracy(module, data.subset(torch.zeros(0, dtype=torch.int64)))


def test_divergence_is_an_error_that_names_the_learning_rate() -> None:
    recipe = Recipe(epochs=60, learning_rate=1e9, schedule="constant")
    with pytest.raises(errors.DivergedError, match=r"learning_rate=1000000000.0; lower it"):
        train_on(make_set(), "mlp", recipe=recipe, rng=rng(), device="cpu")


def test_the_progress_bar_counts_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    train_on(make_set(), "mlp:width=8", recipe=SHORT, repeats=2, rng=rng(), device="cpu", progress=True)
    assert "0/36 " in capsys.readouterr().err  # 6 epochs of 3 batches for each of 2 networks
    train_on(make_set(), "mlp:width=8", recipe=SHORT, repeats=2, rng=rng(), device="cpu")
    assert capsys.readouterr().err == ""


def test_a_recipe_by_steps_takes_them_whatever_the_size() -> None:
    recipe = Recipe.by_steps(30)
    taken: list[int] = []
    for number in (7, 200):
        data = toy_images((number, number))
        module = build("mlp", data.shape, 2, torch.Generator().manual_seed(0))
        fit([module], [data], recipe, [torch.Generator().manual_seed(0)], tick=taken.append)
    assert sum(taken) == 60
    assert steps_of(recipe, 7) == 30 and steps_of(replace(recipe, steps=0, epochs=4), 129) == 8


def test_a_cycle_rises_and_falls_in_lines() -> None:
    recipe = Recipe.by_steps(100)
    rates = [rate_at(recipe, step, 100, 0) for step in range(100)]
    corners = np.interp(np.arange(100), [-1, 29, 30, 100], [0, 1, 1, 0])
    assert rates == pytest.approx(0.1 * corners)


def test_steps_travel_with_a_set_and_are_written_only_where_given() -> None:
    recipe = Recipe.by_steps(12, "crop+flip")
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert "steps" not in Recipe.paper().to_json()
    with pytest.raises(errors.OptionError, match="steps is -1; it must lie between 0 and 1000000000"):
        Recipe(steps=-1)


def test_cutmix_travels_with_a_set_and_is_written_only_where_given() -> None:
    recipe = replace(Recipe.by_steps(12, "crop+flip"), cutmix=0.5)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert "cutmix" not in Recipe.by_steps(12).to_json()
    with pytest.raises(errors.OptionError, match=r"cutmix is 1\.5; it must lie between 0 and 1"):
        Recipe(cutmix=1.5)
    assert described(recipe) == "own (12 steps with crop+flip+cutmix)"


def test_one_architecture_is_as_good_as_a_list_of_it() -> None:
    train, test = toy_images((6, 6), size=4).split(0.5)
    made = distill(train, "random", images_per_class=1, device="cpu")
    options: dict[str, Any] = {"repeats": 1, "recipe": Recipe(epochs=1), "device": "cpu"}
    networks: list[Any] = ["mlp", lambda shape, classes: build("mlp", shape, classes, torch.Generator())]
    for one in networks:
        listed = cross_architecture(made, test, [one], **options)
        assert [found.accuracies for found in cross_architecture(made, test, one, **options)] == [listed[0].accuracies]
