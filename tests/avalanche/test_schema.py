"""An experience read into tensors, and a memory that mirrors it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from ddplug.avalanche.schema import Rows, pairs_of, read, write
from ddplug.errors import DataError
from tests.avalanche.streams import SCENARIOS, dataset, from_parts, halved, nc, seeded, toy


def first(name: str) -> Any:
    return next(iter(SCENARIOS[name]())).dataset


def batches(data: Any) -> list[list[Tensor]]:
    """Collate all of it in mixed batches."""
    loader = DataLoader(data, batch_size=4, shuffle=True, generator=torch.Generator(), collate_fn=data.collate_fn)
    return list(loader)


@pytest.mark.parametrize("name", SCENARIOS)
def test_rows_are_the_items_under_eval_transforms(name: str) -> None:
    data = first(name)
    rows, schema = read(data)
    items = [data.eval()[i] for i in range(len(data))]
    assert torch.equal(rows.x, torch.stack([item[0] for item in items]))
    assert rows.y.tolist() == [int(item[1]) for item in items]
    assert rows.t.tolist() == [int(item[2]) if len(item) == 3 else 0 for item in items]
    assert rows.y.dtype == rows.t.dtype == torch.int64
    assert (schema.shape, schema.dtype) == (tuple(items[0][0].shape), items[0][0].dtype)


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_written_set_mirrors_the_stream(name: str, soft: bool) -> None:
    data = first(name)
    rows, schema = read(data)
    memory = write(rows, schema, torch.rand(len(rows), 6, generator=torch.Generator()) if soft else None)
    theirs, mine = data.eval()[1], memory[1]
    assert [type(part) for part in mine] == [type(part) for part in theirs]
    assert torch.equal(mine[0], theirs[0])
    assert [int(part) for part in mine[1:]] == [int(part) for part in theirs[1:]]
    assert list(memory.targets) == rows.y.tolist()
    assert memory.targets.val_to_idx.keys() == memory.targets.uniques == set(rows.y.tolist())
    assert hasattr(memory, "targets_task_labels") == hasattr(data, "targets_task_labels")
    assert [torch.equal(a[0], b[0]) for a, b in zip(memory.train(), memory.eval(), strict=True)].count(False) == 0
    for both in (data.concat(memory), memory.concat(data)):
        assert type(both) is type(data)
        assert len(both) == 2 * len(data)
        assert sorted(both.targets) == sorted([*data.targets] * 2)
        for batch in batches(both):
            assert len(batch) == len(theirs)
            assert batch[0].dtype == data[0][0].dtype
            assert all(part.dtype == torch.int64 for part in batch[1:])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_the_dtype_is_mirrored(dtype: torch.dtype) -> None:
    x, y = toy().tensors
    data = nc(data=dataset(x.to(dtype), y)).train_stream[0].dataset
    rows, schema = read(data)
    assert {batch[0].dtype for batch in batches(write(rows, schema).concat(data))} == {dtype}


def test_an_empty_memory_concatenates_both_ways() -> None:
    data = first("class")
    rows, schema = read(data)
    empty = write(Rows(rows.x[:0], rows.y[:0], rows.t[:0]), schema)
    assert len(empty) == 0
    for both in (empty.concat(data), data.concat(empty)):
        assert list(both.targets) == list(data.targets)
        assert list(both.targets_task_labels) == list(data.targets_task_labels)


@pytest.mark.parametrize("name", ["class", "class-plain", "task"])
def test_an_empty_dataset_has_no_rows(name: str) -> None:
    empty = first(name).subset([])
    rows, _ = read(empty)
    assert (len(rows), len(rows.x), len(rows.t)) == (0, 0, 0)
    assert pairs_of(empty) == set()


@pytest.mark.parametrize("name", SCENARIOS)
def test_pairs_are_those_of_the_rows(name: str) -> None:
    for experience in list(SCENARIOS[name]())[:4]:
        rows, _ = read(experience.dataset)
        assert pairs_of(experience.dataset) == set(zip(rows.t.tolist(), rows.y.tolist(), strict=True))


def test_soft_labels_follow_their_rows_and_nothing_else() -> None:
    rows, schema = read(first("class"))
    soft = torch.rand(len(rows), 5, generator=torch.Generator())
    memory = write(rows, schema, soft)
    picked = memory.subset([3, 0, 3])
    assert torch.equal(torch.stack(list(picked.soft_targets)), soft[[3, 0, 3]])
    assert len(memory[0]) == 3
    wide = write(rows, schema, torch.rand(len(rows), 4000, generator=torch.Generator()))
    one = wide.subset([0])
    assert len(pickle.dumps(one.soft_targets)) < 2 * 4000 * 4


def test_a_written_set_holds_none_of_the_stream() -> None:
    data = first("class")
    rows, schema = read(data.subset([0, 1]))
    assert len(pickle.dumps(write(rows, schema))) < 4000 < len(pickle.dumps(data))


def test_random_transforms_draw_the_same_and_leave_the_global_state_alone() -> None:
    def noisy(x: Tensor) -> Tensor:
        return x + torch.rand(x.shape)

    stream = nc(train_transform=noisy, eval_transform=noisy).train_stream
    before = torch.get_rng_state()
    one = read(stream[0].dataset)[0].x
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, seeded(lambda: read(stream[0].dataset)[0].x, 5))
    assert not torch.equal(one, torch.stack([item[0] for item in nc().train_stream[0].dataset]))


def test_the_train_transform_is_not_applied() -> None:
    raw = torch.stack([item[0] for item in nc().train_stream[0].dataset])
    stream = nc(train_transform=torch.zeros_like, eval_transform=halved).train_stream
    assert torch.equal(read(stream[0].dataset)[0].x, raw / 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: from_parts((torch.zeros(3, 2, dtype=torch.uint8), torch.arange(3))), "inputs are torch.uint8"),
        (lambda: TensorDataset(torch.zeros(3, 2), torch.rand(3)), "not whole numbers"),
        (lambda: TensorDataset(torch.zeros(3, 2), torch.zeros(3, 2)), "not whole numbers"),
        (lambda: TensorDataset(torch.zeros(3, 2), torch.arange(3), torch.arange(3)), "have 3 parts"),
        (lambda: [(torch.zeros(2), 0), (torch.zeros(3), 1)], "give inputs of one shape"),
        (lambda: [("text", 0)], "inputs are str"),
        (lambda: TensorDataset(torch.tensor([[0.0], [torch.nan]]), torch.arange(2)), "sample 1 .* holds NaN or infin"),
        (lambda: TensorDataset(torch.tensor([1.0, -torch.inf]), torch.arange(2)), "sample 1 .* holds NaN or infinity"),
    ],
)
def test_what_cannot_be_remembered_is_refused(data: Any, message: str) -> None:
    made = data()
    with pytest.raises(DataError, match=message):
        read(made.train_stream[0].dataset if hasattr(made, "train_stream") else made)


def test_a_plain_dataset_is_read_too() -> None:
    rows, schema = read(TensorDataset(torch.ones(3, 2), torch.arange(3)))
    assert rows.y.tolist() == [0, 1, 2]
    assert isinstance(write(rows, schema), AvalancheDataset)
