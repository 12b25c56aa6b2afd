"""Items read directly against those that Avalanche gives, one by one and in batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark, nc_benchmark
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.data_loader import GroupBalancedDataLoader, SingleDatasetDataLoader
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from torch.utils.data import TensorDataset, default_collate

from ddplug.avalanche.direct import Batches, Direct, direct, read_directly, values


def _data(first: float, number: int) -> Any:
    """Items that say where they come from."""
    x = first + torch.arange(float(number)).view(-1, 1)
    data: Any = TensorDataset(x, torch.arange(number) % 4)
    data.targets = data.tensors[1].tolist()
    groups = {"train": (lambda x: x * 10, None), "eval": (lambda x: x + 0.5, lambda y: y + 1)}
    return as_classification_dataset(data, transform_groups=groups)


def _nested() -> Any:
    low, high = _data(0, 6).subset([5, 0, 3]), _data(100, 8).freeze_transforms()
    return low.concat(high.subset([7, 2, 2])).subset([4, 0, 5, 1, 1])


def _with_logits() -> Any:
    own = DataAttribute([torch.full((2,), float(k)) for k in range(5)], "logits", use_in_getitem=True)
    return _nested().update_data_attribute("logits", own)


def _of_a_stream() -> Any:
    data = _data(0, 16)
    stream = class_incremental_benchmark({"train": data, "test": data}, num_experiences=2).train_stream
    return list(stream)[1].dataset


def _of_pieces() -> Any:
    data = _data(0, 16)
    stream = class_incremental_benchmark({"train": data, "test": data}, num_experiences=2).train_stream
    return list(split_online_stream(stream, experience_size=3))[2].dataset


CASES: list[Callable[[], Any]] = [_nested, _with_logits, _of_a_stream, _of_pieces]


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(
        torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("make", CASES)
def test_items_are_those_of_avalanche_under_either_group(make: Callable[[], Any]) -> None:
    for dataset in (make(), make().eval()):
        made = direct(dataset)
        assert isinstance(made, Direct) and len(made) == len(dataset)
        for k in range(len(dataset)):
            assert type(made[k]) is type(dataset[k])
            assert _same(made[k], dataset[k])


@pytest.mark.parametrize("make", CASES)
def test_labels_are_those_of_avalanche(make: Callable[[], Any]) -> None:
    dataset = make()
    for own in dataset._data_attributes.values():
        found = values(own)
        assert isinstance(found, list)
        assert _same(found, [own[k] for k in range(len(dataset))])
        assert [type(value) for value in found] == [type(own[k]) for k in range(len(dataset))]


def test_values_of_any_sequence_are_found() -> None:
    assert values([3, 4]) == [3, 4]
    assert values(DataAttribute(torch.tensor([5, 6]), "a")) == [5, 6]
    nested = FlatData([FlatData([[1, 2, 3]], [2, 0], can_flatten=False), ConstantSequence(9, 2)], [3, 0, 1, 2])
    assert values(DataAttribute(nested, "a")) == list(nested) == [9, 3, 1, 9]
    assert values(DataAttribute(ConstantSequence(4, 3), "a")) == [4, 4, 4]
    assert values(DataAttribute(ConstantSequence(4, 0), "a")) == []


def test_what_is_no_plain_avalanche_dataset_stays() -> None:
    class Own(AvalancheDataset):
        def __getitem__(self, index: Any) -> Any:
            return super().__getitem__(index)

    leaf: Any = TensorDataset(torch.zeros(3, 1), torch.zeros(3))
    fast: Any = TensorDataset(torch.zeros(3, 1), torch.zeros(3))
    fast.ffcv_info = "its own loader"
    for dataset in (leaf, Own([leaf]), AvalancheDataset([fast])):
        assert direct(dataset) is dataset


def test_dictionaries_keep_their_names() -> None:
    items: Any = [{"x": k} for k in range(3)]
    dataset: Any = AvalancheDataset([items], data_attributes=[DataAttribute([7, 8, 9], "mark", use_in_getitem=True)])
    assert direct(dataset)[1] == {"x": 1, "mark": 8} and items[1] == {"x": 1}


def test_a_loader_draws_the_same_batches() -> None:
    dataset, batches = _of_a_stream(), []
    changes: list[Callable[[Any], Any]] = [len, read_directly]
    for change in changes:
        loader = GroupBalancedDataLoader([dataset, dataset], batch_size=3, shuffle=True)
        change(loader)
        torch.manual_seed(0)
        batches.append(list(loader))
    assert len(batches[0]) == len(batches[1]) > 1
    assert all(_same(one, other) for one, other in zip(*batches, strict=True))


def _plain(transform: Any = None, labels: Any = None, **options: Any) -> Any:
    """A stream whose items lie in a tensor; classes get new numbers in their order."""
    y = torch.arange(24) % 6 if labels is None else labels
    data: Any = TensorDataset(torch.arange(48.0).view(24, 2), y)
    data.targets = y.tolist()
    given = {"task_labels": False, "fixed_class_order": [5, 2, 0, 1, 4, 3], "train_transform": transform, **options}
    return list(nc_benchmark(data, data, 2, **given).train_stream)[1].dataset


def _bare() -> Any:
    x = torch.arange(10.0).view(5, 2)
    return AvalancheDataset([TensorDataset(x, torch.arange(5), -x)]).subset([4, 1, 1])


def _stream() -> Any:
    data: Any = TensorDataset(torch.arange(32.0).view(16, 2), torch.arange(16) % 4)
    data.targets = data.tensors[1].tolist()
    return nc_benchmark(data, data, 2, task_labels=False).train_stream


IN_TENSORS: list[Callable[[], Any]] = [
    _plain,
    _bare,
    lambda: _plain(task_labels=True),
    lambda: _plain(class_ids_from_zero_in_each_exp=True),
    lambda: list(split_online_stream(_stream(), 3, seed=0))[1].dataset,
]

NOT_IN_TENSORS: list[Callable[[], Any]] = [
    *CASES,
    lambda: _plain(lambda x: x * 2),
    lambda: AvalancheDataset([[[torch.zeros(1), k] for k in range(4)]]),
    lambda: _bare().concat(_bare()),
    lambda: _bare().update_data_attribute("far", DataAttribute([0.5, 1.0, 2.0], "far", use_in_getitem=True)),
]


def _same_batch(one: Any, other: Any) -> bool:
    return type(one) is type(other) and all(
        a.dtype == b.dtype and a.stride() == b.stride() and torch.equal(a, b) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("make", [*IN_TENSORS, *NOT_IN_TENSORS])
def test_batches_are_those_of_avalanche(make: Callable[[], Any]) -> None:
    dataset = make()
    found = Batches(direct(dataset), dataset.collate_fn)
    assert (found.columns is not None) == (make in IN_TENSORS)
    last = len(dataset) - 1
    for index in ([0], [last, 0, 1], [1, 1]):
        assert _same_batch(found(index), dataset.collate_fn([dataset[k] for k in index]))


def test_own_collation_is_called() -> None:
    dataset = _plain()
    assert Batches(direct(dataset), default_collate).columns is not None
    assert Batches(direct(dataset), len)([0, 1, 2]) == 3


@pytest.mark.parametrize(("make", "workers"), [*((make, 0) for make in IN_TENSORS), (_plain, 1)])
def test_a_loader_draws_the_same_batches_from_tensors(make: Callable[[], Any], workers: int) -> None:
    dataset, batches = make(), []
    changes: list[Callable[[Any], Any]] = [len, read_directly]
    for change in changes:
        loader = SingleDatasetDataLoader(dataset, batch_size=2, shuffle=True, num_workers=workers)
        change(loader)
        torch.manual_seed(0)
        batches.append([*loader, *loader])
    assert len(batches[0]) == len(batches[1]) > 1
    assert all(_same_batch(one, other) for one, other in zip(*batches, strict=True))


def test_what_a_table_of_labels_lacks_is_said_when_the_item_is_asked_for() -> None:
    dataset = _plain()
    (leaf, steps), *_ = direct(dataset).sources
    steps[-1].func.transform_groups["train"].transforms[1].args[0][:] = []
    found = Batches(direct(dataset), default_collate)
    assert found.columns is None and len(leaf) == 24
    with pytest.raises(IndexError):
        found([0])
