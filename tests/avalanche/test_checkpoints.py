"""A strategy saved by a process that is then killed goes on as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.benchmarks import nc_benchmark
from avalanche.checkpointing import maybe_load_checkpoint, save_checkpoint
from avalanche.evaluation.metrics import accuracy_metrics
from avalanche.models import SimpleMLP
from avalanche.training.plugins import EvaluationPlugin
from torch.utils.data import TensorDataset

from ddplug.avalanche import DistilledReplay, checkpoint_cure, distillation_metrics
from ddplug.distillers.dm import DM


def stream() -> Any:
    """Three experiences of two classes; the input of a class is bright in its own column."""
    labels = torch.arange(120) % 6
    images = 0.3 * torch.rand(120, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    images[torch.arange(120), 0, :, labels] += 0.7
    data = TensorDataset(images, labels)
    data.targets = labels.tolist()  # type: ignore[attr-defined]
    return nc_benchmark(data, data, 3, task_labels=False, fixed_class_order=list(range(6))).train_stream


def untrained() -> Any:
    """Make a strategy whose optimizer, sampler and memory all have state to lose."""
    model = SimpleMLP(num_classes=6, input_size=64, hidden_size=16)
    return DistilledReplay(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9),
        mem_size=12,
        distiller=DM(steps=3, pool_size=2, network="convnet:width=8,depth=1"),
        augment="auto",
        train_mb_size=8,
        train_epochs=2,
        evaluator=EvaluationPlugin(accuracy_metrics(epoch=True), distillation_metrics(picture=True), loggers=[]),
    )


def memory(strategy: Any) -> Any:
    return next(plugin.storage_policy for plugin in strategy.plugins if hasattr(plugin, "storage_policy"))


def train_and_die(path: str, threads: int) -> None:
    """Save after each experience, and be killed in the middle of the third."""
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    strategy = untrained()
    # not sliced: the experiences of a slice know of no others, and the memory would be divided among fewer classes
    for experience in stream():
        if strategy.clock.train_exp_counter == 2:
            strategy.optimizer.step = lambda: signal.raise_signal(signal.SIGKILL)
        strategy.train(experience)
        with checkpoint_cure():
            save_checkpoint(strategy, path)


@pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
def test_saved_killed_loaded_equals_uninterrupted(tmp_path: Path) -> None:
    path = tmp_path / "strategy.pkl"
    arguments = [sys.executable, "-W", "ignore", __file__, str(path), str(torch.get_num_threads())]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert done.returncode == -signal.SIGKILL, done.stderr

    with torch.random.fork_rng():
        torch.manual_seed(1)
        whole = untrained()
        for experience in stream():
            whole.train(experience)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        resumed, seen = maybe_load_checkpoint(untrained(), path)
        assert seen == 2
        assert sorted(group.label for group in memory(resumed).groups) == [0, 1, 2, 3]
        for experience in stream()[seen:]:
            resumed.train(experience)

    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    expected, found = memory(whole), memory(resumed)
    assert torch.equal(expected.rows().x, found.rows().x)
    assert torch.equal(expected.rows().y, found.rows().y)
    assert len(found.rows()) == 12
    assert found.updates == expected.updates == 3
    metrics, others = whole.evaluator.get_all_metrics(), resumed.evaluator.get_all_metrics()
    assert metrics["Memory_Bytes/train_phase/train_stream"] == others["Memory_Bytes/train_phase/train_stream"]


@pytest.mark.filterwarnings("ignore:No loggers specified:UserWarning")
def test_without_the_cure_saving_fails_and_with_it_works(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        strategy = untrained()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(strategy, tmp_path / "ill.pkl")
    with checkpoint_cure():
        save_checkpoint(strategy, tmp_path / "cured.pkl")
    assert (tmp_path / "cured.pkl").stat().st_size > 0


def test_the_cure_is_undone_when_the_context_ends() -> None:
    before = dict(vars(torch.optim))
    assert "sgd" not in before
    with checkpoint_cure():
        assert vars(torch.optim)["sgd"] is sys.modules["torch.optim.sgd"]
        assert vars(torch.optim)["adamw"].AdamW is torch.optim.AdamW
    assert vars(torch.optim) == before


def test_the_cure_is_undone_after_an_error() -> None:
    with pytest.raises(KeyError), checkpoint_cure():
        raise KeyError
    assert "sgd" not in vars(torch.optim)


def test_called_once_the_cure_stays_and_a_context_inside_leaves_it() -> None:
    cure = checkpoint_cure()
    try:
        with checkpoint_cure():
            pass
        assert vars(torch.optim)["sgd"].SGD is torch.optim.SGD
    finally:
        with cure:
            pass
    assert "sgd" not in vars(torch.optim)


if __name__ == "__main__":
    train_and_die(sys.argv[1], int(sys.argv[2]))
