"""One-shot search on a set: batches, soft labels, DARTS and random one-shot, and the cure of used-up parts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import torch
from nni.nas.evaluator.pytorch import Classification
from nni.nas.experiment import NasExperiment, NasExperimentConfig
from nni.nas.nn.pytorch import LayerChoice, ModelSpace, MutableConv2d, MutableLinear
from nni.nas.space import SimplifiedModelSpace
from nni.nas.strategy import DARTS, GridSearch, GumbelDARTS, Proxyless, Random, RandomOneShot
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillers.selection.random_ import Random as Draw
from ddplug.errors import DataError, OptionError
from ddplug.functional.augmentation import augment
from ddplug.nni.oneshot import OneShotEvaluator, SetLoader, _Accuracy
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import toy_images

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning",  # NNI never closes its log file
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",  # Lightning, of torch
    "ignore:Direct export from RandomOneShot:UserWarning",
)


@pytest.fixture(autouse=True)
def global_random_state() -> Iterator[None]:
    """Put the global generators back: one-shot strategies draw from them."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(0)
    random.seed(0)
    yield
    torch.set_rng_state(before[0])
    np.random.set_state(before[1])
    random.setstate(before[2])


class Space(ModelSpace):
    """Six networks: a kind of first layer and a width, as supernets mix them."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        width = nni.choice("width", [4, 8])
        ops = {"conv": MutableConv2d(channels, width, 3, padding=1), "point": MutableConv2d(channels, width, 1)}
        self.stem = LayerChoice({**ops, "wide": MutableConv2d(channels, width, 5, padding=2)}, label="stem")
        self.head = MutableLinear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stem(x).relu().mean((2, 3)))
        return logits


DATA = toy_images((12, 10, 8))


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """Return a set with soft labels and a recipe that augments, and a real split."""
    made = distill(DATA, Draw(images_per_class=3), device="cpu")
    soft = 0.9 * one_hot(made.targets, 3).float() + 0.1 / 3
    recipe = Recipe(epochs=3, learning_rate=0.1, batch_size=4, augment="crop_flip", schedule="cosine")
    replace(made, targets=soft, recipe=recipe).save(tmp_path / "made.safetensors")
    real = SyntheticSet(DATA.batch(torch.arange(30)), DATA.targets, 3, DATA.preprocess, class_names=DATA.class_names)
    real.save(tmp_path / "real.safetensors")
    return str(tmp_path / "made.safetensors"), str(tmp_path / "real.safetensors")


def valid(sample: dict[str, Any]) -> bool:
    return (
        set(sample) == {"stem", "width"} and sample["stem"] in ("conv", "point", "wide") and sample["width"] in (4, 8)
    )


@contextmanager
def finished(space: ModelSpace, evaluator: Any, strategy: Any, model_format: str = "raw") -> Iterator[Any]:
    """Run a search in this process, and stop it whatever happens."""
    experiment = NasExperiment(space, evaluator, strategy, NasExperimentConfig("sequential", model_format))
    try:
        experiment.run()
        yield experiment
    finally:
        experiment.stop()


def best(experiment: Any) -> dict[str, Any]:
    found: dict[str, Any] = experiment.export_top_models(1, formatter="dict")[0]
    return found


def test_a_loader_gives_every_sample_once_a_pass_augmented_and_in_an_order_of_its_own() -> None:
    made = distill(DATA, Draw(images_per_class=3), device="cpu")
    loader = SetLoader(made, 4, strategy="crop", rng=torch.Generator().manual_seed(5))
    passes = [[(x, y) for x, y in loader] for _ in range(2)]
    rng = torch.Generator().manual_seed(5)
    for batches in passes:
        order = torch.randperm(9, generator=rng)
        assert len(batches) == len(loader) == 3
        for index, (x, y) in zip(order.split(4), batches, strict=True):
            assert torch.equal(x, augment(made.inputs[index], "crop", rng))
            assert torch.equal(y, made.targets[index])


def test_a_loader_without_a_generator_keeps_the_order_and_repeats_grey_channels() -> None:
    made = distill(DATA, Draw(images_per_class=3), device="cpu")
    x = torch.cat([x for x, _ in SetLoader(made, 4, strategy="crop", channels=3)])
    assert torch.equal(x, made.inputs.repeat(1, 3, 1, 1))


def test_darts_finds_a_member_of_the_space_and_leaves_the_evaluator_as_new(files: tuple[str, str]) -> None:
    evaluator = OneShotEvaluator(*files, device="cpu")
    for _ in range(2):  # the second search trains as the first did
        space = Space()
        strategy = DARTS(arc_learning_rate=0.1)
        with finished(space, evaluator, strategy) as experiment:
            assert valid(best(experiment))
        module = strategy.oneshot_module
        assert module.trainer.current_epoch == 3
        assert module.trainer.global_step == 3 * 2 * 8  # weights and architecture, at each batch of the longer file
        weights = module.trainer.optimizers[0].param_groups[0]
        assert weights["lr"] == pytest.approx(0) and weights["momentum"] == 0.9  # the end of the recipe's cosine
        probabilities = module.export_probs()
        assert set(probabilities) == {"stem", "width"}
        moved = [abs(p - 1 / len(own)) for own in probabilities.values() for p in own.values()]
        assert max(moved) > 0.05  # the architecture was trained: it begins at equal shares, but for 0.001


@pytest.mark.parametrize("strategy", [GumbelDARTS, Proxyless])
def test_its_kin_find_a_member_too_and_train_the_architecture(files: tuple[str, str], strategy: Any) -> None:
    made = strategy(arc_learning_rate=0.5)  # with 0.1 two of the draws of Gumbel's noise led back to equal shares
    with finished(Networks(), OneShotEvaluator(*files, device="cpu"), made) as experiment:
        assert best(experiment)["pool"] in ("max", "avg")
    assert made.oneshot_module.trainer.global_step == 3 * 2 * 8
    shares = made.oneshot_module.export_probs()["pool"]
    assert abs(shares["max"] - 0.5) > 0.05


def test_random_one_shot_trains_a_supernet_of_which_every_member_can_be_scored(files: tuple[str, str]) -> None:
    space = Space(channels=3)
    before = {name: p.clone() for name, p in space.state_dict().items()}
    trainer = OneShotEvaluator(*files, epochs=4, channels=3, device="cpu")
    with finished(space, trainer, RandomOneShot()) as experiment:
        assert valid(best(experiment))
    weights = {name: p.clone() for name, p in space.state_dict().items()}
    assert before and weights and any(not torch.equal(p, weights.get(n, p)) for n, p in before.items())
    scorer = OneShotEvaluator(*files, epochs=0, channels=3, device="cpu")
    x, y = (torch.cat(parts) for parts in zip(*scorer.val_dataloaders, strict=True))
    with finished(space, scorer, Random(seed=0)) as experiment:
        models = experiment.export_top_models(9)
    assert len(models) == 6 and all(valid(model.sample) for model in models)
    for model in models:
        network = space.freeze(model.sample).eval()
        assert model.metric == pytest.approx(float((network(x).argmax(1) == y).float().mean()))
    assert len({model.metric for model in models}) > 1
    assert all(torch.equal(p, weights[name]) for name, p in space.state_dict().items())  # scoring trains nothing


class Networks(ModelSpace):
    """Two networks that differ in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = LayerChoice({"max": nn.AdaptiveMaxPool2d(4), "avg": nn.AdaptiveAvgPool2d(4)}, label="pool")
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(x).flatten(1))
        return logits


def stock(files: tuple[str, str]) -> Any:
    hard = SyntheticSet.load(files[1])
    batches = SetLoader(hard, 16, rng=torch.Generator().manual_seed(0)), SetLoader(hard, 16)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    loaders = {"train_dataloaders": batches[0], "val_dataloaders": batches[1]}
    return Classification(num_classes=3, max_epochs=2, num_sanity_val_steps=0, **loaders, **quiet)


def test_a_stock_evaluator_is_good_for_one_model_and_ours_for_all(files: tuple[str, str]) -> None:
    with pytest.raises(KeyError, match="_acc"), finished(Networks(), stock(files), GridSearch(), "simplified"):
        pass
    evaluator = OneShotEvaluator(*files, epochs=15, device="cpu")
    with finished(Networks(), evaluator, GridSearch(), "simplified") as experiment:
        models = experiment.export_top_models(9)
    assert sorted(model.sample["pool"] for model in models) == ["avg", "max"]
    assert min(model.metric for model in models) > 0.6  # chance is 0.4: soft labels were learned from


def test_weights_depend_on_the_seed_alone(files: tuple[str, str]) -> None:
    def score(seed: int, state: int) -> float:
        evaluator = OneShotEvaluator(*files, epochs=1, learning_rate=0.0, seed=seed, device="cpu")
        model = SimplifiedModelSpace.from_model(Networks(), evaluator).freeze({"pool": "max"})
        torch.default_generator.manual_seed(state)
        before = torch.get_rng_state()
        found: float = evaluator._execute(model)
        assert torch.equal(before, torch.get_rng_state())
        return found

    scores = [score(seed, 1) for seed in range(4)]
    assert len(set(scores)) > 1 and scores == [score(seed, 2) for seed in range(4)]


def test_accuracy_counts_the_most_probable_class_of_soft_labels() -> None:
    targets = torch.tensor([[0.1, 0.9], [0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 2.0]])
    metrics = [_Accuracy(2, average="micro") for _ in range(2)]
    assert [float(m(logits, t)) for m, t in zip(metrics, (targets, targets.argmax(1)), strict=True)] == [0.5, 0.5]


def test_an_evaluator_survives_serialization(files: tuple[str, str]) -> None:
    evaluator = OneShotEvaluator(*files, epochs=2, learning_rate=0.5, seed=3, device="cpu")
    again = nni.load(nni.dump(evaluator))
    assert again == evaluator and again.recipe == evaluator.recipe and "learning_rate=0.5" in repr(again)
    assert again.recipe.learning_rate == 0.5 and again.recipe.augment == "crop_flip"
    assert evaluator != OneShotEvaluator(*files, epochs=3, device="cpu")
    assert evaluator.module is not evaluator.module and evaluator.trainer is not evaluator.trainer


def test_steps_of_a_set_are_as_many_passes_over_it(files: tuple[str, str]) -> None:
    made = SyntheticSet.load(files[0])  # 9 samples in batches of 4: 3 steps a pass
    replace(made, recipe=replace(made.recipe, epochs=301, steps=10)).save(files[0])
    assert OneShotEvaluator(*files, device="cpu").trainer.max_epochs == 4
    assert OneShotEvaluator(*files, epochs=2, device="cpu").trainer.max_epochs == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 1}, "channels is 1"),
        ({"epochs": -1}, "epochs is -1"),
        ({"augment": "crap"}, "unknown augmentation 'crap'; did you mean 'crop'"),
        ({"device": "tpu"}, "tpu"),
    ],
)
def test_options_are_refused_before_any_search(files: tuple[str, str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        OneShotEvaluator(*files, **options)


def test_the_validation_split_takes_the_numbers_of_the_sets_classes(tmp_path: Path) -> None:
    made = SyntheticSet(torch.zeros(4, 1, 8, 8), torch.tensor([0, 0, 0, 1]), 2, Identity(), class_names=("ant", "bee"))
    made.save(tmp_path / "train")
    replace(made, targets=1 - made.targets, class_names=("bee", "ant")).save(tmp_path / "validation")
    evaluator = OneShotEvaluator(str(tmp_path / "train"), str(tmp_path / "validation"), device="cpu")
    assert torch.cat([y for _, y in evaluator.val_dataloaders]).tolist() == [0, 0, 0, 1]


def test_files_that_do_not_fit_are_refused_before_any_search(files: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="soft labels"):
        OneShotEvaluator(files[0], files[0])
    with pytest.raises(OptionError, match=r"missing\.safetensors"):
        OneShotEvaluator(files[0], str(tmp_path / "missing.safetensors"))
