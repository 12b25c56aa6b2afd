"""Networks that are trained in bfloat16: what is rounded, what stays float32, and no result is of two precisions."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.cli.program import main
from ddplug.distillation.loop import distill
from ddplug.distillers.parts.training import train
from ddplug.distillers.selection.difficulty import Difficulty
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import OptionError
from ddplug.evaluation.comparison import compare
from ddplug.evaluation.results import accuracy, cross_architecture, evaluate
from ddplug.evaluation.train import fit
from ddplug.networks.factory import build
from ddplug.networks.precision import PRECISIONS, computing
from ddplug.registry import resolve
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import made_small, toy_images
from ddplug.utils.randomness import spawn
from tests.evaluation.test_going_on import BATCHED, MADE, SHORT, TRAIN, spied
from tests.exact import generator
from tests.networks.test_precision import Slow

NETWORK = "convnet:width=8,depth=2"
OPTIONS: dict[str, Any] = {"recipe": SHORT, "repeats": 2, "device": "cpu"}


def fresh(number: int, network: str = NETWORK) -> tuple[list[nn.Module], list[torch.Generator]]:
    rngs = spawn(generator(3), number)
    return [build(network, MADE.shape, MADE.num_classes, own) for own in rngs], rngs


def vector(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def by_hand(module: nn.Module, recipe: Recipe, rng: torch.Generator) -> None:
    """Train as people write it: torch's optimizer and autocast, in sight."""
    torch.randint(2**63 - 1, (), generator=rng)  # the seed that dropout would get
    optimizer = torch.optim.SGD(module.parameters(), recipe.learning_rate, 0.9, weight_decay=recipe.weight_decay)
    for _ in range(recipe.epochs):
        for part in torch.randperm(len(MADE), generator=rng).split(recipe.batch_size):
            inputs, labels = MADE[part]
            with torch.autocast("cpu", torch.bfloat16):
                logits = module(inputs)
            optimizer.zero_grad()
            cross_entropy(logits.float(), labels).backward()
            optimizer.step()


@pytest.mark.parametrize("together", [False, True])
def test_training_equals_autocast_by_hand_and_weights_stay_float32(together: bool) -> None:
    recipe = Recipe(epochs=4, learning_rate=0.05, batch_size=4, schedule="constant")
    exact, rounded, plain = (fresh(2) for _ in range(3))
    fit(exact[0], [MADE] * 2, recipe, exact[1], together=together)
    with computing("bfloat16"):
        fit(rounded[0], [MADE] * 2, recipe, rounded[1], together=together)
    start = vector(fresh(2)[0][0])
    for k, module in enumerate(rounded[0]):
        by_hand(plain[0][k], recipe, plain[1][k])
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        moved, expected, unrounded = (vector(own[0][k]) for own in (rounded, plain, exact))
        assert not torch.equal(moved, unrounded)
        # the same rounding, but for the order of sums where networks are stacked
        assert float((moved - expected).norm() / (unrounded - start).norm()) < (0.05 if together else 1e-5)
        assert float((moved - unrounded).norm() / (unrounded - start).norm()) < 0.1


def test_scoring_networks_round_too() -> None:
    data, found = toy_images((9, 8)), {}
    for precision in PRECISIONS:
        (module,), (rng,) = fresh(1)
        with computing(precision):
            list(train(module, data, torch.arange(len(data)), 2, rng, batch_size=8))
        assert {p.dtype for p in module.parameters()} == {torch.float32}
        found[precision] = vector(module)
    exact, rounded = found.values()
    start = vector(fresh(1)[0][0])
    assert 0 < float((rounded - exact).norm() / (exact - start).norm()) < 0.1


@pytest.mark.parametrize("name", ["difficulty", "el2n", "forgetting"])
def test_selections_that_train_say_so(name: str) -> None:
    data = toy_images((9, 8, 9))
    method = made_small(resolve("distiller", name)())
    made = distill(data, method, device="cpu", precision="bfloat16")
    assert made.provenance["precision"] == "bfloat16" and made.inputs.dtype == torch.float32
    either = distill(data, method, device="cpu", precision="auto").provenance.get("precision", "float32")
    assert either in PRECISIONS


@pytest.mark.parametrize(("exact", "rounded", "chosen"), [(2000, 0, "bfloat16"), (0, 2000, "float32")])
def test_a_teacher_is_tried_and_so_is_each_network_of_a_table(exact: int, rounded: int, chosen: str) -> None:
    def network() -> nn.Module:
        return Slow({False: exact, True: rounded})

    def quick() -> nn.Module:
        return Slow({False: rounded, True: exact})

    data, short = toy_images(), Recipe(epochs=1)
    method = Difficulty(images_per_class=1, teacher=network, teacher_epochs=1, judge="mlp:width=2", judge_steps=1)
    made = distill(data, method, device="cpu", precision="auto")
    assert made.provenance.get("precision", "float32") == chosen
    options: dict[str, Any] = {"recipe": short, "repeats": 1, "device": "cpu", "precision": "auto"}
    found = cross_architecture(made, data, [network, quick], **options)
    assert [own.precision for own in found] == [chosen, next(other for other in PRECISIONS if other != chosen)]


def test_a_result_names_its_precision() -> None:
    plain, rounded = (evaluate(MADE, TRAIN, network=NETWORK, precision=own, **OPTIONS) for own in PRECISIONS)
    assert (plain.precision, rounded.precision) == PRECISIONS
    assert [own.to_json()["precision"] for own in (plain, rounded)] == list(PRECISIONS)
    assert repr(rounded).endswith("own (3 epochs) in bfloat16)") and repr(plain).endswith("own (3 epochs))")
    usual = evaluate(MADE, TRAIN, network=NETWORK, **OPTIONS)
    assert (usual.precision, usual.accuracies) == ("float32", plain.accuracies)


def test_all_rows_of_a_comparison_are_of_one_precision() -> None:
    more: dict[str, Any] = {"baselines": ["random", "class-mean"], "whole_steps": 3, "across": ["mlp:width=4"]}
    found = compare(MADE, TRAIN, TRAIN, network=NETWORK, precision="bfloat16", **more, **OPTIONS)
    assert {row["precision"] for part in ("rows", "across") for row in found.to_json()[part]} == {"bfloat16"}
    assert {row["precision"] for row in csv.DictReader(io.StringIO(found.to_csv()))} == {"bfloat16"}
    assert "own (3 epochs) in bfloat16" in repr(found) and "own (3 epochs) in bfloat16" in found.to_latex()
    exact = compare(MADE, TRAIN, TRAIN, network=NETWORK, **more, **OPTIONS)
    assert "bfloat16" not in repr(exact) + exact.to_latex() + exact.to_csv()


def test_what_was_done_in_another_precision_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {**OPTIONS, "network": BATCHED, "checkpoint": tmp_path / "rows"}
    with monkeypatch.context() as stopped:
        spied(stopped, 0)
        with pytest.raises(KeyboardInterrupt):
            evaluate(MADE, TRAIN, precision="bfloat16", **options)
    seen = spied(monkeypatch)
    plain = evaluate(MADE, TRAIN, **options)
    assert seen == [()] and plain.precision == "float32"
    rounded = evaluate(MADE, TRAIN, precision="bfloat16", **options)
    assert seen == [(), (0,)] and rounded.precision == "bfloat16"
    assert not (tmp_path / "rows").exists()


@pytest.mark.parametrize("begun", PRECISIONS)
@pytest.mark.parametrize("judging", [evaluate, compare])
def test_auto_goes_on_in_the_precision_that_it_began_with(
    judging: Any, begun: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [TRAIN] if judging is evaluate else [TRAIN, TRAIN]
    options: dict[str, Any] = {**OPTIONS, "network": BATCHED, "checkpoint": tmp_path / "rows"}
    with monkeypatch.context() as stopped:
        spied(stopped, 0)
        with pytest.raises(KeyboardInterrupt):
            judging(MADE, *data, precision=begun, **options)
    other = next(precision for precision in PRECISIONS if precision != begun)
    monkeypatch.setattr("ddplug.evaluation.protocols.faster", lambda *given: other)
    seen = spied(monkeypatch)
    found = judging(MADE, *data, precision="auto", **options)
    first = found if judging is evaluate else found.rows[0].evaluation
    assert first.precision == begun and seen[0] == (0,)
    again = judging(MADE, *data, precision="auto", **options)  # nothing is kept: as is faster here
    assert (again if judging is evaluate else again.rows[0].evaluation).precision == other


def test_a_callers_autocast_stays_and_changes_nothing() -> None:
    plain = [evaluate(MADE, TRAIN, network=NETWORK, precision=own, **OPTIONS).accuracies for own in PRECISIONS]
    (module,), (rng,) = fresh(1)
    with torch.autocast("cpu", torch.bfloat16):
        found = [evaluate(MADE, TRAIN, network=NETWORK, precision=own, **OPTIONS).accuracies for own in PRECISIONS]
        fit([module], [MADE], SHORT, [rng])
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert found == plain
    (other,), (rng,) = fresh(1)
    fit([other], [MADE], SHORT, [rng])
    assert torch.equal(vector(module), vector(other))


class Watched(nn.Module):
    """A network that notes in which precision it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.seen = fresh(1)[0][0], set[bool]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add(torch.is_autocast_enabled("cpu"))
        return self.own(x)  # type: ignore[no-any-return]


def test_a_test_is_in_the_precision_of_the_training() -> None:
    module = Watched()
    for precision, rounded in zip(PRECISIONS, (False, True), strict=True):
        module.seen.clear()
        with computing(precision):
            accuracy(module, TRAIN)
        assert rounded in module.seen and (True in module.seen) is rounded


def test_other_precisions_are_refused_before_training() -> None:
    for judging, data in ((evaluate, [TRAIN]), (compare, [TRAIN, TRAIN])):
        with pytest.raises(OptionError, match=r"unknown precision 'float16'.* Known: auto, bfloat16, float32"):
            judging(MADE, *data, network="mlp", precision="float16", **OPTIONS)


def test_the_command_names_the_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    distill("digits", Random(images_per_class=1), device="cpu").save("set.safetensors")
    argv = ["evaluate", "set.safetensors", "--data", "digits", "--network", "mlp:width=4", "--repeats", "1"]
    argv += ["--protocol", "quick", "--no-baselines", "--device", "cpu", "--precision"]
    assert main([*argv, "bfloat16"]) == 0
    said = capsys.readouterr().out
    assert "trained: mlp:width=4, quick (" in said and ") in bfloat16\n" in said
    assert main([*argv, "bfloat16", "--json"]) == 0
    assert [own["precision"] for own in json.loads(capsys.readouterr().out)["networks"]] == ["bfloat16"]
    assert main([*argv, "float32"]) == 0
    assert "float" not in capsys.readouterr().out
    argv[argv.index("quick")] = "learned"
    assert main([*argv, "bfloat16"]) == 2
    assert "with --protocol learned networks compute in float32 only; leave --precision out" in capsys.readouterr().err
