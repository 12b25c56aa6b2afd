"""Small real benchmarks of every scenario, and learners for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    class_incremental_benchmark,
    nc_benchmark,
    ni_benchmark,
    split_online_stream,
    task_incremental_benchmark,
)
from avalanche.benchmarks.utils import as_classification_dataset
from avalanche.models import MTSimpleMLP, SimpleMLP
from avalanche.models.dynamic_modules import avalanche_model_adaptation
from torch import Tensor
from torch.utils.data import TensorDataset
from torchvision import transforms

from ddplug.testing import toy_images, toy_table

CLASSES = 6


def seeded(make: Callable[[], Any], seed: int = 0) -> Any:
    """Make something that draws from the global random state."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        return make()


def dataset(inputs: Tensor, targets: Tensor) -> Any:
    """Return a dataset as torchvision's are: a list of labels beside the items, and ``int`` labels in them."""
    data = TensorDataset(inputs, targets)
    data.targets = targets.tolist()  # type: ignore[attr-defined]
    return data


def toy(counts: Sequence[int] = (12, 9, 14, 10, 7, 11), *, channels: int = 1, vectors: bool = False) -> Any:
    """Toy images ``(C, 8, 8)`` or rows ``(6,)``, float32."""
    if vectors:
        table = toy_table(counts)
        return dataset(table.inputs, table.targets)
    made = toy_images(counts, channels=channels)
    return dataset(made.inputs.float() / 255, made.targets)


def nc(experiences: int = 3, *, data: Any = None, **options: Any) -> Any:
    """Split classes in the order 0, 1, 2, ...; deprecated generator, by which all classic benchmarks are made."""
    data = toy() if data is None else data
    order = None if "fixed_class_order" in options or "per_exp_classes" in options else list(range(CLASSES))
    options = {"task_labels": False, "fixed_class_order": order, "shuffle": False, **options}
    return nc_benchmark(data, data, experiences, **options)


def plain(experiences: int = 3) -> Any:
    """Class-incremental, items without task labels and with tensor labels; the present generator."""
    data = as_classification_dataset(toy())
    return class_incremental_benchmark(
        {"train": data, "test": data}, class_order=list(range(CLASSES)), num_experiences=experiences
    )


def from_parts(*parts: tuple[Tensor, Tensor]) -> Any:
    """Return each part as an experience, without task labels."""
    sets = [as_classification_dataset(dataset(x, y)) for x, y in parts]
    return benchmark_from_datasets(train=sets, test=sets)


def permuted(experiences: int = 3) -> Any:
    """Domain-incremental: the same three classes, their pixels in another order each time."""
    x, y = toy((8, 9, 7)).tensors
    rng = torch.Generator().manual_seed(0)
    orders = [torch.arange(64), *(torch.randperm(64, generator=rng) for _ in range(experiences - 1))]
    return from_parts(*((x.flatten(1)[:, order].reshape_as(x), y) for order in orders))


def zero_based() -> Any:
    """Task-incremental: every task has the classes 0 and 1."""
    return nc(3, task_labels=True, class_ids_from_zero_in_each_exp=True)


def task_incremental() -> Any:
    """Task-incremental, class ids as they are; the present generator."""
    return task_incremental_benchmark(plain())


def revisiting() -> Any:
    """Class 1 comes back together with a new one, and class 0 alone."""
    x, y = toy((12, 16, 10)).tensors
    first, second = (y == 1).nonzero().flatten().split(8)
    zero, more = (y == 0).nonzero().flatten().split(6)
    parts = [torch.cat([zero, first]), torch.cat([second, (y == 2).nonzero().flatten()]), more]
    return from_parts(*((x[part], y[part]) for part in parts))


def blurry(x: Tensor, y: Tensor, experiences: int = 3, every: int = 5) -> Any:
    """Each experience has most samples of two classes of its own, and one in ``every`` belongs to the others' classes.

    Args:
        x: inputs.
        y: class labels, two for each experience.
        experiences: number of them.
        every: of a class, the first of so many samples comes with the next experience, the second with the one after
            it, and so on; the others come at home.
    """
    place = torch.zeros_like(y)
    for label in y.unique():
        place[y == label] = torch.arange(int((y == label).sum()))
    away = (place % every == 0) * (1 + place // every % (experiences - 1))
    when = (y // 2 + away) % experiences
    return from_parts(*((x[when == number], y[when == number]) for number in range(experiences)))


def online(size: int = 10, **options: Any) -> Iterable[Any]:
    """Pieces of a class-incremental stream."""
    stream: Iterable[Any] = split_online_stream(nc().train_stream, size, seed=0, **options)
    return stream


SCENARIOS: dict[str, Callable[[], Iterable[Any]]] = {
    "class": lambda: nc().train_stream,
    "class-plain": lambda: plain().train_stream,
    "task-zero-based": lambda: zero_based().train_stream,
    "task": lambda: task_incremental().train_stream,
    "permuted": lambda: permuted().train_stream,
    "revisited": lambda: revisiting().train_stream,
    "uneven": lambda: nc(3, per_exp_classes={0: 3, 1: 1, 2: 2}, fixed_class_order=list(range(6))).train_stream,
    "blurry": lambda: blurry(*toy((30,) * CLASSES).tensors).train_stream,
    "long-tailed": lambda: nc(data=toy((40, 20, 10, 5, 3, 3))).train_stream,
    "color": lambda: nc(data=toy(channels=3)).train_stream,
    "vectors": lambda: nc(data=toy(vectors=True)).train_stream,
    "transformed": lambda: nc(train_transform=transforms.RandomCrop(8, 2), eval_transform=halved).train_stream,
    "instances": lambda: ni_benchmark(toy(), toy(), 3, task_labels=False, shuffle=True, seed=0).train_stream,
    "online": online,
}
"""Streams by name; each call makes a new one."""


def halved(x: Tensor) -> Tensor:
    """An eval transform that can be told from none."""
    return x / 2


def learner(stream: Iterable[Any]) -> Any:
    """A small network for the inputs of a stream, with a head for each task where they count their classes from 0."""
    experiences = list(stream)
    inputs = experiences[0].dataset[0][0].numel()

    def single() -> Any:
        return SimpleMLP(num_classes=CLASSES, input_size=inputs, hidden_size=16, drop_rate=0.5)

    def multi_head() -> Any:
        heads = MTSimpleMLP(input_size=inputs, hidden_size=16)
        for experience in experiences:
            avalanche_model_adaptation(heads, experience)
        return heads

    again = getattr(experiences[-1], "task_label", 0) and 0 in experiences[-1].dataset.targets
    return seeded(multi_head if again else single)
