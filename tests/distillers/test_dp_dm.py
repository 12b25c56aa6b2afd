"""Differentially private distribution matching: data reach the set through the noise, and through nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import kstest
from torch import Tensor, nn

import ddplug
from ddplug.data import LabeledData, from_arrays
from ddplug.data.preprocess import Identity, Standardize, fit
from ddplug.distillation.settling import settled
from ddplug.distillers import DPDM, Random, dp_dm
from ddplug.distillers.parts.views import class_outputs
from ddplug.errors import OptionError
from ddplug.functional.optim import adam_start
from ddplug.functional.privacy import gaussian_sigma
from ddplug.synthetic.card import card
from ddplug.synthetic.export import inspect
from ddplug.synthetic.statement import in_words, privacy_statement
from ddplug.testing import toy_images, toy_table
from ddplug.utils.files import read_tensors
from ddplug.utils.notes import Note
from ddplug.utils.randomness import known_secrets, secret_normal

SMALL = DPDM(images_per_class=1, network="convnet:width=4,depth=1", pool_size=3, steps=2, factor=2)
pytestmark = pytest.mark.filterwarnings("ignore::ddplug.utils.notes.Note")  # toys are too small for any noise


def silent(shape: tuple[int, ...]) -> Tensor:
    return torch.zeros(shape, dtype=torch.float64)


def without_one(data: LabeledData, position: int) -> LabeledData:
    keep = torch.arange(len(data)) != position
    return replace(data, inputs=data.inputs[keep], targets=data.targets[keep])


def sums(data: LabeledData, method: DPDM = SMALL) -> Tensor:
    """Return what noise is added to."""
    own = settled(replace(method, augment="crop_scale_rotate"), data.shape)
    views = own._views(data, torch.Generator().manual_seed(0))
    return dp_dm._class_sums(own._features(data), views, data, own.reduction)


HOSTILE: dict[str, Callable[[LabeledData], Tensor]] = {
    "as it is": lambda data: data.inputs[4].float() / 255,
    "huge": lambda data: torch.full(data.shape, 1e30),
    "beyond float32 in the network": lambda data: torch.full(data.shape, 3e38),
    "zero": lambda data: torch.zeros(data.shape),
    "one bright pixel": lambda data: torch.zeros(data.shape).index_fill_(2, torch.tensor([3]), 1e6),
}


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("what", HOSTILE)
def test_one_record_moves_the_sums_by_no_more_than_the_sensitivity(what: str, factor: int) -> None:
    plain = replace(toy_images(), preprocess=Identity())
    plain = replace(plain, inputs=plain.inputs.float() / 255)
    plain.inputs[4] = HOSTILE[what](toy_images())
    method = replace(SMALL, factor=factor)
    change = sums(plain, method) - sums(without_one(plain, 4), method)
    moved = change.norm(dim=1)
    bound = math.sqrt(3 + 1)
    assert bool(change.isfinite().all())
    assert moved.max() <= bound * (1 + 1e-6)
    assert int((moved > 1e-4).sum()) == 1  # classes are disjoint
    assert moved.max() >= 1  # the count at the least
    if what == "as it is":
        assert moved.max() == pytest.approx(bound, rel=1e-6)


def test_the_noise_is_that_of_the_guarantee() -> None:
    asked: list[tuple[int, ...]] = []

    def ones(shape: tuple[int, ...]) -> Tensor:
        asked.append(shape)
        return torch.ones(shape, dtype=torch.float64)

    data = toy_images((400, 300))
    with known_secrets(silent):
        plain = SMALL.init(data, torch.Generator().manual_seed(0))
    with known_secrets(ones):
        noised = SMALL.init(data, torch.Generator().manual_seed(0))
    width = plain["pool.means"].shape[2]
    assert asked == [(2, 3 * width + 1)]  # once, a number for each of the sums
    sigma = gaussian_sigma(1.0, 1e-5) * math.sqrt(4)
    counts = torch.tensor([400.0, 300.0])
    for label, count in enumerate(counts):
        expected = (plain["pool.means"][:, label] * count + sigma) / (count + sigma)
        assert torch.allclose(noised["pool.means"][:, label], expected.float(), atol=1e-5)


@pytest.mark.parametrize("pool_size", [1, 30])
def test_classes_too_small_for_the_noise_of_one_network_are_named(pool_size: int) -> None:
    with known_secrets(silent):
        width = SMALL.init(toy_images(), torch.Generator().manual_seed(0))["pool.means"].shape[2]
        least = 3.730 * math.sqrt(2 * width)  # the deviation that Balle & Wang give for epsilon 1 and delta 1e-5
        data = toy_images((math.floor(least), math.ceil(least)))
        with pytest.warns(
            Note, match=f"of 1 of 2 classes .'class0'.*; give at least {math.ceil(3 * least)} records a class"
        ):
            replace(SMALL, pool_size=pool_size).init(data, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("epsilon", "given", "networks"),
    [(10.0, "auto", 200), (1.0, "auto", 200), (0.99, "auto", 60), (0.1, "auto", 60), (0.1, 3, 3), (9.0, 3.0, 3)],
)
def test_under_much_noise_fewer_networks_look_at_the_data(epsilon: float, given: Any, networks: int) -> None:
    method = replace(SMALL, epsilon=epsilon, pool_size=given, steps=1)
    with known_secrets(silent):
        state = method.init(toy_images(), torch.Generator().manual_seed(0))
    assert len(state["pool.means"]) == networks
    made = ddplug.distill(toy_images(), method, device="cpu")
    assert f"in {networks} random networks" in made.provenance["privacy"]["mechanism"]
    deviation = gaussian_sigma(epsilon, 1e-5) * math.sqrt(networks + 1)
    assert f"standard deviation {deviation:.6g}" in made.provenance["privacy"]["mechanism"]


def test_secret_noise_is_normal_and_new_each_time() -> None:
    drawn = secret_normal((40_000,))
    assert drawn.dtype == torch.float64 and len(drawn.unique()) == 40_000
    assert kstest(drawn.numpy(), "norm").pvalue > 1e-6
    assert not torch.equal(drawn, secret_normal((40_000,)))


def test_two_runs_of_one_seed_have_different_noise() -> None:
    one, other = (ddplug.distill(toy_images(), SMALL, seed=0, device="cpu") for _ in range(2))
    assert not torch.equal(one.inputs, other.inputs)


def test_a_canary_gets_through_the_sums_and_no_other_way() -> None:
    data = toy_images()
    marked = replace(data, inputs=data.inputs.clone())
    marked.inputs[3] = 255 - marked.inputs[3]
    with known_secrets(silent):
        plain, changed = (ddplug.distill(each, SMALL, device="cpu") for each in (data, marked))
    assert not torch.equal(plain.inputs, changed.inputs)
    drowned = replace(SMALL, epsilon=1e-12)  # next to nothing but noise, the same on both sides
    with known_secrets():
        plain, changed = (ddplug.distill(each, drowned, device="cpu") for each in (data, marked))
    assert torch.allclose(plain.inputs, changed.inputs, atol=1e-4)


@pytest.mark.parametrize(("shape", "factor"), [((1, 8, 8), 1), ((3, 15, 40), 1), ((1, 16, 16), 2), ((9,), 1)])
def test_images_of_few_pixels_are_stored_whole(shape: tuple[int, ...], factor: int) -> None:
    assert settled(DPDM(), shape).factor == factor


@pytest.mark.parametrize("factor", [1, 2])
def test_networks_see_records_as_small_as_images_are_stored(factor: int) -> None:
    data, method = toy_images(), replace(SMALL, factor=factor)
    blocks = torch.nn.functional.avg_pool2d(data.inputs.float(), factor)
    coarse = torch.nn.functional.interpolate(blocks, scale_factor=factor)  # of one value where a pixel is stored
    plain = replace(data, inputs=data.inputs.float(), preprocess=Identity())
    assert torch.allclose(sums(plain, method), sums(replace(plain, inputs=coarse), method))


def test_what_features_are_measured_from_is_computed_without_the_data() -> None:
    data = toy_images()
    other = replace(data, inputs=255 - data.inputs)
    first, second = (SMALL.init(each, torch.Generator().manual_seed(0))["pool.center"] for each in (data, other))
    assert torch.equal(first, second)
    own = settled(SMALL, data.shape)
    view = own._views(data, torch.Generator().manual_seed(0))[0]
    noise = torch.randn(2000, *own._shape(data), generator=torch.Generator().manual_seed(1))
    for label in range(data.num_classes):
        seen = class_outputs(own._features(data), noise, torch.tensor([label]), view)[0]
        error = (seen.mean(0) - view["center"][label]) / seen.std(0).clamp_min(1e-3)
        assert float(error.abs().max()) < 6 / math.sqrt(dp_dm._CENTERED)


class Counted(LabeledData):
    """Counts how often each sample is read."""

    reads: list[int]

    def batch(self, index: Tensor) -> Tensor:
        type(self).reads += index.tolist()
        return super().batch(index)


def test_the_data_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = toy_images()
    counted = Counted(**{name: value for name, value in vars(data).items() if name in LabeledData.__dataclass_fields__})
    Counted.reads = []
    rng = torch.Generator().manual_seed(0)
    state = SMALL.init(counted, rng)
    assert sorted(Counted.reads) == list(range(len(data)))
    gone = replace(data, inputs=torch.zeros_like(data.inputs), targets=torch.zeros_like(data.targets))
    made = []
    for rest in (counted, gone):  # of which the steps and the set take the shape alone
        rng.manual_seed(1)
        after, _ = SMALL.step(state, rest, rng)
        made.append(SMALL.result(after, rest))
    assert sorted(Counted.reads) == list(range(len(data)))
    assert torch.equal(made[0].inputs, made[1].inputs)
    assert bool((made[0].inputs != state["inputs"]).any())


def files(data: LabeledData, folder: Path) -> list[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Distill with drowned data, and read back the checkpoint and the set."""
    folder.mkdir()
    made = ddplug.distill(
        data,
        replace(SMALL, steps=1),
        checkpoint=folder / "run",
        checkpoint_every=0,
        device="cpu",
        codec="pixels:bits=2",
    )
    made.save(folder / "set")
    return [read_tensors(str(folder / "run"), "checkpoint"), read_tensors(str(folder / "set"), "synthetic-set")]


@pytest.mark.parametrize("floats", [False, True], ids=["bytes", "floats"])
def test_files_of_neighbors_with_the_same_noisy_sums_are_the_same(
    floats: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(toy_images(), preprocess=Identity())
    if floats:  # whose range of values would tell
        data = replace(data, inputs=data.inputs.float() - 128)
        data.inputs[3] = 90_000.0
    neighbor = without_one(data, 3)
    shape = sums(data).shape
    monkeypatch.setattr(dp_dm, "_class_sums", lambda *_: torch.full(shape, 20.0, dtype=torch.float64))
    with known_secrets():
        one, other = files(data, tmp_path / "one"), files(neighbor, tmp_path / "other")
    for (tensors, header), (others, its) in zip(one, other, strict=True):
        assert header == its
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items())
    provenance = one[1][1]["provenance"]
    assert provenance["data"] == {"name": "toy-images"}
    assert not {"seconds", "data_range", "fingerprint", "size"} & {*provenance, *one[0][1]}


def test_a_checkpoint_holds_no_sums_without_noise(tmp_path: Path) -> None:
    data = toy_images()
    with known_secrets(silent):
        plain = SMALL.init(data, torch.Generator().manual_seed(0))["pool.means"]
    ddplug.distill(data, SMALL, steps=0, checkpoint=tmp_path / "run", device="cpu")
    tensors, _ = read_tensors(str(tmp_path / "run"), "checkpoint")
    means = tensors["state.pool.means"]
    assert float((means - plain).abs().median()) > 0.05
    # the generator that is kept is that of the seed: it has drawn networks and images, and no noise
    rng = torch.Generator().manual_seed(0)
    with known_secrets():
        SMALL.init(data, rng)
    assert torch.equal(tensors["generator"], rng.get_state())


class Stop:
    """Stops a run in its second step."""

    def start(self, total: int, done: int, name: str) -> None:
        pass

    def step(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        if step == 2:
            raise KeyboardInterrupt

    def close(self) -> None:
        pass


def test_a_resumed_run_reads_no_data_again(tmp_path: Path) -> None:
    data = toy_images()
    with pytest.raises(KeyboardInterrupt):
        ddplug.distill(data, SMALL, checkpoint=tmp_path / "run", callbacks=[Stop()], device="cpu")
    assert read_tensors(str(tmp_path / "run"), "checkpoint")[1]["step"] == 1
    other = replace(data, inputs=255 - data.inputs)
    copy = (tmp_path / "run").read_bytes()
    one = ddplug.distill(data, SMALL, checkpoint=tmp_path / "run", device="cpu")
    (tmp_path / "run").write_bytes(copy)
    two = ddplug.distill(other, SMALL, checkpoint=tmp_path / "run", device="cpu")
    assert torch.equal(one.inputs, two.inputs)


def test_the_rate_falls_to_zero_by_a_cosine() -> None:
    method = replace(SMALL, steps=8, learning_rate=0.5)
    state = adam_start({"inputs": torch.zeros(2)})
    for _ in range(8):  # under a steady slope Adam moves by the rate, and eight of a cosine sum to 4.5 of the first
        state = {**state, **method._moved(state, {"inputs": torch.tensor([3.0, -3.0])})}
    assert state["inputs"].tolist() == pytest.approx([-0.5 * 4.5, 0.5 * 4.5], rel=1e-4)
    assert torch.equal(method._moved(state, {"inputs": torch.ones(2)})["inputs"], state["inputs"])  # steps beyond it


def test_a_set_says_what_it_promises() -> None:
    made = ddplug.distill(toy_images(), replace(SMALL, epsilon=2.0), device="cpu")
    said = privacy_statement(made.provenance)
    assert said is not None
    assert (said["epsilon"], said["delta"], said["neighbors"]) == (2.0, 1e-5, "one record added or removed")
    assert any("fewer than 100000 records" in item for item in said["public"])
    for post in (made.quantize(bits=2), made.compress("pixels:bits=2"), made.select([0, 1]), made.enlarged()):
        assert inspect(post)["privacy"] == said
    assert "| differential privacy | epsilon 2, delta 1e-05, for one record added or removed |" in card(made)
    assert "not anonymous" not in card(made)


def test_statements_of_merged_sets_add_up() -> None:
    sets = [ddplug.distill(toy_images(), replace(SMALL, epsilon=e), device="cpu") for e in (1.0, 0.5)]
    merged = sets[0].merge(sets[1]).merge(sets[1])
    said = privacy_statement(merged.provenance)
    assert said is not None
    assert in_words(said) == "epsilon 2, delta 3e-05, for one record added or removed, the sum of 3 releases"
    plain = ddplug.distill(toy_images(), Random(images_per_class=4), device="cpu").reduced(2)
    mixed = merged.merge(plain)
    assert inspect(mixed)["privacy"] is None
    assert "not anonymous" in card(mixed)


@pytest.mark.parametrize(
    "own",
    [
        None,
        "epsilon 0",
        {},
        {"epsilon": 0, "delta": 1e-5},
        {"epsilon": "1", "delta": 1e-5},
        {"epsilon": 1.0, "delta": float("nan")},
        {"epsilon": True, "delta": 1e-5},
        {"epsilon": 10**400, "delta": 1e-5},
        {"epsilon": -1.0, "delta": 1e-5},
        {"epsilon": 1.0, "delta": 1e-5, "neighbors": "one pixel"},
    ],
)
def test_a_strange_file_promises_nothing(own: Any) -> None:
    if isinstance(own, dict):
        own = {"neighbors": "one record added or removed", **own}
    assert privacy_statement({"privacy": own}) is None
    assert privacy_statement({"merged": own}) is None


FIXED = Standardize(torch.tensor([0.5]), torch.tensor([0.25]))


@pytest.mark.parametrize("kind", ["standardize", "zca"])
def test_what_was_computed_from_the_data_is_refused(kind: str) -> None:
    data = from_arrays(toy_images().inputs, toy_images().targets, preprocess=kind)
    for each in (data, data.to("cpu"), data.split(0.3)[0], replace(data, preprocess=data.preprocess.to("cpu"))):
        with pytest.raises(OptionError, match=r"was computed from the data .*preprocess='identity'"):
            ddplug.distill(each, SMALL, device="cpu")
    for fine in ("identity", FIXED):
        public = from_arrays(toy_images().inputs, toy_images().targets, preprocess=fine)
        assert len(ddplug.distill(public, SMALL, steps=0, device="cpu")) == 12


def test_what_is_fitted_is_marked_and_nothing_else() -> None:
    pixels = toy_images().inputs
    assert [fit(kind, pixels).fitted for kind in ("identity", "standardize", "zca")] == [False, True, True]
    assert not FIXED.fitted and not FIXED.to("cpu").fitted and "fitted" not in fit("zca", pixels).tensors()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0; it must be above 0"),
        ({"epsilon": -1.0}, "epsilon is -1.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"delta": 0.0}, "delta is 0.0; it must be above 0"),
        ({"delta": 1.0}, "delta is 1.0"),
        ({"pool_size": 0}, "pool_size is 0; it must be at least 1"),
        ({"pool_size": "many"}, "pool_size is 'many'; it must be a whole number"),
        ({"init_from": "real"}, "init_from is 'real', which shows real images; dp-dm starts from 'noise'"),
        ({"init_from": "kmeans"}, "init_from is 'kmeans'"),
    ],
)
def test_options_that_promise_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        DPDM(**options)


def test_a_delta_that_lets_a_record_be_shown_is_refused() -> None:
    data = toy_images((12, 13))
    with pytest.raises(OptionError, match=r"delta is 0\.04, .* there are 25 records; use delta=4e-03 or less"):
        ddplug.distill(data, replace(SMALL, delta=0.04), device="cpu")
    ddplug.distill(data, replace(SMALL, delta=0.004), steps=0, device="cpu")


@pytest.mark.parametrize("options", [{"nbytes": 900}, {"codec": "auto"}, {"nbytes": 900, "codec": "pixels:bits=1"}])
def test_nothing_is_settled_by_looking_at_the_data_again(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="is chosen by looking at the real images, which dp-dm must not reveal"):
        ddplug.distill(toy_images(), SMALL, device="cpu", **options)
    assert len(ddplug.distill(toy_images(), Random(images_per_class=1), device="cpu", **options))


class _Coupled(nn.Module):
    """Subtracts the mean of the batch."""

    def __init__(self, shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(math.prod(shape), num_classes)

    def embed(self, x: Tensor) -> Tensor:
        return x.flatten(1) - x.flatten(1).mean(0)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.head(self.embed(x))
        return made


def test_a_network_must_take_each_sample_by_itself() -> None:
    with pytest.raises(OptionError, match=r"one sample changes the features of another.* e\.g\. convnet:width=16,d"):
        ddplug.distill(toy_images(), replace(SMALL, network=_Coupled), device="cpu")
    ddplug.distill(toy_images(), replace(SMALL, network="convnet:width=16,depth=2"), steps=0, device="cpu")
    normalized = replace(SMALL, network="convnet:width=4,depth=1,norm=batch")  # in evaluation mode, which is fine
    ddplug.distill(toy_images(), normalized, steps=0, device="cpu")


def test_tables_work_whole() -> None:
    made = ddplug.distill(toy_table(), replace(SMALL, network="mlp:width=4", factor=1), device="cpu")
    assert made.inputs.shape == (3, 6)


def test_classes_that_are_too_small_for_the_noise_are_named() -> None:
    with pytest.warns(Note, match=r"noise is larger than .* of 3 of 3 classes \('class0', .*give at least \d+ records"):
        ddplug.distill(toy_images(), SMALL, steps=0, device="cpu")


def test_a_class_may_have_no_record() -> None:
    data = toy_images()
    empty = replace(data, inputs=data.inputs[data.targets > 0], targets=data.targets[data.targets > 0])
    assert ddplug.distill(empty, SMALL, steps=0, device="cpu").hard_targets.bincount().tolist() == [4, 4, 4]
