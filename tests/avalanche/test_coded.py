"""A memory of so many bytes: coded images, in layers that are dropped as classes come."""

from __future__ import annotations

import pickle
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from torch import Tensor

from ddplug.avalanche import DistilledBuffer, DistilledReplayPlugin
from ddplug.avalanche.coded import Arrival, arrive, cuts, interleaved, range_of, spread
from ddplug.avalanche.groups import GroupKey
from ddplug.avalanche.learner import networks_for
from ddplug.avalanche.options import MemoryOptions
from ddplug.avalanche.replay import _warped, augmented, mild
from ddplug.avalanche.schema import Schema, check_item, read
from ddplug.distillers.dm import DM
from ddplug.errors import DataError, OptionError
from ddplug.synthetic.recipe import Recipe
from tests.avalanche.streams import SCENARIOS, dataset, learner, nc, toy

BITS = "pixels:bits=1"
EACH = [name for name in SCENARIOS if name not in ("vectors", "color")]


def dots(number: int, seed: int = 0) -> Tensor:
    """Images of zeros and ones, which one bit a pixel holds without a loss."""
    x = (torch.rand(number, 1, 8, 8, generator=torch.Generator().manual_seed(seed)) > 0.8).float()
    x[:, 0, 0, 0], x[:, 0, 0, 1] = 0, 1
    return x


def dotted(experiences: int = 3, classes: int = 6, each: int = 60) -> Any:
    data = dataset(dots(classes * each), torch.arange(classes).repeat_interleave(each))
    return nc_benchmark(data, data, experiences, task_labels=False, fixed_class_order=list(range(classes)))


def taken(stream: Any, model: Any = None, **options: Any) -> DistilledBuffer:
    made = DistilledBuffer(**{"max_bytes": "12 images", "codec": BITS, "device": "cpu", **options})
    for experience in stream:
        made.post_adapt(SimpleNamespace(model=model), experience)
    return made


def arrival(nbytes: int = 900, shares: tuple[float, ...] = (0.4, 1.0), each: int = 80) -> Arrival:
    samples = {GroupKey(k): dots(each, k) for k in range(2)}
    made = arrive(samples, [each, each], BITS, nbytes, shares, None, Schema((1, 8, 8), torch.float32), Recipe())
    assert made is not None
    return made


def test_layers_hold_the_first_samples_in_their_order() -> None:
    made = arrival()
    assert made.nbytes <= 900
    assert [layer.nbytes <= 900 * share for layer, share in zip(made.layers, (0.4, 0.6), strict=True)] == [True, True]
    for k, images in enumerate(made.images):
        assert torch.allclose(images, dots(80, k)[: len(images)], atol=1e-6)


@pytest.mark.parametrize("codec", [BITS, "pixels:bits=4,side=6", "dct:step=40"])
def test_what_was_just_coded_is_known_as_decoding_gives_it(codec: str) -> None:
    rng = torch.Generator().manual_seed(3)
    samples = {GroupKey(k): 3 * torch.rand(60, 1, 8, 8, generator=rng) - 1 for k in range(3)}
    made = arrive(samples, [60] * 3, codec, 1500, (0.4, 1.0), None, Schema((1, 8, 8), torch.float32), Recipe())
    assert made is not None
    for one in (made, made.within(made.nbytes // 2), made.within(made.nbytes // 4), made.without({GroupKey(1)})):
        assert one is not None
        assert "images" in vars(one)
        again = pickle.loads(pickle.dumps(one))
        assert "images" not in vars(again)
        assert all(torch.equal(a, b) for a, b in zip(one.images, again.images, strict=True))


def test_shrinking_drops_layers_and_then_images() -> None:
    made = arrival()
    first = sum(made.layers[0].groups)
    fewer = made.within(400)
    assert fewer is not None
    assert (len(fewer), fewer.nbytes <= 400) == (first, True)
    whole = made.images
    cut = made.within(400)
    assert cut is not None
    assert [torch.equal(a, b) for a, b in zip(cut.images, fewer.images, strict=True)] == [True, True]
    assert all(torch.equal(images[: len(a)], a) for images, a in zip(whole, cut.images, strict=True))
    few = made.within(150)
    assert few is not None
    assert 0 < len(few) < first
    assert few.nbytes <= 150
    assert torch.allclose(few.images[1], dots(80, 1)[: len(few.images[1])], atol=1e-6)
    assert made.within(20) is None


def test_groups_leave_without_a_trace() -> None:
    made = arrival()
    rest = made.without({GroupKey(0)})
    assert rest is not None
    assert rest.groups == (GroupKey(1),)
    assert torch.equal(rest.images[0], made.images[1])
    assert rest.nbytes < made.nbytes
    assert made.without({GroupKey(0), GroupKey(1)}) is None
    assert made.without({GroupKey(5)}) is made


def test_shares_of_an_unknown_stream_halve() -> None:
    assert cuts(2, 0, []) == pytest.approx([1 / 17, 1 / 5, 1 / 2, 1])


def test_a_class_of_three_samples_gives_three() -> None:
    assert spread(40, [3, 60]) == [3, 37]
    x = torch.cat([dots(3, 1), dots(60, 2)])
    data = dataset(x, torch.tensor([0] * 3 + [1] * 60))
    made = taken(nc_benchmark(data, data, 1, task_labels=False).train_stream, max_bytes=300)
    assert len(made.groups[GroupKey(0)]) == 3
    assert len(made.groups[GroupKey(1)]) > 15


def test_every_beginning_has_its_share_of_old_samples() -> None:
    order = interleaved(30, 90, 0.25)
    for n in (8, 40, 100):
        assert abs(int((order[:n] < 30).sum()) - n / 4) <= 1
    assert sorted(order.tolist()) == list(range(120))


def test_the_memory_is_full_from_the_start_and_shrinks_alike() -> None:
    made = DistilledBuffer(max_bytes="20 images", codec=BITS, device="cpu")
    for number, experience in enumerate(dotted(each=150).train_stream, 1):
        made.post_adapt(None, experience)
        lengths = [len(memory) for memory in made.groups.values()]
        assert len(lengths) == 2 * number
        assert max(lengths) <= 2.2 * min(lengths)
        assert 0.8 * 1280 < made.nbytes <= 1280 == made.max_bytes
    x = dots(900)
    for key, memory in made.groups.items():
        own = x[150 * key.label : 150 * key.label + 150]
        near = torch.cdist(memory.images().flatten(1), own.flatten(1)).amin(1)
        assert near.max() < 1e-4, "an image is none of its class"


@pytest.mark.parametrize("scenario", EACH)
def test_every_stream_is_remembered(scenario: str) -> None:
    stream = list(SCENARIOS[scenario]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = taken(stream, learner(stream), max_bytes="12 images")
    seen: set[tuple[int, int]] = set()
    for experience in stream:
        rows = read(experience.dataset)[0]
        seen |= set(zip(rows.y.tolist(), rows.t.tolist(), strict=True))
    assert {(key.label, key.task) for key, own in made.groups.items() if len(own)} == seen
    assert made.nbytes <= 768
    both = stream[-1].dataset.concat(made.buffer)
    assert type(both[len(both) - 1][1]) is type(stream[-1].dataset[0][1])


def test_a_copy_holds_bytes_and_goes_on_alike() -> None:
    stream = list(dotted().train_stream)
    made = taken(stream[:2])
    rows = made.rows()
    again = pickle.loads(pickle.dumps(made))
    assert again._groups == {}
    assert torch.equal(again.rows().x, rows.x)
    for each in (made, again):
        each.post_adapt(None, stream[2])
    assert torch.equal(made.rows().x, again.rows().x)
    assert len(pickle.dumps(made)) < made.nbytes + 9000


def test_a_returning_class_is_joined_by_the_samples_it_stands_for() -> None:
    x = torch.cat([dots(90, 1), dots(30, 2)])
    parts = [dataset(part, torch.zeros(len(part), dtype=torch.int64)) for part in (x[:90], x[90:])]
    made = DistilledBuffer(max_bytes=500, codec=BITS, groupby="class", device="cpu")
    for part in parts:
        made.update_from_dataset(part)
    (memory,) = made.groups.values()
    near = torch.cdist(memory.images().flatten(1), x.flatten(1)).argmin(1)
    assert memory.seen == 120
    assert (near < 90).float().mean() == pytest.approx(0.75, abs=0.05)


def test_a_window_draws_what_the_learner_finds_hard() -> None:
    x = torch.cat([dots(50, 1), 1 - dots(50, 2)])
    data = dataset(x, torch.zeros(100, dtype=torch.int64))
    linear = torch.nn.Linear(64, 2)
    model = torch.nn.Sequential(torch.nn.Flatten(), linear)
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.full((64,), 0.1), torch.zeros(64)]))
    made = DistilledBuffer(max_bytes=200, codec=BITS, window=(0.5, 1.0), device="cpu")
    made.post_adapt(SimpleNamespace(model=model), SimpleNamespace(dataset=data))
    assert len(made.rows()) > 5
    assert bool((made.rows().x.mean((1, 2, 3)) < 0.5).all())


def test_photographs_of_any_range_come_back() -> None:
    x = (
        torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        .repeat_interleave(4, 2)
        .repeat_interleave(4, 3)
    )
    x = (x - 0.5) / torch.tensor([0.2, 0.25, 0.3])[:, None, None]
    low_high = range_of([x]).inverse(x)
    assert (float(low_high.min()), float(low_high.max())) == pytest.approx((0, 1), abs=1e-5)
    made = taken(
        [SimpleNamespace(dataset=dataset(x, torch.arange(60) % 2))], max_bytes="10 images", codec="avif:quality=90"
    )
    near = torch.cdist(made.rows().x.flatten(1), x.flatten(1)).amin(1) / 768**0.5
    assert near.median() < 0.5
    assert made.nbytes <= 7680


def test_what_was_chosen_is_reported() -> None:
    report = taken(nc().train_stream, window=(0.2, 0.9)).memory_report()
    assert "codec pixels:bits=1" in report
    assert "ranks 0.2 to 0.9" in report
    assert "of 768 bytes" in report


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_bytes": 800, "factor": 2}, "factor would have no effect"),
        ({"max_bytes": 800, "soft_labels": True}, "soft_labels would have no effect"),
        ({"max_size": 8, "codec": BITS}, "give max_bytes, not max_size"),
        ({"max_bytes": "8 pounds"}, "max_bytes is '8 pounds'"),
        ({"max_bytes": 800, "codec": "pixel"}, "pixels"),
        ({"max_bytes": 800, "window": (0.9, 0.1)}, "window is (0.9, 0.1)"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError) as caught:
        DistilledBuffer(**options)
    assert words in str(caught.value)


def test_a_policy_is_not_given_beside_options_of_a_new_one() -> None:
    policy = DistilledBuffer(10)
    for options in ({"mem_size": 10}, {"mem_bytes": 100}, {"distiller": "dm"}, {"codec": BITS}):
        with pytest.raises(OptionError, match="beside storage_policy"):
            DistilledReplayPlugin(storage_policy=policy, **options)


def test_the_plugin_means_the_bytes_of_images() -> None:
    assert DistilledReplayPlugin(10).storage_policy.coded
    assert not DistilledReplayPlugin(10, distiller="class-mean").storage_policy.coded
    assert DistilledReplayPlugin(mem_bytes="8kB").storage_policy.max_bytes == 8000
    made = DistilledReplayPlugin(10, codec=BITS).storage_policy
    made.post_adapt(None, dotted().train_stream[0])
    assert made.max_bytes == 640


def test_one_byte_is_too_few() -> None:
    with pytest.raises(OptionError, match="not one image fits"):
        taken(nc().train_stream, max_bytes=1)


def test_training_on_another_size_is_refused_before_training() -> None:
    data = nc(train_transform=lambda x: x[:, :6, :6]).train_stream[0].dataset
    with pytest.raises(DataError, match=r"\(1, 6, 6\) in training and \(1, 8, 8\)"):
        check_item(data)
    check_item(nc(data=toy()).train_stream[0].dataset)


def test_soft_labels_leave_the_known_class_the_most_probable() -> None:
    model = learner(nc().train_stream)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([9.0, 0, 0, 0, 0, 0]))
    made = DistilledBuffer(12, distiller="class-mean", soft_labels=True, device="cpu")
    for experience in nc().train_stream:
        made.post_adapt(SimpleNamespace(model=model), experience)
    soft = made.soft_targets()
    assert soft is not None
    assert soft.argmax(1).tolist() == made.rows().y.tolist()
    assert soft.sum(1).allclose(torch.ones(12))


def test_frozen_layers_are_not_drawn_anew() -> None:
    first, second = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)
    first.requires_grad_(False)
    with networks_for("fresh", torch.nn.Sequential(first, second)) as make:
        assert callable(make)
        fresh: Any = make()
    assert torch.equal(fresh.learner[0].weight, first.weight)
    assert not torch.equal(fresh.learner[1].weight, second.weight)


def test_a_distiller_that_diverges_leaves_centroids() -> None:
    made = DistilledBuffer(12, distiller=DM(steps=4, learning_rate=1e30, pool_size=1), network="learner", device="cpu")
    stream = list(nc(1).train_stream)
    with pytest.warns(UserWarning, match=r"diverged.*k-means centroids"):
        made.post_adapt(SimpleNamespace(model=learner(stream)), stream[0])
    assert len(made.rows()) == 12
    assert bool(made.rows().x.isfinite().all())


def test_pieces_of_an_online_stream_are_taken_in_together() -> None:
    options = MemoryOptions()
    assert [options.waits_for(10, online=True), options.waits_for(5000, online=True)] == [50, 1]
    assert options.waits_for(10, online=False) == 1
    assert MemoryOptions(every=7).waits_for(10, online=True) == 7


@pytest.mark.parametrize("size", [2, 10])
def test_what_comes_between_two_times_is_in_the_bytes(size: int) -> None:
    stream = split_online_stream(dotted(2, 4).train_stream, size, seed=0)
    made, queued = DistilledBuffer(max_bytes=400, codec=BITS, every=4, device="cpu"), 0
    for piece in stream:
        made.post_adapt(None, piece)
        queued += len(made._queue)
        assert made.nbytes <= 400
    assert queued > 0
    assert {group.label: memory.seen for group, memory in made.groups.items()}.keys() == {0, 1, 2, 3}
    counted = sum(memory.seen for memory in made.groups.values()) + sum(own.seen for own in made._waiting.values())
    assert counted == 240
    x = dots(240)
    near = torch.cdist(made.rows().x.flatten(1), x.flatten(1))
    assert bool((near.argmin(1) // 60 == made.rows().y).all())
    again = pickle.loads(pickle.dumps(made))
    assert again.nbytes == made.nbytes


def test_rows_are_varied_by_a_function_of_one() -> None:
    x, rng = dots(6), torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    turned = augmented(x, lambda row: row.flip(2) + torch.rand(1), rng)
    assert torch.equal(torch.get_rng_state(), before)
    added = (turned - x.flip(3)).flatten(1)
    assert added.std(1).max() < 1e-6
    assert len(added[:, 0].unique()) == 6


def test_drawings_are_moved_over_their_background() -> None:
    x = 5 - 3 * dots(40)
    moved = augmented(x, mild, torch.Generator().manual_seed(0), x.new_full((1, 1, 1), 5.0))
    assert moved.shape == x.shape
    assert not torch.equal(moved, x)
    assert float(moved.max()) <= 5 + 1e-5
    assert float(moved.min()) >= 2 - 1e-5
    assert torch.equal(mild(x.flatten(1), torch.Generator()), x.flatten(1))


def test_no_more_is_read_than_the_memory_may_need() -> None:
    class Counted(torch.utils.data.TensorDataset):
        reads = 0

        def __getitem__(self, index: int) -> Any:
            Counted.reads += 1
            return super().__getitem__(index)  # type: ignore[no-untyped-call]

    data: Any = Counted(dots(4000), torch.arange(4).repeat_interleave(1000))
    data.targets = data.tensors[1].tolist()
    stream = nc_benchmark(data, data, 2, task_labels=False, fixed_class_order=[0, 1, 2, 3]).train_stream
    made = taken(stream[:1], max_bytes=400)
    Counted.reads = 0
    made.post_adapt(None, stream[1])
    assert Counted.reads < 300
    assert made.nbytes > 320


@pytest.mark.parametrize(
    ("shape", "images", "planned"), [((64,), 10, True), ((64,), 10, False), ((64,), 50, True), ((3, 32, 32), 1, True)]
)
def test_every_class_has_rows_however_few_the_bytes(shape: tuple[int, ...], images: int, planned: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    centers = torch.rand(10, *shape, generator=rng)
    y = torch.arange(10).repeat_interleave(20)
    x = centers[y] + 0.1 * torch.randn(len(y), *shape, generator=rng)
    data = dataset(x, y)
    stream = nc_benchmark(data, data, 5, task_labels=False, fixed_class_order=list(range(10))).train_stream
    made = DistilledBuffer(max_bytes=f"{images} images", device="cpu", adaptive_size=not planned)
    for number, experience in enumerate(stream, 1):
        given = experience if planned else SimpleNamespace(dataset=experience.dataset)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.post_adapt(None, given)
        held = {group.label: memory.images() for group, memory in made.groups.items() if len(memory)}
        assert sorted(held) == list(range(2 * number))
        assert made.nbytes <= images * centers[0].numel() == made.max_bytes
    if len(shape) == 1:
        near = [torch.cdist(rows, centers).argmin(1) for rows in held.values()]
        assert all(bool((own == label).all()) for label, own in enumerate(near))
    again = pickle.loads(pickle.dumps(made))
    assert torch.equal(again.rows().x, made.rows().x)


def test_ranges_of_each_column_are_kept_where_there_are_bytes_for_them() -> None:
    x = torch.rand(900, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1e3, 1e-3, 1.0])
    made = taken([SimpleNamespace(dataset=dataset(x, torch.arange(900) % 2))], max_bytes=2000, codec="pixels:bits=8")
    near = torch.cdist(made.rows().x / x.std(0), x / x.std(0)).amin(1)
    assert len(near) > 50
    assert float(near.max()) < 0.05


def test_groups_without_an_image_are_said_once() -> None:
    stream = dotted(3).train_stream
    with pytest.warns(UserWarning, match=r"\d of \d groups have no image: \d+ bytes of each") as caught:
        taken(stream, max_bytes=60)
    assert len(caught) == 1
    twice = enumerate([*stream, *stream])
    domains = [SimpleNamespace(dataset=each.dataset, _current_experience=number) for number, each in twice]
    with pytest.warns(UserWarning, match="groupby='class' keeps one for each class"):
        taken(domains, max_bytes=120)


def test_images_are_moved_as_the_usual_grid_would_move_them() -> None:
    x, entries = torch.rand(5, 2, 7, 10), torch.randn(5, 6)
    grid = torch.nn.functional.affine_grid(entries.view(5, 2, 3), [5, 2, 7, 10], align_corners=False)
    wanted = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    assert torch.allclose(_warped(x, entries), wanted, atol=1e-4)


def test_few_vectors_are_centroids_and_many_are_samples() -> None:
    rng = torch.Generator().manual_seed(0)
    centers = torch.randn(2, 2, 16, generator=rng) * 3  # two clusters in each of two classes
    x = centers.repeat_interleave(40, 1).flatten(0, 1) + torch.randn(160, 16, generator=rng)
    data = dataset(x, torch.arange(2).repeat_interleave(80))
    stream = nc_benchmark(data, data, 1, task_labels=False).train_stream

    few = taken(stream, max_bytes=60, codec=None)  # of two a class: more would divide a cluster, in one way or another
    assert "kmeans-centroid" in few.memory_report()
    for label in range(2):
        own = torch.stack([row[0] for row in few.buffer if row[1] == label])
        # the mean of 40 samples is a sixth as far from its cluster's center as a sample is
        assert torch.cdist(own, centers[label]).min(1).values.max() < 0.5 * 16**0.5
    assert "real images" in taken(stream, max_bytes=2000, codec=None).memory_report()
