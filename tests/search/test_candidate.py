"""Training and scoring one candidate: against a plain loop, with every way to fail, and what it costs."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import OptionError
from ddplug.networks.factory import build
from ddplug.search import candidate
from ddplug.search.candidate import INTERIM_SHARE, images_of, train_and_score
from ddplug.search.protocol import Protocol, Result
from ddplug.search.zero_cost import SCORES, zero_cost
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images
from tests.surroundings import everything

RECIPE = Recipe(epochs=6, learning_rate=0.05, schedule="constant", batch_size=1000)
CPU = Protocol(device="cpu")


def pair(images: int = 8, counts: tuple[int, ...] = (80, 72, 60)) -> tuple[SyntheticSet, SyntheticSet]:
    data, held = toy_images(counts).split(0.5)
    made = distill(data, Random(images_per_class=images), device="cpu")
    train = SyntheticSet(made.inputs, made.targets, 3, made.preprocess, RECIPE)
    return train, SyntheticSet(held.batch(torch.arange(len(held))), held.targets, 3, made.preprocess)


TRAIN, REAL = pair()


def linear(rng: Generator) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def run(make: Callable[[Generator], Any] = linear, protocol: Protocol = CPU, **settings: Any) -> Result:
    return train_and_score(make, TRAIN, REAL, protocol, **settings)


def test_it_is_what_a_plain_loop_gives() -> None:
    kept: list[nn.Module] = []

    def make(rng: Generator) -> nn.Module:
        kept.append(linear(rng))
        kept.append(copy.deepcopy(kept[0]))
        return kept[0]

    result = run(make)
    plain = kept[1]
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    for _ in range(6):  # the whole set is one batch, so that its order does not matter
        optimizer.zero_grad()
        cross_entropy(plain(TRAIN.inputs), TRAIN.targets).backward()
        optimizer.step()
    for mine, theirs in zip(kept[0].parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    expected = (plain(REAL.inputs).argmax(1) == REAL.targets).float().mean()
    assert result.metric == pytest.approx(float(expected))
    assert result.failure is None


def test_classes_are_told_by_their_names() -> None:
    train = replace(TRAIN, class_names=("ant", "bee", "cat"))
    order = torch.tensor([2, 0, 1])
    other = replace(REAL, targets=order[REAL.targets], class_names=("bee", "cat", "ant"))
    assert train_and_score(linear, train, other, CPU).metric == run().metric


def with_averages(rng: Generator) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))


@pytest.mark.parametrize("size", [5, 13, 1000])
def test_averages_of_batch_normalization_are_those_of_the_final_weights(size: int) -> None:
    kept: list[nn.Sequential] = []

    def make(rng: Generator) -> nn.Module:
        kept.append(with_averages(rng))
        return kept[0]

    with torch.random.fork_rng():
        state = torch.get_rng_state()
        run(make, replace(CPU, epochs=3, batch_size=size))
        assert torch.equal(torch.get_rng_state(), state)
    flat, first, linear, last, _ = kept[0]
    torch.testing.assert_close(first.running_mean, TRAIN.inputs.flatten(1).mean(0))
    order = torch.randperm(24, generator=Generator().manual_seed(0))
    parts = flat(TRAIN.inputs)[order].tensor_split(max(1, 24 // size))
    logits = [linear(first.train()(part)) for part in parts]
    means = torch.stack([part.mean(0) for part in logits]).mean(0)
    torch.testing.assert_close(last.running_mean, means, rtol=1e-4, atol=1e-5)
    assert first.momentum == 0.1


def test_a_short_training_with_batch_normalization_is_judged_by_what_it_learned() -> None:
    """With averages of the initial weights this network guesses, although it labels its own batches rightly."""
    data = SyntheticSet(TRAIN.inputs * 0.01 + 5, TRAIN.targets, 3, TRAIN.preprocess, RECIPE)
    real = SyntheticSet(REAL.inputs * 0.01 + 5, REAL.targets, 3, REAL.preprocess)
    result = train_and_score(with_averages, data, real, replace(CPU, epochs=5, learning_rate=0.5))
    assert result.metric is not None
    assert result.metric > 0.8


def test_averages_after_a_long_training_are_those_of_its_last_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(short: int) -> Tensor:
        kept: list[nn.Sequential] = []

        def make(rng: Generator) -> nn.Module:
            kept.append(with_averages(rng))
            return kept[0]

        monkeypatch.setattr(candidate, "SHORT", short)
        run(make, replace(CPU, epochs=4))
        return kept[0][1].running_mean  # type: ignore[return-value]

    all_of_it = TRAIN.inputs.flatten(1).mean(0)
    torch.testing.assert_close(mean(4), all_of_it)
    torch.testing.assert_close(mean(3), all_of_it * (1 - 0.9**4))


def test_protocol_replaces_the_recipe_and_repeats_itself() -> None:
    mlp = lambda rng: build("mlp:width=16", TRAIN.shape, 3, rng)  # noqa: E731
    protocol = replace(CPU, epochs=4, learning_rate=0.01, batch_size=5, augment="flip", momentum=0.5, weight_decay=0.0)
    result = run(mlp, protocol)
    assert result.images == 4 * 24
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = run(mlp, protocol)
    assert replace(again, seconds=0.0) == replace(result, seconds=0.0)
    slower = run(mlp, replace(protocol, learning_rate=1e-9))
    assert slower.metric != result.metric


def test_a_constant_rate_replaces_one_that_falls() -> None:
    kept: list[nn.Module] = []

    def make(rng: Generator) -> nn.Module:
        kept.append(linear(rng))
        return kept[-1]

    assert TRAIN.recipe.schedule == "constant"
    falling = replace(TRAIN, recipe=replace(TRAIN.recipe, schedule="step"))
    run(make)
    for name in ("constant", None):
        train_and_score(make, falling, REAL, replace(CPU, schedule=name))
    own, constant, fallen = (next(module.parameters()) for module in kept)
    assert torch.equal(constant, own)
    assert not torch.allclose(fallen, own)


def test_weights_depend_on_the_seed_alone() -> None:
    seen: list[Tensor] = []

    def make(rng: Generator) -> nn.Module:
        module = linear(rng)
        seen.append(next(module.parameters()).detach().clone())
        return module

    three = run(make, replace(CPU, seeds=3))
    with torch.random.fork_rng():
        torch.rand(7)
        last = run(make, replace(CPU, seed=2))
    assert torch.equal(seen[2], seen[3])
    assert not torch.equal(seen[0], seen[1])
    assert three.accuracies[2] == last.metric
    assert three.metric == pytest.approx(sum(three.accuracies) / 3)
    assert three.images == 3 * 6 * 24


class _Bad(nn.Module):
    def __init__(self, act: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.act = act

    def forward(self, x: Tensor) -> Any:
        y = self.layer(x.flatten(1))
        return self.act(y) if self.training else y


def _raise(y: Tensor) -> Tensor:
    raise ValueError("no such layer\nand a second line")


def _huge(y: Tensor) -> Tensor:
    return torch.empty(1 << 55) + y


def _late(y: Tensor) -> Tensor:
    time.sleep(0.2)
    return y


@pytest.mark.parametrize(
    ("make", "protocol", "words"),
    [
        (lambda rng: _Bad(_raise), CPU, ["ValueError: no such layer"]),
        (lambda rng: _Bad(lambda y: (y, y)), CPU, ["tuple"]),
        (lambda rng: _Bad(_huge), CPU, ["out of memory"]),
        (lambda rng: _Bad(_late), replace(CPU, time_limit=0.5), ["time limit of 0.5 s"]),
        (linear, replace(CPU, learning_rate=1e9, epochs=200), ["diverged", "learning_rate"]),
        (lambda rng: _Bad(lambda y: y * float("nan")), CPU, ["diverged"]),
        (lambda rng: nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), CPU, ["(1, 4)", "(1, 3)"]),
        (lambda rng: nn.Flatten(), CPU, ["no parameters"]),
        (lambda rng: nn.Conv2d(3, 3, 1), CPU, ["3 channels"]),
        (lambda rng: "network", CPU, ["str", "torch.nn.Module"]),
        (lambda rng: 1 / 0, CPU, ["ZeroDivisionError"]),
    ],
)
def test_every_failure_is_a_result_with_its_reason(make: Any, protocol: Protocol, words: list[str]) -> None:
    before = torch.get_rng_state()
    result = run(make, protocol)
    assert result.metric is None
    assert result.failure is not None
    assert all(word in result.failure for word in words), result.failure
    assert "\n" not in result.failure
    assert result.seconds < 5
    assert torch.equal(before, torch.get_rng_state())


def test_divergence_ends_the_training_early() -> None:
    result = run(protocol=replace(CPU, learning_rate=1e9, epochs=2000))
    assert result.failure is not None
    assert 0 < result.images < 500 * 24


def test_seeds_that_came_to_their_end_are_kept_when_a_later_one_fails() -> None:
    made = iter([linear, _Bad])

    def make(rng: Generator) -> nn.Module:
        return next(made)(_raise)  # type: ignore[operator,no-any-return]

    result = run(make, replace(CPU, seeds=2))
    assert (result.metric, len(result.accuracies)) == (None, 1)
    assert result.failure == "ValueError: no such layer"


class _Counting(nn.Module):
    """Counts the samples that it sees in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Any:
        if not self.training:
            self.seen.append(len(x))
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("epochs", [1, 2, 30, 200])
def test_interim_scores_are_reported_and_cost_little(epochs: int) -> None:
    train, real = pair(images=20, counts=(1000, 960, 920))
    made: list[_Counting] = []
    reports: list[tuple[float, int]] = []

    def make(rng: Generator) -> nn.Module:
        made.append(_Counting())
        return made[0]

    result = train_and_score(make, train, real, replace(CPU, epochs=epochs), report=lambda *told: reports.append(told))
    assert tuple(value for value, _ in reports) == result.intermediate
    assert tuple(step for _, step in reports) == result.at
    assert list(result.at) == sorted(set(result.at))
    assert len(reports) <= 9
    assert (len(reports) > 0) == (epochs > 1)
    # single samples are looks at shapes, each once: whether outputs fit, what a pass costs, what its layers take
    assert made[0].seen.count(1) == 3
    interim = sum(n for n in made[0].seen if n > 1) - len(real)
    assert interim <= INTERIM_SHARE * (3 * epochs * len(train) + len(real)) + 32


def test_steps_are_taken_whatever_the_size_of_the_set() -> None:
    for images in (8, 3):
        train, real = pair(images=images)
        train = replace(train, recipe=replace(RECIPE, batch_size=9))
        told: list[int] = []

        def note(value: float, step: int, told: list[int] = told) -> None:
            told.append(step)

        result = train_and_score(linear, train, real, replace(CPU, steps=10, seeds=2), report=note)
        # 24 images in batches of 8, 9 in one: every step passes as many, and the two seeds follow one another
        each = 8 if images == 8 else 9
        assert result.images == 2 * 10 * each
        assert told == list(result.at)
        assert max(told[: len(told) // 2]) < 10 < min(told[len(told) // 2 :])


def test_steps_that_end_within_an_epoch_are_counted_as_they_are_cut() -> None:
    train = replace(TRAIN, recipe=replace(RECIPE, batch_size=10))
    assert len(train) == 24
    result = train_and_score(linear, train, REAL, replace(CPU, steps=5))
    # 24 images make three batches of 8
    assert result.images == 5 * 8 == images_of(replace(CPU, steps=5).recipe(train.recipe), 24)
    assert images_of(replace(CPU, epochs=2).recipe(train.recipe), 24) == 2 * 24


def test_a_recipe_of_steps_is_followed_unless_epochs_are_given() -> None:
    train = replace(TRAIN, recipe=replace(RECIPE, steps=4))
    assert train_and_score(linear, train, REAL, CPU).images == 4 * 24
    assert train_and_score(linear, train, REAL, replace(CPU, epochs=3)).images == 3 * 24


def test_what_the_listener_raises_is_no_failure_of_the_candidate() -> None:
    def stop(value: float, step: int) -> None:
        raise LookupError(f"enough after {step}")

    with pytest.raises(LookupError, match="enough after"):
        run(protocol=replace(CPU, epochs=10), report=stop)


def test_threads_take_turns_and_find_what_one_alone_finds() -> None:
    def dropping(rng: Generator) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    protocols = [replace(CPU, epochs=8, seed=seed) for seed in range(4)]
    alone = [run(dropping, protocol).accuracies for protocol in protocols]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda protocol: run(dropping, protocol).accuracies, protocols))
    assert together == alone


def test_hopeless_candidates_are_stopped_and_scored_as_they_stand() -> None:
    coin = lambda rng: linear(rng).append(nn.Threshold(1e9, 0.0))  # noqa: E731
    patient = run(coin, replace(CPU, epochs=10, patience=0.5))
    assert patient.stopped is not None
    assert "after epoch 5" in patient.stopped
    assert patient.images == 5 * 24
    assert patient.failure is None
    assert patient.metric is not None
    assert run(coin, replace(CPU, epochs=10)).images == 10 * 24
    learns = run(linear, replace(CPU, epochs=10, patience=0.5))
    assert (learns.stopped, learns.images) == (None, 10 * 24)


def test_operations_of_a_linear_layer_are_counted_in_closed_form() -> None:
    result = run(protocol=replace(CPU, epochs=1))
    forward = 2 * 64 * 3
    assert result.flops == forward * (3 * 24 + len(REAL))


def test_a_grey_channel_is_repeated() -> None:
    def color(rng: Generator) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 3))

    assert run(color).metric is None
    assert run(color, replace(CPU, channels=3)).failure is None
    repeated = replace(
        TRAIN,
        inputs=TRAIN.inputs.expand(-1, 3, -1, -1),
        preprocess=type(TRAIN.preprocess)(*(tensor.expand(3) for tensor in TRAIN.preprocess.tensors().values())),
    )
    real = replace(REAL, inputs=REAL.inputs.expand(-1, 3, -1, -1), preprocess=repeated.preprocess)
    both = train_and_score(color, repeated, real, CPU).metric, run(color, replace(CPU, channels=3)).metric
    assert both[0] == pytest.approx(both[1])
    refused = train_and_score(color, repeated, real, replace(CPU, channels=3)).failure
    assert refused is not None
    assert "channels=3" in refused


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 2.5}, "whole number"),
        ({"learning_rate": "0.1"}, "'0.1'"),
        ({"learning_rate": float("nan")}, "nan"),
        ({"seeds": 0}, "between 1 and 1000"),
        ({"seeds": True}, "True"),
        ({"seed": None}, "seed is None"),
        ({"patience": 1.5}, "1.5"),
        ({"augment": 3}, "augment is 3"),
    ],
)
def test_values_that_are_no_protocol_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        Protocol(**values)


def test_what_does_not_suit_set_or_machine_is_refused_and_not_recorded() -> None:
    with pytest.raises(OptionError, match="warp"):
        run(protocol=replace(CPU, augment="warp"))
    with pytest.raises(OptionError, match="tpu"):
        run(protocol=Protocol(device="tpu"))


def test_a_candidate_is_judged_alike_whatever_the_caller_has_set() -> None:
    plain = run()
    with everything():
        found = run()
    assert (found.failure, found.accuracies, found.intermediate) == (None, plain.accuracies, plain.intermediate)
    x, y = TRAIN.inputs, TRAIN.targets
    scores = {name: zero_cost(name, lambda: linear(Generator()), x, y) for name in SCORES}
    with everything():
        assert scores == {name: zero_cost(name, lambda: linear(Generator("cpu")), x, y) for name in SCORES}
