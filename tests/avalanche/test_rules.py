"""How a memory is replayed beside the stream: chosen by measured rules, unless it was said."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from avalanche.benchmarks import nc_benchmark, split_online_stream
from avalanche.models import SimpleMLP
from avalanche.training import Naive
from avalanche.training.storage_policy import ReservoirSamplingBuffer
from torch import Tensor, nn

from ddplug.avalanche import DistilledBuffer, DistilledReplayPlugin
from ddplug.avalanche.plugin import FINETUNE, ROWS
from ddplug.avalanche.rules import Replayed, replayed
from tests.avalanche.streams import dataset, nc, seeded

pytestmark = pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")

WHOLE = (1.0, 1.0)
"""As many rows as in the fine-tuning, translated."""

HALF = (0.5, 0.0)

DRAWN = (*HALF, 0.5)
"""Few bytes of drawings: with half of the fine-tuning, too."""


def drawings(classes: int = 4, each: int = 120) -> Any:
    """Lines of ones on zeros, of which one bit a number keeps all; a batch of the stream is an experience."""
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(classes * each, 1, 8, 8, generator=rng) > 0.8).float()
    return nc(2, data=dataset(x, torch.arange(classes).repeat_interleave(each)), fixed_class_order=list(range(classes)))


def numbers(width: int = 6, each: int = 300) -> Any:
    """Vectors of two classes."""
    y = torch.arange(2).repeat_interleave(each)
    x = torch.randn(len(y), width, generator=torch.Generator().manual_seed(0)) + 3.0 * y[:, None]
    data = dataset(x, y)
    return nc_benchmark(data, data, 1, task_labels=False)


def photographs() -> Any:
    rng = torch.Generator().manual_seed(0)
    return nc(
        2, data=dataset(torch.rand(40, 3, 16, 16, generator=rng), torch.arange(40) % 4), fixed_class_order=[0, 1, 2, 3]
    )


def held(bench: Any, **options: Any) -> DistilledBuffer:
    made = DistilledBuffer(**{"max_bytes": 2000, "device": "cpu", **options})
    made.post_adapt(SimpleNamespace(model=nn.Sequential(nn.Flatten())), next(iter(bench)))
    return made


@pytest.mark.parametrize(
    ("kind", "real", "wanted"),
    [
        ("drawings", True, HALF),
        ("drawings", False, WHOLE),
        ("numbers", True, HALF),
        ("numbers", False, WHOLE),
        ("photographs", True, (1.0, 0.0)),
        ("photographs", False, (1.0, 0.0)),
        ("features", True, (1.0, 0.0)),
        ("features", False, (1.0, 0.0)),
        ("", False, WHOLE),
    ],
)
def test_the_rule_of_each_kind(kind: str, real: bool, wanted: tuple[float, float]) -> None:
    few, many = ((0.5, 1), (1.5, 0.5)) if (kind, real) == ("drawings", True) else ((1, 1), (1, 1))
    assert [replayed(kind, real, each) for each in (0, 4_999)] == [(*wanted, *few)] * 2
    assert [replayed(kind, real, each) for each in (5_000, 1e9)] == [(*wanted, *many)] * 2


@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda: held(drawings().train_stream), DRAWN),
        (lambda: held(drawings().train_stream, codec="pixels:bits=2"), DRAWN),
        (lambda: held(drawings().train_stream, codec="pixels:bits=1", distiller="kmeans"), WHOLE),
        (lambda: held(drawings().train_stream, max_bytes=None, max_size=12, distiller="kmeans"), WHOLE),
        (lambda: held(split_online_stream(drawings().train_stream, 60, seed=0)), WHOLE),
        (lambda: held(numbers().train_stream), HALF),
        (lambda: held(numbers().train_stream, max_bytes=100), WHOLE),  # few are centroids
        (lambda: held(numbers().train_stream, features="0"), (1.0, 0.0)),
        (lambda: held(photographs().train_stream), (1.0, 0.0)),
        (lambda: DistilledBuffer(max_bytes=100), WHOLE),  # nothing is known yet
    ],
)
def test_the_rule_follows_what_is_held(make: Any, wanted: tuple[float, ...]) -> None:
    assert make().replayed == Replayed(*wanted)


def test_the_rule_is_reported_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    beside = "by default 50 % of the rows beside the stream, not translated"
    words = f"{beside}, fine-tuning 0.5 times as long"
    with caplog.at_level(logging.INFO, "ddplug.avalanche"):
        made = held(drawings().train_stream)
    assert made.memory_report().endswith(f"; {words}")
    assert [record.getMessage() for record in caplog.records].count(words) == 1
    assert (
        held(drawings().train_stream, max_bytes=20_000)
        .memory_report()
        .endswith(f"{beside}, fine-tuning 1.5 times as long, with 50 % of the rows")
    )
    few = held(drawings().train_stream, codec="pixels:bits=1", distiller="kmeans")
    assert few.memory_report().endswith("; by default 100 % of the rows beside the stream, translated")


def rows_and_weights(bench: Any, batch: int = 240, policy: Any = None, **options: Any) -> tuple[list[int], Tensor]:
    """Train on two experiences; return the rows of each pass through the learner, and its last weights."""
    model = seeded(lambda: SimpleMLP(num_classes=4, input_size=64, hidden_size=8, drop_rate=0.0))
    given = {"storage_policy": policy} if policy else {"mem_bytes": 2000, **options}
    plugin = DistilledReplayPlugin(**{"finetune_steps": 2, **given})
    strategy = Naive(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        plugins=[plugin],
        train_mb_size=batch,
        evaluator=None,
    )
    sizes: list[int] = []
    model.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        for experience in bench:
            strategy.train(experience)
    return sizes, torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [240, 240, 120, 240, 240]),  # the stream, again, the memory beside it, and twice alone
        ({"batch_size_mem": 200}, [240, 240, 200, 200, 200]),
        ({"batch": 241}, [240, 240, 121, 241, 241]),
        ({"batch_size_mem": 7, "mode": "batch"}, [240, 247, 7, 7]),
        ({"codec": "pixels:bits=1", "distiller": "kmeans"}, [240, 240, 240, 240, 240]),
        ({"policy": ReservoirSamplingBuffer(400)}, [240, 240, 240, 240, 240]),
    ],
)
def test_rows_of_a_step(options: dict[str, Any], wanted: list[int]) -> None:
    assert rows_and_weights(drawings().train_stream, **options)[0] == wanted


def test_small_batches_meet_half_of_the_least_rows() -> None:
    sizes, _ = rows_and_weights(drawings().train_stream, batch=60)
    assert ROWS == 100
    assert sizes == [60] * 4 + [60, 50] * 4 + [100, 100]


@pytest.mark.parametrize(("nbytes", "steps", "rows"), [(2_000, 2, 240), (20_000, 3, 120)])
def test_many_bytes_of_drawings_are_fine_tuned_on_for_longer(nbytes: int, steps: int, rows: int) -> None:
    sizes, _ = rows_and_weights(drawings().train_stream, mem_bytes=nbytes, finetune_steps="auto")
    assert sizes == [240, 240, 120, *[rows] * steps]  # at most two for each of the stream, or three
    assert FINETUNE == 200


@pytest.mark.parametrize(("nbytes", "steps", "rows"), [(2_000, 100, 100), (20_000, 300, 50)])
def test_the_steps_of_a_long_stream(nbytes: int, steps: int, rows: int) -> None:
    sizes, _ = rows_and_weights(drawings(each=204).train_stream, 4, mem_bytes=nbytes, finetune_steps="auto")
    beside = 2 * 204 // 4
    assert sizes == [4] * beside + [4, 50] * beside + [rows] * steps


def test_translation_is_left_out_unless_it_is_asked_for() -> None:
    ends = [rows_and_weights(drawings().train_stream, **options)[1] for options in ({}, {"translate": 0})]
    assert torch.equal(*ends)
    assert not torch.equal(ends[0], rows_and_weights(drawings().train_stream, translate=1.0)[1])
