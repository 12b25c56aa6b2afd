"""The evaluator in NNI: serialized, mutable, frozen, journalled, resumed; in the sequential engine and in trials."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nni
import numpy as np
import pytest
import torch

from ddplug.data.preprocess import Identity
from ddplug.errors import DataError, DdplugError, FormatError, OptionError
from ddplug.nni.evaluator import ProxyEvaluator
from ddplug.search.candidate import train_and_score
from ddplug.search.journal import Journal
from ddplug.search.protocol import CandidateError, Result
from ddplug.search.sets import load_set
from ddplug.utils.randomness import temporary_seed
from tests.nni.toy_experiments import ROOT, run
from tests.nni.toy_space import ColorSpace, KindSpace, WidthSpace, files

with temporary_seed(0):
    from nni.nas.evaluator import FrozenEvaluator
    from nni.nas.space import SimplifiedModelSpace


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return files(tmp_path_factory.mktemp("sets"))


@pytest.fixture
def space() -> Any:
    """Make spaces without moving the global generators."""
    with temporary_seed(0):
        yield SimplifiedModelSpace.from_model(WidthSpace())


def frozen(evaluator: ProxyEvaluator, make: Any = WidthSpace, **sample: Any) -> Any:
    with temporary_seed(0):
        model = SimplifiedModelSpace.from_model(make(), evaluator)
    return model.freeze(sample)


def rounded(evaluator: Any) -> Any:
    return nni.load(nni.dump(evaluator))


def test_round_trip_equality_and_absolute_paths(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pair[0].parent)
    one = ProxyEvaluator("train.safetensors", "validation.safetensors", epochs=3, journal="j.jsonl")
    monkeypatch.chdir("/")
    text = nni.dump(one)
    back = nni.load(text)
    assert type(back) is ProxyEvaluator
    assert back == one
    assert back.protocol == one.protocol
    assert (back.train, back.journal) == (str(pair[0]), str(pair[0].parent / "j.jsonl"))
    assert one == ProxyEvaluator(pair[0], pair[1], epochs=3, journal=pair[0].parent / "j.jsonl")
    assert one != ProxyEvaluator(pair[0], pair[1], epochs=4, journal=pair[0].parent / "j.jsonl")
    assert len(text) < 1500
    assert "//" not in text
    assert "#" not in text
    assert "epochs=3" in repr(one)


def test_a_copy_by_trace_takes_changes(pair: tuple[Path, Path]) -> None:
    traced = ProxyEvaluator(*pair, epochs=3).trace_copy()
    traced.trace_kwargs["epochs"] = 5
    assert traced.get().protocol.epochs == 5


@nni.trace
class Narrow(ProxyEvaluator):
    """A subclass with an argument of its own."""

    def __init__(self, train: Any, validation: Any, *, extra: int = 1, **settings: Any) -> None:
        super().__init__(train, validation, **settings)
        self.extra = extra


def test_a_decorated_subclass_keeps_its_arguments(pair: tuple[Path, Path]) -> None:
    back = rounded(Narrow(str(pair[0]), str(pair[1]), extra=7, epochs=2))
    assert (back.extra, back.protocol.epochs) == (7, 2)


def test_choices_of_the_evaluator_are_frozen_with_the_model(pair: tuple[Path, Path], tmp_path: Path) -> None:
    with temporary_seed(0):
        rate = nni.choice("rate", [1e-9, 0.05])
    evaluator = ProxyEvaluator(*pair, learning_rate=rate, journal=tmp_path / "j.jsonl")
    assert evaluator.is_mutable()
    assert rounded(evaluator) == evaluator
    model = frozen(evaluator, width=4, rate=0.05)
    assert type(model.evaluator) is ProxyEvaluator
    assert not isinstance(model.evaluator, FrozenEvaluator)
    assert model.evaluator.protocol.learning_rate == 0.05
    metrics = {value: frozen(evaluator, width=4, rate=value).execute() for value in (1e-9, 0.05)}
    assert {r.sample["rate"]: r.metric for r in Journal(tmp_path / "j.jsonl").read()} == metrics
    assert metrics[1e-9] != metrics[0.05]
    for call in (lambda: evaluator.evaluate(torch.nn.Linear(1, 1)), lambda: evaluator.protocol):
        with pytest.raises(OptionError, match="learning_rate of the evaluator is not chosen yet"), temporary_seed(0):
            call()


def test_execute_is_train_and_score_and_is_never_done_twice(pair: tuple[Path, Path], tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    evaluator = ProxyEvaluator(*pair, seeds=2, journal=journal.path)
    model = frozen(evaluator, width=16)
    metric = model.execute()
    direct = train_and_score(
        lambda rng: model.executable_model(), load_set(pair[0]), load_set(pair[1]), evaluator.protocol
    )
    assert metric == direct.metric
    (record,) = journal.read()
    assert record.sample == {"width": 16}
    assert record.metric == metric
    assert replace(record.result, seconds=direct.seconds) == direct
    assert record.key == evaluator.key(model) == rounded(evaluator).key(model)
    journal.append(replace(record, result=Result(0.125)))
    assert frozen(evaluator, width=16).execute() == 0.125  # what the journal says, not another training
    assert len(journal.read()) == 2
    assert frozen(ProxyEvaluator(*pair, seeds=1, journal=journal.path), width=16).execute() != 0.125


def test_keys_tell_spaces_protocols_and_files_apart(pair: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = ProxyEvaluator(*pair)
    same = files(tmp_path)
    others = files(tmp_path, images=3)
    keys = [
        evaluator.key(frozen(evaluator, width=4)),
        evaluator.key(frozen(evaluator, width=16)),
        evaluator.key(frozen(evaluator, lambda: WidthSpace((4, 16, 8)), width=4)),
        ProxyEvaluator(*pair, epochs=3).key(frozen(evaluator, width=4)),
        ProxyEvaluator(*others).key(frozen(evaluator, width=4)),
    ]
    assert len(set(keys)) == len(keys)
    assert same == others


def test_keys_are_equal_in_another_process(pair: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = ProxyEvaluator(*pair, epochs=3)
    model = frozen(evaluator, lambda: WidthSpace((4, 16), classes=3), width=16)
    (tmp_path / "model.json").write_text(nni.dump(model))
    code = "import nni, sys; m = nni.load(open(sys.argv[1]).read()); print(m.evaluator.key(m))"
    environment = {**os.environ, "NNI_FRAMEWORK": "none", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.json")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.stdout.strip() == evaluator.key(model), done.stderr


def test_under_mock_runtime_a_network_is_judged_and_reported(pair: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = ProxyEvaluator(*pair, journal=tmp_path / "j.jsonl")
    model = frozen(evaluator, width=16)
    with temporary_seed(0):
        network = model.executable_model()
    before = [p.clone() for p in network.parameters()]
    with evaluator.mock_runtime(model):
        metric = evaluator.evaluate(network)
    assert model.metrics.final == metric
    assert len(model.metrics.intermediates) > 0
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert evaluator.evaluate(network) == metric  # and without it
    assert not (tmp_path / "j.jsonl").exists()


def test_a_failing_candidate_is_journalled_and_raised(pair: tuple[Path, Path], tmp_path: Path) -> None:
    evaluator = ProxyEvaluator(*pair, journal=tmp_path / "j.jsonl")
    for _ in range(2):  # failures are tried again
        with pytest.raises(CandidateError, match=r"\{'kind': 'crash'\} failed: RuntimeError: no such kernel"):
            frozen(evaluator, KindSpace, kind="crash").execute()
    assert [r.failure for r in Journal(tmp_path / "j.jsonl").read()] == ["RuntimeError: no such kernel"] * 2


@pytest.mark.parametrize("alter", [lambda p: p.unlink(), lambda p: p.write_bytes(p.read_bytes()[:-1] + b"\x01")])
def test_a_file_that_goes_or_changes_is_a_journalled_failure(alter: Any, tmp_path: Path) -> None:
    own = files(tmp_path)
    evaluator = rounded(ProxyEvaluator(*own, journal=tmp_path / "j.jsonl"))
    alter(own[0])
    with pytest.raises(CandidateError, match=r"(cannot read .*|.*was altered)") as caught:
        frozen(evaluator, width=4).execute()
    assert str(own[0]) in str(caught.value)
    assert "\n" not in str(caught.value)
    (record,) = Journal(tmp_path / "j.jsonl").read()
    assert (record.metric, record.sample) == (None, {"width": 4})


def test_everything_is_checked_before_a_search(pair: tuple[Path, Path], tmp_path: Path) -> None:
    own = load_set(pair[1])
    bad = {
        "shape": replace(own, inputs=own.inputs[:, :, :4]),
        "classes": replace(own, num_classes=4, class_names=tuple("abcd")),
        "preprocessing": replace(own, preprocess=Identity()),
        "real": replace(own, provenance={"method": "dm"}),
    }
    words = {
        "shape": "shape",
        "classes": "number of classes: 3 and 4",
        "preprocessing": "preprocessing",
        "real": "'dm'",
    }
    for name, content in bad.items():
        content.save(tmp_path / name)
        with pytest.raises(DataError, match=words[name]):
            ProxyEvaluator(pair[0], tmp_path / name)
    (tmp_path / "text").write_text("no set at all")
    cases: list[tuple[type[DdplugError], str, dict[str, Any]]] = [
        (FormatError, "text", {"train": tmp_path / "text"}),
        (OptionError, "missing.safetensors", {"train": tmp_path / "missing.safetensors"}),
        (OptionError, "#1", {"train": tmp_path / "#1"}),
        (DataError, "one file", {"train": pair[1]}),
        (OptionError, "epochs is 0", {"epochs": 0}),
        (OptionError, "unknown field of the protocol 'epoch'; did you mean 'epochs'", {"epoch": 3}),
        (OptionError, "wrap", {"augment": "wrap"}),
        (OptionError, "schedule is 'steep'; it must be step, cosine, cycle or constant", {"schedule": "steep"}),
        (OptionError, "threads is 0", {"threads": 0}),
        (OptionError, "nowhere", {"journal": tmp_path / "nowhere" / "j.jsonl"}),
    ]
    for error, text, changes in cases:
        with pytest.raises(error, match=text) as caught:
            ProxyEvaluator(**{"train": pair[0], "validation": pair[1], **changes})
        assert "\n" not in str(caught.value)


def test_check_refuses_spaces_that_do_not_fit(pair: tuple[Path, Path]) -> None:
    evaluator = ProxyEvaluator(*pair)
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: WidthSpace(classes=5), r"\(1, 5\); it must give \(1, 3\)"),
        (lambda: WidthSpace(inputs=65), "65"),
        (lambda: ColorSpace(), "3 channels.*; for a space of colored images set channels=3"),
        (lambda: KindSpace(("crash",)), "no such kernel$"),
        (lambda: torch.nn.Linear(64, 3), "is a Linear"),
    ]
    for make, words in cases:
        with temporary_seed(0):
            made = make()
        with pytest.raises(OptionError, match=words) as caught:
            evaluator.check(made)
        assert "\n" not in str(caught.value)
    state = np.random.get_state(legacy=False)
    with temporary_seed(0):
        fine = [WidthSpace(), KindSpace(("linear", "crash")), SimplifiedModelSpace.from_model(WidthSpace())]
        color = ColorSpace()
    for made in fine:
        evaluator.check(made)
    ProxyEvaluator(*pair, channels=3).check(color)
    assert repr(np.random.get_state(legacy=False)) == repr(state)


def test_sequential_experiment_of_nni_itself(pair: tuple[Path, Path], tmp_path: Path) -> None:
    answer = run("sequential", tmp_path, *pair)
    records = Journal(tmp_path / "journal.jsonl").read()
    truth = {(r.sample["width"], r.sample["rate"]): r.metric for r in records}
    assert set(truth) == {(width, rate) for width in (4, 16) for rate in (0.01, 0.05)}
    assert {(sample["width"], sample["rate"]): metric for sample, metric in answer["models"]} == truth
    assert truth[answer["best"]["width"], answer["best"]["rate"]] == max(
        metric for metric in truth.values() if metric is not None
    )


def test_trials_that_crash_or_hang_are_journalled_by_themselves(pair: tuple[Path, Path], tmp_path: Path) -> None:
    reported = run("misbehaving", tmp_path, *pair)
    found = {record.sample["kind"]: record for record in Journal(tmp_path / "journal.jsonl").read()}
    assert set(found) == {"linear", "crash", "hang", "coin"}
    assert found["crash"].failure == "RuntimeError: no such kernel"
    assert found["hang"].failure == "time limit of 20 s; it hung in one step and its process was ended"
    # the same numbers as in this process
    evaluator = ProxyEvaluator(*pair, time_limit=20)
    for kind in ("linear", "coin"):
        alone = frozen(evaluator, lambda: KindSpace(("linear", "crash", "hang", "coin")), kind=kind)
        assert found[kind].metric == alone.execute()
        assert found[kind].key == evaluator.key(alone)
        assert reported[found[kind].trial] == list(found[kind].result.intermediate)
    assert all(record.parameter is not None for record in found.values())
    assert len({record.trial for record in found.values()}) == 4
    assert len({record.pid for record in found.values()}) == 4
