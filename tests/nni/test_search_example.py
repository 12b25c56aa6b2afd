"""The example of a search: candidates in warm processes, and taken up again."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from ddplug.search.journal import Journal
from tests.test_examples import example

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def test_the_search_runs_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    state = random.getstate()
    with torch.random.fork_rng():
        main = example("nni_search").main
        main("search", trials=2, epochs=4, steps=2)
        records = Journal("search/journal.jsonl").read()
        main("search", trials=2, epochs=4, steps=2)
    random.setstate(state)
    assert Journal("search/journal.jsonl").read() == records
    assert len({record.key for record in records}) == 2
    for record in records:
        assert record.metric is not None
        assert record.result.accuracies == (record.metric,)
        assert record.pid != os.getpid()
        assert record.result.images == 4 * 100
        assert set(record.sample) == {"width", "depth", "norm", "activation", "pooling"}
    best = max(records, key=lambda record: record.metric or 0)
    assert capsys.readouterr().out.count(f"best: {dict(best.sample)}") == 2
