"""Figures of a distilled memory go through the evaluator and come out of every logger that can show them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.logging import BaseLogger, CSVLogger, TensorboardLogger, TextLogger
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin, ReplayPlugin
from avalanche.training.storage_policy import ClassBalancedBuffer
from avalanche.training.supervised import Naive, Replay
from torch.utils.data import TensorDataset

from ddplug.avalanche import DistilledBuffer, DistilledReplay, distillation_metrics
from ddplug.avalanche.groups import GroupKey
from ddplug.errors import DataError, OptionError

SECONDS, IMAGES, BYTES, PICTURE = (
    f"{name}/train_phase/train_stream"
    for name in ("Distillation_Seconds", "Memory_Images", "Memory_Bytes", "Memory_Picture")
)


def benchmark(*shape: int) -> Any:
    """Three experiences of two classes, 20 samples each."""
    labels = torch.arange(120) % 6
    data = TensorDataset(torch.rand(120, *shape, generator=torch.Generator().manual_seed(0)), labels)
    data.targets = labels.tolist()  # type: ignore[attr-defined]
    return nc_benchmark(data, data, 3, task_labels=False, fixed_class_order=list(range(6)))


def trained(strategy_class: Any, stream: Any, metrics: Any, logger: Any = None, **options: Any) -> Any:
    """Train on a stream."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SimpleMLP(num_classes=6, input_size=64, hidden_size=8)
        strategy = strategy_class(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.05),
            criterion=torch.nn.CrossEntropyLoss(),
            train_mb_size=10,
            evaluator=EvaluationPlugin(metrics, loggers=[logger or BaseLogger()]),
            **options,
        )
        for experience in stream:
            strategy.train(experience)
    return strategy


def memory(**options: Any) -> DistilledBuffer:
    return DistilledBuffer(12, distiller="random", **options)


def emitted(strategy: Any) -> dict[str, tuple[list[int], list[Any]]]:
    return dict(strategy.evaluator.get_all_metrics())


def test_figures_after_each_experience_at_the_iteration_of_its_end() -> None:
    policy = memory()
    metrics = emitted(
        trained(DistilledReplay, benchmark(1, 8, 8).train_stream, distillation_metrics(), storage_policy=policy)
    )
    assert set(metrics) == {SECONDS, IMAGES, BYTES}
    assert metrics[IMAGES] == ([4, 8, 12], [4, 8, 12])
    # a byte a number and a label, and for each class two levels of a float32
    assert metrics[BYTES] == ([4, 8, 12], [n * 65 + n // 2 * 8 for n in (4, 8, 12)])
    assert metrics[BYTES][1][-1] == policy.nbytes
    assert metrics[SECONDS][1][-1] == policy.seconds
    assert all(seconds > 0 for seconds in metrics[SECONDS][1])


def test_the_memory_is_found_in_a_stock_plugin_too() -> None:
    plugin = ReplayPlugin(mem_size=12, storage_policy=memory())
    strategy = trained(Naive, benchmark(1, 8, 8).train_stream, distillation_metrics(), plugins=[plugin])
    assert emitted(strategy)[IMAGES] == ([4, 8, 12], [4, 8, 12])


def test_a_policy_can_be_named_where_there_are_two() -> None:
    stream = benchmark(1, 8, 8).train_stream
    first, second = memory(), DistilledBuffer(6, distiller="random")
    plugins = [ReplayPlugin(mem_size=12, storage_policy=first)]
    strategy = trained(DistilledReplay, stream, distillation_metrics(second), storage_policy=second, plugins=plugins)
    assert emitted(strategy)[IMAGES][1] == [2, 4, 6]


def test_nothing_is_emitted_without_a_distilled_memory() -> None:
    stream = benchmark(1, 8, 8).train_stream
    assert emitted(trained(Replay, stream, distillation_metrics(picture=True), mem_size=12)) == {}
    assert emitted(trained(Naive, stream, distillation_metrics(picture=True))) == {}


def test_a_policy_without_bytes_is_refused() -> None:
    with pytest.raises(OptionError, match="ClassBalancedBuffer, which cannot say how many bytes it takes"):
        distillation_metrics(ClassBalancedBuffer(12))


def test_online_figures_come_where_the_memory_was_distilled() -> None:
    experience = benchmark(1, 8, 8).train_stream[0]
    stream = split_online_stream([experience], experience_size=5, seed=0)
    policy = memory(every=4)
    held = []

    class Watch(BaseLogger):
        def log_single_metric(self, name: str, value: Any, x_plot: int) -> None:
            held.extend([(x_plot, policy.updates, value, policy.nbytes)] if name.startswith("Memory_Bytes") else [])

    strategy = trained(DistilledReplay, stream, distillation_metrics(), Watch(), storage_policy=policy)
    assert strategy.clock.train_iterations == 8
    assert [(iteration, updates) for iteration, updates, _, _ in held] == [(1, 1), (4, 2), (8, 3)]
    # what waited between the last two, up to 15 samples of float32, is counted though it is gone
    most, left = held[-1][2:]
    assert most == left + 15 * 64 * 4


def test_a_picture_has_a_row_for_each_class() -> None:
    policy = memory()
    strategy = trained(
        DistilledReplay, benchmark(1, 8, 8).train_stream, distillation_metrics(picture=True), storage_policy=policy
    )
    pictures = [value.image for value in emitted(strategy)[PICTURE][1]]
    heights = [image.shape[1] for image in pictures]
    assert heights[1] - heights[0] == heights[2] - heights[1] == 2 * (64 + 4)  # two classes more, eight times enlarged
    assert pictures[-1].dtype == torch.uint8
    rows = policy.rows()
    last = rows.x[rows.y == 5][1, 0]
    shown = ((last - rows.x.min()) / (rows.x.max() - rows.x.min()) * 255).round()
    corner = [12 + 5 * 68, 12 + 1 * 68]  # after the margin, the sixth row and the second column
    left = pictures[-1].shape[2] - 12 - 2 * 68 - 12
    tile = pictures[-1][0, corner[0] : corner[0] + 64, left + corner[1] : left + corner[1] + 64]
    assert (tile[4::8, 4::8] - shown).abs().max() <= 1


def test_inputs_that_are_no_images_give_figures_but_no_picture() -> None:
    strategy = trained(
        DistilledReplay, benchmark(64).train_stream, distillation_metrics(picture=True), storage_policy=memory()
    )
    assert set(emitted(strategy)) == {SECONDS, IMAGES, BYTES}


def test_rows_are_sorted_and_named_by_task_class_and_experience() -> None:
    policy = memory()
    trained(DistilledReplay, benchmark(1, 8, 8).train_stream, [], storage_policy=policy)
    held = list(policy.groups.values())
    keys = [GroupKey(3), GroupKey(1), GroupKey(0, 2), GroupKey(0, 1), GroupKey(1, 0, 4), GroupKey(1, 0, 0)]
    policy._groups = {key: replace(own, group=key) for key, own in zip(keys, held, strict=True)}
    names = [text.get_text() for text in policy.picture(1).texts]
    wanted = ["1", "1 (experience 0)", "1 (experience 4)", "3", "0 (task 1)", "0 (task 2)"]
    assert names == [*wanted, "1 of 2 images per class shown"]


def test_an_empty_memory_has_no_picture() -> None:
    with pytest.raises(DataError, match="the memory is empty"):
        memory().picture()


def test_text_logger_prints_the_figures_with_the_next_block() -> None:
    file = io.StringIO()
    stream = benchmark(1, 8, 8)
    metrics = distillation_metrics(picture=True)
    strategy = trained(DistilledReplay, stream.train_stream, metrics, TextLogger(file), storage_policy=memory())
    strategy.eval(stream.test_stream[:1])
    printed = file.getvalue()
    assert [printed.count(f"\t{IMAGES} = {n}\n") for n in (4, 8, 12)] == [1, 1, 1]
    assert printed.count(f"\t{SECONDS} = ") == printed.count(f"\t{BYTES} = ") == 3
    assert "Memory_Picture" not in printed


def test_tensorboard_gets_one_curve_a_figure_and_the_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    logger = TensorboardLogger(tmp_path)
    metrics = distillation_metrics(picture=True)
    strategy = trained(DistilledReplay, benchmark(1, 8, 8).train_stream, metrics, logger, storage_policy=memory())
    logger.writer.close()
    events = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(events.Tags()["scalars"]) == {SECONDS, IMAGES, BYTES}
    assert [(event.step, event.value) for event in events.Scalars(IMAGES)] == [(4, 4), (8, 8), (12, 12)]
    images = [(image.step, image.height) for image in events.Images(PICTURE)]
    assert images == [(4, 2 * 68 + 24), (8, 4 * 68 + 24), (12, 6 * 68 + 24)]
    assert emitted(strategy)[PICTURE][0] == [4, 8, 12]


def test_the_csv_logger_keeps_its_fixed_columns(tmp_path: Path) -> None:
    logger = CSVLogger(str(tmp_path))
    strategy = trained(
        DistilledReplay,
        benchmark(1, 8, 8).train_stream,
        distillation_metrics(picture=True),
        logger,
        storage_policy=memory(),
    )
    logger.close()
    lines = (tmp_path / "training_results.csv").read_text().splitlines()
    assert lines[0] == "training_exp,epoch,training_accuracy,val_accuracy,training_loss,val_loss"
    assert [line.count(",") for line in lines] == [5, 5, 5, 5]
    assert emitted(strategy)[IMAGES][1] == [4, 8, 12]
