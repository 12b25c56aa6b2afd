"""A run that was stopped, however roughly, goes on to the same bits; and it goes on with nothing but its own file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ddplug.distillation.checkpoint import KIND
from ddplug.distillation.loop import distill
from ddplug.errors import CheckpointError, FormatError, OptionError
from ddplug.testing import toy_images
from ddplug.utils.files import read_tensors, write_tensors
from tests.toy_distillers import MeanMatching

METHOD = MeanMatching(images_per_class=2, steps=10)


def run(path: Path | None = None, method: MeanMatching = METHOD, **options: Any) -> torch.Tensor:
    return distill(toy_images(), method, device="cpu", checkpoint=path, **options).inputs


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


@pytest.mark.parametrize("first", [0, 1, 5, 10])
def test_stopping_and_going_on_changes_no_bit(path: Path, first: int) -> None:
    run(path, steps=first)
    assert torch.equal(run(path), run())


def test_a_finished_run_asked_for_more_steps_goes_on(path: Path) -> None:
    run(path)
    run(path)
    assert torch.equal(run(path, method=replace(METHOD, steps=15)), run(steps=15))
    assert read_tensors(path, KIND)[1]["step"] == 15


def test_the_file_says_what_it_belongs_to(path: Path) -> None:
    run(path, seed=9)
    tensors, header = read_tensors(path, KIND)
    assert set(tensors) == {"state.images", "state.seen", "generator"}
    assert (header["method"], header["seed"], header["step"], header["device"]) == ("mean-matching", 9, 10, "cpu")
    assert header["config"]["images_per_class"] == 2
    assert header["data"]["fingerprint"] == toy_images().fingerprint
    assert set(header["versions"]) == {"ddplug", "torch", "numpy", "python"}


def test_seconds_add_up_over_resumes(path: Path) -> None:
    run(path, steps=4)
    tensors, header = read_tensors(path, KIND)
    write_tensors(path, KIND, tensors, {**header, "seconds": 1000.0})
    made = distill(toy_images(), METHOD, device="cpu", checkpoint=path)
    assert 1000 < made.provenance["seconds"] < 2000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "its seed was 0 and is now 1"),
        ({"method": replace(METHOD, learning_rate=0.2)}, "its hyper-parameter learning_rate was 0.1 and is now 0.2"),
        (
            {"method": replace(METHOD, batch=5, noise=0.5)},
            "its hyper-parameter batch was 4 and is now 5; its hyper-parameter noise was 0.01 and is now 0.5",
        ),
        ({"steps": 9}, "is at step 10, beyond the 9 asked for; ask for at least 10"),
    ],
)
def test_another_run_is_refused_and_the_file_kept(path: Path, options: dict[str, Any], message: str) -> None:
    run(path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError) as caught:
        run(path, **options)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_other_data_and_another_method_are_refused(path: Path) -> None:
    run(path)
    ours, other = toy_images().fingerprint, toy_images(seed=1)
    with pytest.raises(CheckpointError, match=f"its data fingerprint was '{ours}' and is now '{other.fingerprint}'"):
        distill(other, METHOD, device="cpu", checkpoint=path)
    with pytest.raises(CheckpointError, match="its method was 'mean-matching' and is now 'random'"):
        distill(toy_images(), "random", device="cpu", checkpoint=path)


def test_the_name_of_the_data_does_not_matter(path: Path) -> None:
    run(path, steps=5)
    renamed = replace(toy_images(), name="other")
    assert torch.equal(distill(renamed, METHOD, device="cpu", checkpoint=path).inputs, run())


def test_without_resuming_the_run_begins_anew(path: Path) -> None:
    run(path, seed=1)
    assert torch.equal(run(path, resume=False), run())
    assert read_tensors(path, KIND)[1]["seed"] == 0


def edit(path: Path, **changes: Any) -> None:
    """Write the checkpoint anew with some of its parts changed; ``None`` leaves a part out."""
    tensors, header = read_tensors(path, KIND)
    parts = {name: value for name, value in {**header, **tensors, **changes}.items() if value is not None}
    kept = {name: value for name, value in parts.items() if isinstance(value, torch.Tensor)}
    write_tensors(path, KIND, kept, {name: value for name, value in parts.items() if name not in kept})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state.images": torch.tensor([torch.nan])}, "its state holds NaN or infinity"),
        ({"generator": torch.zeros(7, dtype=torch.uint8)}, "RuntimeError"),
        ({"generator": None}, "KeyError 'generator'"),
        ({"step": None}, "KeyError 'step'"),
        ({"step": -3}, "step -3 after"),
        ({"step": True}, "step True after"),
        ({"seconds": "long"}, "seconds"),
        ({"config": [1]}, "AttributeError"),
        ({"data": None}, "KeyError 'data'"),
        ({"on_cpu": 3}, "TypeError"),
    ],
)
def test_a_file_that_is_no_sound_checkpoint_is_refused(path: Path, changes: dict[str, Any], message: str) -> None:
    run(path, steps=2)
    edit(path, **changes)
    with pytest.raises(FormatError, match=message) as caught:
        run(path)
    assert f"{path} is not a valid checkpoint" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_foreign_and_truncated_files_are_refused(path: Path) -> None:
    run(path, steps=2)
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04 not ours", whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"run\.safetensors is not a ddplug file"):
            run(path)
        assert path.read_bytes() == content
    path.unlink()
    distill(toy_images(), METHOD, device="cpu").save(str(path))
    with pytest.raises(FormatError, match="'synthetic-set', not a 'checkpoint'"):
        run(path)


def test_a_state_that_cannot_be_stored_is_named(path: Path) -> None:
    class Half(MeanMatching):
        def init(self, data: Any, rng: torch.Generator) -> Any:
            return {"images": torch.zeros(3, dtype=torch.bfloat16)}

    with pytest.raises(OptionError, match=r"cannot store 'state.images': torch.bfloat16"):
        run(path, method=Half(steps=0))


_SCRIPT = """
import signal, sys, time
# a process that a shell starts in the background ignores the signal, and so do its children
signal.signal(signal.SIGINT, signal.default_int_handler)
from ddplug.distillation.callbacks import CsvLog
from ddplug.distillation.loop import distill
from ddplug.testing import toy_images
from tests.toy_distillers import MeanMatching

class Slow:
    def start(self, total, done, name): pass
    def step(self, step, metrics): time.sleep(0.01)
    def close(self): open(sys.argv[1] + ".closed", "w").close()

distill(toy_images(), MeanMatching(images_per_class=2, steps=3000), device="cpu", checkpoint=sys.argv[1],
        checkpoint_every=float(sys.argv[2]), callbacks=[CsvLog(sys.argv[1] + ".csv", every=1), Slow()])
"""


def stop(path: Path, every: float, reached: Path, number: signal.Signals) -> int:
    """Start a run in a process of its own and send it a signal once a file of it holds something."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", _SCRIPT, str(path), str(every)]
    with subprocess.Popen(arguments, cwd=root, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while not (reached.exists() and reached.stat().st_size > 300):
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    return process.returncode


def check_resumed(path: Path) -> None:
    """Take up a stopped run, a little further than it came, and compare it with one that was never stopped."""
    from ddplug.distillation.callbacks import CsvLog

    step = read_tensors(path, KIND)[1]["step"]
    assert 0 < step < 3000
    log, steps = Path(f"{path}.csv"), step + 3
    whole_log = path.with_name("whole.csv")
    resumed = run(path, method=replace(METHOD, steps=steps), callbacks=[CsvLog(log, every=1)])
    whole = run(method=replace(METHOD, steps=steps), callbacks=[CsvLog(whole_log, every=1)])
    assert torch.equal(resumed, whole)
    rows, expected = ([line.split(",") for line in p.read_text().splitlines()] for p in (log, whole_log))
    assert len(rows) == steps + 1
    assert [[row[0], row[2]] for row in rows] == [[row[0], row[2]] for row in expected]


def test_killed_and_resumed(path: Path) -> None:
    assert stop(path, 0.0, path, signal.SIGKILL) == -signal.SIGKILL
    assert not Path(f"{path}.closed").exists()
    check_resumed(path)


def test_interrupted_and_resumed(path: Path) -> None:
    # no checkpoint is due: what there is afterwards was saved by the interrupt
    stop(path, 1e6, Path(f"{path}.csv"), signal.SIGINT)
    assert Path(f"{path}.closed").exists()
    check_resumed(path)
