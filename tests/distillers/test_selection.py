"""Selection baselines against slow, obvious implementations of their published rules, and their invariances."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any, Literal, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans as ReferenceKMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.data.preprocess import Identity, fit
from ddplug.distillers.parts import features as features_module
from ddplug.distillers.parts.features import extractor, logits, mean_input
from ddplug.distillers.parts.training import draw_pool, train
from ddplug.distillers.selection.base import Selection, pick_by_score
from ddplug.distillers.selection.class_mean import ClassMean
from ddplug.distillers.selection.el2n import El2n, error_norm
from ddplug.distillers.selection.forgetting import Forgetting, count_forgetting
from ddplug.distillers.selection.herding import Herding, herd
from ddplug.distillers.selection.kcenter import KCenter, farthest_first
from ddplug.distillers.selection.kmeans import KMeans, KMeansCentroid
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.functional.clustering import clusters, nearest_rows
from ddplug.networks.factory import build, embed
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.testing import toy_images, toy_table
from ddplug.utils.notes import Note

Array: TypeAlias = NDArray[np.float64]
Keep: TypeAlias = Literal["easy", "hard"]
SlowRule: TypeAlias = Callable[[Array, int], list[int]]

MLP = "mlp:width=8"
REAL: tuple[Selection, ...] = (
    Random(3),
    Herding(3),
    Herding(3, features=MLP, train_epochs=1),
    KCenter(3),
    KCenter(3, features=MLP),
    KMeans(3),
    KMeans(3, features=MLP),
    Forgetting(3, network=MLP, train_epochs=2),
    Forgetting(3, network=MLP, train_epochs=2, max_samples_per_class=1),
    El2n(3, network=MLP, networks=2, train_epochs=1, keep="hard"),
)
MADE: tuple[Selection, ...] = (ClassMean(3), KMeansCentroid(3), KMeansCentroid(3, features=MLP))
FOLLOWING_ORDER: tuple[Selection, ...] = (Herding(4), KCenter(4))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_images(method: Selection, number: int) -> Selection:
    return replace(method, images_per_class=number)


def make(method: Selection, data: LabeledData, seed: int = 0) -> SyntheticSet:
    return method.result(method.init(data, generator(seed)), data)


def table(rows: Tensor, targets: Tensor | None = None) -> LabeledData:
    """Rows as they are; one class unless told otherwise."""
    targets = torch.zeros(len(rows), dtype=torch.int64) if targets is None else targets
    classes = int(targets.max()) + 1
    return LabeledData(rows, targets, classes, Identity(), tuple(map(str, range(classes))))


def blobs(centers: int = 4, size: int = 9, seed: int = 0) -> Tensor:
    """Well separated clusters, shuffled."""
    rng = generator(seed)
    middle = 20.0 * torch.eye(centers, 5).repeat_interleave(size, 0)
    rows = middle + torch.randn(middle.shape, generator=rng)
    return rows[torch.randperm(len(rows), generator=rng)]


def doubles(rows: Tensor) -> Array:
    values: Array = rows.double().numpy()
    return values


@pytest.mark.parametrize("method", REAL + MADE, ids=repr)
@pytest.mark.parametrize(
    "data", [toy_images(), toy_images((9, 7), channels=3), toy_table()], ids=lambda d: str(d.shape)
)
def test_every_class_gets_its_number_sorted_by_class(method: Selection, data: LabeledData) -> None:
    made = make(method, data)
    assert made.targets.tolist() == [label for label in range(data.num_classes) for _ in range(3)]
    assert made.shape == data.shape
    assert made.recipe.augment == data.augmentation


@pytest.mark.parametrize("method", REAL, ids=repr)
@pytest.mark.parametrize("data", [toy_images(), toy_table()], ids=["images", "table"])
def test_selected_rows_are_different_real_rows_of_their_class(method: Selection, data: LabeledData) -> None:
    state = method.init(data, generator())
    index = state["index"]
    assert len(set(index.tolist())) == len(index)
    made = method.result(state, data)
    assert torch.equal(data.targets[index], made.targets)
    for position, row in zip(index.tolist(), made.inputs, strict=True):
        assert torch.equal(row, data.batch(torch.tensor([position]))[0])


@pytest.mark.parametrize("kind", ["identity", "standardize", "zca"])
@pytest.mark.parametrize("data", [toy_images(), toy_images((9, 7), channels=3)], ids=["gray", "color"])
def test_byte_data_stay_bytes_bit_for_bit(kind: str, data: LabeledData) -> None:
    data = replace(data, preprocess=fit(kind, data.inputs))
    method = Random(5)
    state = method.init(data, generator())
    made = method.result(state, data)
    assert made.levels is not None
    assert made.levels.tolist() == [[0.0] * data.shape[0], [1.0] * data.shape[0]]
    assert torch.equal(made.codes(), data.inputs[state["index"]])
    assert torch.equal(made.decode(made.codes()), made.inputs)
    assert torch.allclose(made.inputs, data.batch(state["index"]), atol=1e-5)
    assert made.nbytes == made.inputs.numel() + len(made) + 8 * data.shape[0]


def test_floating_point_data_and_averages_are_stored_as_float() -> None:
    assert make(Random(2), toy_table()).levels is None
    assert make(ClassMean(2), toy_images()).levels is None


@pytest.mark.parametrize("method", REAL + MADE, ids=repr)
def test_one_seed_one_set(method: Selection) -> None:
    data = toy_images()
    assert torch.equal(make(method, data, 3).inputs, make(method, data, 3).inputs)


@pytest.mark.parametrize("method", [Random(3), ClassMean(3), Forgetting(3, network=MLP, train_epochs=1)], ids=repr)
def test_other_seeds_other_sets(method: Selection) -> None:
    data = toy_images()
    assert len({tuple(make(method, data, seed).inputs.flatten().tolist()) for seed in range(5)}) > 1


@pytest.mark.parametrize("method", REAL + MADE, ids=repr)
def test_a_class_gives_what_it_has_and_it_is_said(method: Selection) -> None:
    data = toy_images((12, 10, 2))
    everything = make(with_images(method, 2), data)
    assert everything.targets.tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.warns(Note, match=r"toy-images: 2 of 3 classes have fewer than 11 samples, .* \('class2' has 2\): all"):
        most = make(with_images(method, 11), data)
    assert most.targets.bincount().tolist() == [11, 10, 2]
    assert most.inputs.isfinite().all()
    with pytest.raises(DataError, match="class 'class1' has no sample"):
        make(method, data.subset((data.targets != 1).nonzero()[:, 0]))


@pytest.mark.parametrize("method", REAL + MADE, ids=repr)
def test_a_step_changes_nothing(method: Selection) -> None:
    data = toy_images()
    state = method.init(data, generator())
    following, metrics = method.step(state, data, generator())
    assert all(torch.equal(following[name], state[name]) for name in state)
    assert metrics["loss"].shape == ()
    assert float(metrics["loss"]) == 0
    assert method.steps == 0


@pytest.mark.parametrize("method", {type(method): method for method in REAL + MADE}.values(), ids=repr)
def test_names_are_the_registered_ones(method: Selection) -> None:
    assert registry.resolve("distiller", method.name) is type(method)


# the rules


def slow_herding(rows: Array, number: int) -> list[int]:
    mean, chosen = rows.mean(0), list[int]()
    for k in range(number):
        total = rows[chosen].sum(0)
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(min(left, key=lambda i: float(np.linalg.norm((k + 1) * mean - total - rows[i]))))
    return chosen


def slow_farthest_first(rows: Array, number: int) -> list[int]:
    chosen = [int(np.argmin([np.linalg.norm(row - rows.mean(0)) for row in rows]))]
    while len(chosen) < number:
        left = [i for i in range(len(rows)) if i not in chosen]
        chosen.append(max(left, key=lambda i: min(float(np.linalg.norm(rows[i] - rows[j])) for j in chosen)))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_greedy_rules_agree_with_slow_ones(seed: int) -> None:
    rows = torch.randn(40, 7, generator=generator(seed)) + 5
    assert herd(rows, 25).tolist() == slow_herding(doubles(rows), 25)
    assert farthest_first(rows, 25).tolist() == slow_farthest_first(doubles(rows), 25)


@pytest.mark.parametrize(("method", "slow"), [(Herding(6), slow_herding), (KCenter(6), slow_farthest_first)])
def test_greedy_methods_apply_the_rule_to_each_class_in_model_space(method: Selection, slow: SlowRule) -> None:
    data = toy_images((20, 12), channels=3)
    picks = method.init(data, generator())["index"].split(6)
    for members, pick in zip(data.class_indices, picks, strict=True):
        rows = doubles(data.batch(members).flatten(1))
        assert pick.tolist() == members[slow(rows, 6)].tolist()


def radius(rows: Array, chosen: tuple[int, ...] | list[int]) -> float:
    return max(min(float(np.linalg.norm(row - rows[j])) for j in chosen) for row in rows)


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_k_center_is_within_twice_the_optimum(number: int, seed: int) -> None:
    rows = torch.randn(9, 2, generator=generator(seed))
    values = doubles(rows)
    best = min(radius(values, chosen) for chosen in combinations(range(9), number))
    assert radius(values, farthest_first(rows, number).tolist()) <= 2 * best


@pytest.mark.parametrize("choose", [herd, farthest_first])
def test_copies_of_a_row_are_not_one_row_taken_twice(choose: Callable[[Tensor, int], Tensor]) -> None:
    assert sorted(choose(torch.ones(6, 3), 6).tolist()) == list(range(6))


@pytest.mark.parametrize("method", FOLLOWING_ORDER, ids=repr)
def test_another_order_of_the_data_gives_the_same_rows(method: Selection) -> None:
    data = toy_table((15, 12))
    shuffled = data.subset(torch.randperm(len(data), generator=generator(1)))
    assert torch.equal(make(method, data).inputs, make(method, shuffled).inputs)


@pytest.mark.parametrize("method", [*FOLLOWING_ORDER, KMeans(4)], ids=repr)
def test_another_scale_gives_the_same_choice(method: Selection) -> None:
    rows = torch.randn(30, 5, generator=generator())
    one = method.init(table(rows), generator())["index"]
    assert torch.equal(one, method.init(table(rows * 8), generator())["index"])


def reference_centroids(rows: Tensor, number: int) -> Array:
    fitted: Array = ReferenceKMeans(number, n_init=30, random_state=1).fit(doubles(rows)).cluster_centers_
    return fitted


@pytest.mark.parametrize("seed", range(3))
def test_kmeans_keeps_the_row_nearest_to_each_centroid(seed: int) -> None:
    rows = blobs(seed=seed)
    centers = reference_centroids(rows, 4)
    nearest = {int(np.argmin([np.linalg.norm(row - center) for row in doubles(rows)])) for center in centers}
    assert set(KMeans(4).init(table(rows), generator(seed))["index"].tolist()) == nearest


def test_kmeans_centroids_are_the_reference_ones() -> None:
    rows = blobs()
    made = KMeansCentroid(4).init(table(rows), generator())["inputs"]
    expected = torch.from_numpy(reference_centroids(rows, 4)).float()
    assert torch.allclose(made[made.argmax(1).argsort()], expected[expected.argmax(1).argsort()], atol=1e-5)


def test_kmeans_of_one_cluster_is_the_class_mean() -> None:
    data = toy_images()
    one, other = make(KMeansCentroid(1), data), make(ClassMean(1), data)
    assert torch.equal(one.inputs, other.inputs)


def test_clusters_are_a_fixed_point() -> None:
    rows = torch.randn(200, 3, generator=generator())
    labels = clusters(rows, 5, generator())
    centers = np.stack([doubles(rows)[labels.numpy() == k].mean(0) for k in range(5)])
    distance = np.linalg.norm(doubles(rows)[:, None] - centers, axis=2)
    assert distance.argmin(1).tolist() == labels.tolist()


def test_fewer_distinct_rows_than_clusters_leave_no_cluster_empty() -> None:
    rows = torch.tensor([0.0, 0, 0, 0, 0, 1]).reshape(6, 1)
    with pytest.warns(ConvergenceWarning, match="distinct clusters"):
        labels = clusters(rows, 4, generator())
    assert labels.unique().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", range(3))
def test_nearest_rows_takes_none_twice(seed: int) -> None:
    rng = generator(seed)
    rows, points = torch.randn(12, 2, generator=rng), torch.randn(10, 2, generator=rng) / 10
    expected: list[int] = []
    for point in doubles(points):
        left = [i for i in range(12) if i not in expected]
        expected.append(min(left, key=lambda i: float(np.linalg.norm(doubles(rows)[i] - point))))
    assert nearest_rows(rows, points).tolist() == expected


def test_class_mean_is_the_mean_in_model_space() -> None:
    data = toy_images((400, 300), channels=3)  # more than a chunk
    made = make(ClassMean(), data)
    for label, members in enumerate(data.class_indices):
        pixels = doubles(data.inputs[members]) / 255
        expected = data.preprocess.forward(torch.from_numpy(pixels.mean(0))[None])[0]
        assert torch.allclose(made.inputs[label].double(), expected, atol=1e-5)


def test_class_means_are_of_equal_parts() -> None:
    parts = make(ClassMean(3), table(torch.eye(8))).inputs
    assert (parts > 0).sum(0).tolist() == [1] * 8
    assert sorted((parts > 0).sum(1).tolist()) == [2, 3, 3]
    assert torch.allclose(parts.sum(1), torch.ones(3))


# features and training


def test_features_of_a_network_are_its_embedding(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_images()
    index = torch.tensor([3, 1, 29, 7, 7])
    whole = extractor("convnet:width=4,depth=1", 0, data, generator(5))(index)
    module = build("convnet:width=4,depth=1", data.shape, 3, generator(5)).eval()
    assert torch.allclose(whole, embed(module, data.batch(index)), atol=1e-6)
    assert not whole.requires_grad
    monkeypatch.setattr(features_module, "MICRO_BATCH", 2)
    parts = extractor("convnet:width=4,depth=1", 0, data, generator(5))(index)
    assert torch.allclose(parts, whole, atol=1e-6)
    assert torch.equal(extractor("pixels", 0, data, generator())(index), data.batch(index).flatten(1))


def test_training_changes_the_features() -> None:
    data, index = toy_images(), torch.arange(5)
    fresh, trained = (extractor(MLP, epochs, data, generator())(index) for epochs in (0, 2))
    assert not torch.allclose(fresh, trained)


def test_training_is_plain_sgd_with_momentum() -> None:
    data = toy_table((6, 5, 4), columns=4)
    module = build("mlp:depth=1", (4,), 3, generator())
    index = torch.tensor([0, 2, 3, 5, 8, 9, 11])
    rows = doubles(data.batch(index))
    hot = np.eye(3)[data.targets[index].numpy()]
    weight, bias = (doubles(parameter.detach().clone()) for parameter in module.parameters())
    speed = np.zeros_like(weight), np.zeros_like(bias)
    for seen in train(module, data, index, 3, generator()):  # one batch an epoch
        outputs = rows @ weight.T + bias
        assert np.array_equal(seen.numpy(), outputs.argmax(1))
        error = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True) - hot
        speed = 0.9 * speed[0] + error.T @ rows / 7, 0.9 * speed[1] + error.mean(0)
        weight, bias = weight - 0.01 * speed[0], bias - 0.01 * speed[1]
    assert np.allclose(module.get_parameter("head.weight").detach().numpy(), weight, atol=1e-6)


def test_an_epoch_sees_each_sample_once_in_equal_batches() -> None:
    data, index = toy_table((9, 9)), torch.arange(1, 14)
    module = build(MLP, data.shape, 2, generator())
    batches: list[Tensor] = []
    module.register_forward_pre_hook(lambda _, given: batches.append(given[0]))
    list(train(module, data, index, 2, generator(), batch_size=5))
    assert len(batches.pop(0)) == 1  # a look at whether its outputs fit
    assert [len(batch) for batch in batches] == [5, 4, 4] * 2
    for epoch in (torch.cat(batches[:3]), torch.cat(batches[3:])):
        assert sorted(epoch.tolist()) == sorted(data.batch(index).tolist())
    assert not torch.equal(batches[0], batches[3])


def test_dropout_draws_from_the_generator_it_is_given() -> None:
    data = toy_table()

    def run(seed: int) -> Tensor:
        module = build(lambda: nn.Sequential(nn.Dropout(), nn.Linear(6, 3)), (6,), 3, generator())
        return torch.stack(list(train(module, data, torch.arange(30), 2, generator(seed))))

    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))


def test_a_pool_holds_at_most_so_many_of_each_class() -> None:
    data = toy_table((12, 3, 8))
    pool = draw_pool(data, 5, generator())
    assert torch.bincount(data.targets[pool]).tolist() == [5, 3, 5]
    assert len(pool.unique()) == 13


def test_mean_input_does_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, index = toy_images(), torch.arange(29)
    whole = mean_input(data, index)
    monkeypatch.setattr(features_module, "MICRO_BATCH", 3)
    assert torch.allclose(mean_input(data, index), whole, atol=1e-6)


# scores


def slow_forgetting(history: NDArray[np.bool_]) -> list[float]:
    counts = []
    for sample in history.T.tolist():
        events = sum(before and not after for before, after in pairwise(sample))
        counts.append(float(events) if any(sample) else float("inf"))
    return counts


def test_forgetting_events_are_those_of_a_slow_count() -> None:
    history = torch.rand(7, 300, generator=generator()) < 0.3
    counts = count_forgetting(history)
    assert counts.tolist() == slow_forgetting(history.numpy())
    assert bool(counts.isinf().any())


def test_error_norm_is_the_distance_to_the_label() -> None:
    outputs = 3 * torch.randn(20, 4, generator=generator())
    targets = torch.arange(20) % 4
    exponentials = np.exp(doubles(outputs))
    expected = [
        np.sqrt(sum((row[k] / row.sum() - (k == label)) ** 2 for k in range(4)))
        for row, label in zip(exponentials, targets.tolist(), strict=True)
    ]
    assert np.allclose(error_norm(outputs, targets).numpy(), expected, atol=1e-6)


def assert_extreme(scores: Tensor, pool: Tensor, index: Tensor, data: LabeledData, keep: Keep) -> None:
    """In each class no sample left in the pool is further to the end that is kept."""
    for label in range(data.num_classes):
        here = data.targets[pool] == label
        kept = torch.isin(pool, index)
        inside, outside = scores[here & kept], scores[here & ~kept]
        assert len(inside) == 2
        if keep == "easy":
            assert float(inside.max()) <= float(outside.min()) + 1e-6
        else:
            assert float(inside.min()) >= float(outside.max()) - 1e-6


@pytest.mark.parametrize("keep", ["easy", "hard"])
def test_forgetting_keeps_that_end_of_recorded_training(keep: Keep) -> None:
    network = "mlp:width=64,depth=2"
    data = toy_table((20, 18, 19))
    data = replace(data, targets=data.targets.roll(1))  # labels without a rule, which are learned and forgotten
    index = Forgetting(2, network=network, train_epochs=60, max_samples_per_class=15, keep=keep).init(
        data, generator()
    )["index"]
    rng = generator()
    pool = draw_pool(data, 15, rng)
    module = build(network, data.shape, 3, rng)
    history = torch.stack([seen == data.targets[pool] for seen in train(module, data, pool, 60, rng)])
    scores = torch.tensor(slow_forgetting(history.numpy()))
    assert scores.unique().tolist() == [0, 1, float("inf")]
    assert_extreme(scores, pool, index, data, keep)


@pytest.mark.parametrize("keep", ["easy", "hard"])
def test_el2n_keeps_that_end_of_the_mean_error(keep: Keep) -> None:
    data = toy_images((12, 10, 11))
    index = El2n(2, network=MLP, networks=3, train_epochs=2, max_samples_per_class=9, keep=keep).init(
        data, generator()
    )["index"]
    rng = generator()
    pool = draw_pool(data, 9, rng)
    errors = []
    for _ in range(3):
        module = build(MLP, data.shape, 3, rng)
        list(train(module, data, pool, 2, rng))
        probabilities = logits(module, data, pool).double().softmax(1)
        errors.append((probabilities - torch.eye(3).double()[data.targets[pool]]).square().sum(1).sqrt())
    assert_extreme(torch.stack(errors).mean(0), pool, index, data, keep)


def test_ties_are_broken_by_the_generator() -> None:
    scores = torch.tensor([1.0, 0.0, 1.0, 1.0, float("inf")])
    easy = [pick_by_score(scores, 2, "easy", generator(seed)).tolist() for seed in range(40)]
    assert {pick[0] for pick in easy} == {1}
    assert {pick[1] for pick in easy} == {0, 2, 3}
    assert pick_by_score(scores, 1, "hard", generator()).tolist() == [4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "middle"}, "unknown end to keep 'middle'"),
        ({"train_epochs": 0}, "train_epochs is 0; it must be at least 1"),
        ({"max_samples_per_class": 0}, "max_samples_per_class is 0; it must be at least 1"),
    ],
)
@pytest.mark.parametrize("method", [Forgetting, El2n])
def test_options_out_of_range(method: Callable[..., Selection], options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        method(**options)


def test_el2n_needs_a_network() -> None:
    with pytest.raises(OptionError, match="networks is 0; it must be at least 1"):
        El2n(networks=0)


@pytest.mark.parametrize(("features", "epochs"), [("pixels", 2), ("pixels", -1), (MLP, -3)])
def test_training_needs_a_network(features: str, epochs: int) -> None:
    with pytest.raises(OptionError, match=f"train_epochs is {epochs} for features {features!r}"):
        Herding(2, features=features, train_epochs=epochs).init(toy_images(), generator())
