"""Items read directly against those that Avalanche gives, one by one and in batches."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from avalanche.benchmarks import class_incremental_benchmark
from avalanche.benchmarks.scenarios.online import split_online_stream
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.data_attribute import DataAttribute
from avalanche.benchmarks.utils.data_loader import GroupBalancedDataLoader
from avalanche.benchmarks.utils.flat_data import ConstantSequence, FlatData
from torch.utils.data import TensorDataset

from ddplug.avalanche.direct import Direct, direct, read_directly, values


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
