"""A study: the same candidates judged cheaply and in full through NNI, taken up again from its journal."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

import ddplug
from ddplug.distillers.selection.random_ import Random
from ddplug.errors import DataError, OptionError
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.utils.randomness import temporary_seed

with temporary_seed(0):
    from nni.nas.hub.pytorch import NasBench201

    from ddplug.nni import ConvNetSpace, ProxyEvaluator, architectures
    from ddplug.search.agreement import EARLY, HEAD, Study, table
    from ddplug.search.budget import cost, data_file, early_stopping, epochs_within, selection_file
    from ddplug.search.journal import Journal


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    train, rest = ddplug.load_dataset("digits").split(0.2)
    ddplug.holdout(train.subset(torch.arange(300))).save(folder / "whole.safetensors")
    ddplug.holdout(rest.subset(torch.arange(100))).save(folder / "rest.safetensors")
    ddplug.distill(train, Random(images_per_class=2)).save(folder / "few.safetensors")
    return folder


def study(files: Path, folder: Path, **options: Any) -> Study:
    pair = files / "whole.safetensors", files / "rest.safetensors"
    full = ProxyEvaluator(*pair, epochs=4, learning_rate=0.05, batch_size=32, device="cpu")
    proxies = {
        # the truth itself under another key: its ranking is perfect
        "twin": ProxyEvaluator(*pair, epochs=4, learning_rate=0.05, batch_size=32, device="cpu", time_limit=1000),
        "few": ProxyEvaluator(files / "few.safetensors", pair[1], epochs=5, device="cpu"),
    }
    space = ConvNetSpace((1, 8, 8), 10, widths=(4, 8), depths=(1, 2))
    return Study(space, architectures(space, 6), full, proxies, folder, **options)


def test_a_study_compares_with_the_truth_and_goes_on_where_it_was(files: Path, tmp_path: Path) -> None:
    whole = study(files, tmp_path / "a", zero=("parameters",))
    with pytest.raises(
        DataError, match="0 of 6 candidates have every score, and 'twin' has the fewest; run the study first"
    ):
        whole.rows()
    said: list[str] = []
    whole.run(said.append)
    assert said == [f"{name}: judging 6 candidates" for name in ("twin", "few", "full")]
    rows = {row["name"]: row for row in whole.rows(resamples=20)}
    assert set(rows) == {"twin", "few", "parameters"}
    assert rows["twin"]["spearman"][0] == 1
    assert rows["twin"]["regret"][0] == 0
    assert (rows["twin"]["cost"], rows["parameters"]["cost"]) == (1, 0)
    assert rows["few"]["cost"] == pytest.approx((3 * 20 * 5 + 100) / (3 * 300 * 4 + 100))
    scores = whole.scores()
    for name in ("few", "parameters"):
        expected = stats.spearmanr(scores[name], scores["full"]).statistic
        assert rows[name]["spearman"][0] == pytest.approx(expected)
        assert rows[name]["regret"][0] >= 0
    with temporary_seed(0):
        networks = [whole.space.freeze(sample) for sample in whole.samples]
    assert scores["parameters"] == [sum(p.numel() for p in network.parameters()) for network in networks]
    json.dumps(list(rows.values()), allow_nan=False)
    cells = table(whole.rows(resamples=20))
    assert cells[0] == HEAD
    assert {len(row) for row in cells} == {len(HEAD)}
    titles = [axes.get_title() for axes in whole.figure().axes if axes.get_visible()]
    assert titles[0] == "twin\nSpearman 1.00"

    # again: nothing is trained, and one that is longer trains only what is new
    lines = len(Journal(tmp_path / "a" / "journal.jsonl").read())
    assert lines == 18
    again = study(files, tmp_path / "a")
    assert again.records("few") == whole.records("few")
    again.run()
    again.samples = architectures(again.space, 7)
    again.run()
    assert len(Journal(tmp_path / "a" / "journal.jsonl").read()) == lines + 3
    assert again.scores()["few"][:6] == scores["few"]


def test_candidates_are_ranked_by_each_seed(files: Path, tmp_path: Path) -> None:
    twice = study(files, tmp_path)
    twice.proxies = {"few": ProxyEvaluator(files / "few.safetensors", files / "rest.safetensors", epochs=5, seeds=2)}
    twice.run()
    accuracies = [record.result.accuracies for record in twice.records("few") if record]
    assert {len(own) for own in accuracies} == {2}
    ranks = np.mean([stats.rankdata(seed) for seed in np.transpose(accuracies)], axis=0)
    truth = twice.scores()["full"]
    (row,) = twice.rows(resamples=20)
    assert row["spearman"][0] == pytest.approx(stats.spearmanr(ranks, truth).statistic)
    assert row["cost"] == pytest.approx(2 * (3 * 20 * 5 + 100) / (3 * 300 * 4 + 100))


def test_other_candidates_in_the_same_folder_are_judged_too(files: Path, tmp_path: Path) -> None:
    first = study(files, tmp_path)
    first.run()
    drawn = architectures(first.space, 12)
    first.samples = drawn[6:10]
    assert [first._found(first.full), first._found(first.proxies["few"])] == [[None] * 4] * 2
    first.run()
    assert all(None not in first.records(name) for name in first.evaluators)


def test_nothing_is_printed_or_left_in_the_home_folder(
    files: Path, tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pair = files / "few.safetensors", files / "rest.safetensors"
    space = ConvNetSpace((1, 8, 8), 10, widths=(4,), depths=(1,))
    # every candidate fails
    full = ProxyEvaluator(*pair, epochs=2, time_limit=1e-9, device="cpu")
    failing = Study(space, architectures(space, 2), full, {}, tmp_path / "a")
    capfd.readouterr()
    failing.run()
    out, err = capfd.readouterr()
    assert out == ""
    # one line for the experiment, none of NNI's tracebacks
    assert "Traceback" not in err
    with pytest.raises(DataError, match="0 of 2 candidates have every score, and 'full' has the fewest"):
        failing.rows()
    assert failing.records("full") == [None, None]
    assert not (home / "nni-experiments" / ".experiment").exists()


def test_untrained_scores_of_spaces_of_colored_images(files: Path, tmp_path: Path) -> None:
    space = ConvNetSpace((3, 8, 8), 10, widths=(4,), depths=(1,))
    full = ProxyEvaluator(files / "whole.safetensors", files / "rest.safetensors", channels=3, device="cpu")
    zero = ("parameters", "gradient-norm", "synflow", "nwot")
    scores = Study(space, architectures(space, 2), full, {}, tmp_path, zero=zero).scores()
    assert all(None not in scores[name] for name in zero)


def test_untrained_scores_do_not_depend_on_the_weights_that_a_space_has(files: Path, tmp_path: Path) -> None:
    full = ProxyEvaluator(files / "whole.safetensors", files / "rest.safetensors", channels=3, device="cpu")
    found = []
    for seed in (0, 1):
        with temporary_seed(seed):  # NNI's own spaces make their weights when they are made
            cells = NasBench201(stem_out_channels=4, num_modules_per_stack=1, num_labels=10)
        samples = architectures(cells, 2)
        found.append(Study(cells, samples, full, {}, tmp_path / str(seed), zero=("gradient-norm", "synflow")).scores())
    assert found[0] == found[1]


def test_early_stopping_goes_over_the_data_again_where_the_cost_allows(files: Path, tmp_path: Path) -> None:
    data = ddplug.load_dataset("digits")
    least = min(map(len, data.class_indices))
    rest = files / "rest.safetensors"
    for each, epochs in ((least, 1), (least + 1, 2), (3 * least, 3)):
        budget = 100 + 3 * 10 * each
        made = early_stopping(data, tmp_path, rest, budget, device="cpu")
        assert made.protocol.epochs == epochs
        # less by one image a class and epoch at most
        assert budget - 3 * 10 * epochs < cost(made) <= budget


def test_early_stopping_is_one_pass_over_what_the_cost_allows(files: Path, tmp_path: Path) -> None:
    data = ddplug.load_dataset("digits")
    made = early_stopping(data, tmp_path, files / "rest.safetensors", 1000, device="cpu", seed=3)
    chosen = SyntheticSet.load(tmp_path / "random-30-seed-3.safetensors")
    assert torch.bincount(chosen.hard_targets).tolist() == [30] * 10
    assert cost(made) == 1000
    assert made.protocol.epochs == 1
    with pytest.raises(OptionError, match="a cost of 120 image passes allows 6 images, less than one a class"):
        early_stopping(data, tmp_path / "none", files / "rest.safetensors", 120)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("seeds", [1, 2])
def test_all_proxies_of_a_study_at_one_cost_cost_that(files: Path, tmp_path: Path, seeds: int) -> None:
    pair = files / "whole.safetensors", files / "rest.safetensors"
    full = ProxyEvaluator(*pair, epochs=9, learning_rate=0.05, seed=3, device="cpu")
    space = ConvNetSpace((1, 8, 8), 10, widths=(4, 8), depths=(1, 2))
    sets = {"few": files / "few.safetensors"}
    data = ddplug.load_dataset("digits").split(0.2)[0]
    judged: dict[str, Any] = {"share": 0.1, "data": data, "validation": pair[1], "zero": ("synflow",)}
    made = Study.at_one_cost(space, architectures(space, 3), full, sets, tmp_path, **judged, seeds=seeds, device="cpu")
    assert list(made.evaluators) == ["few", EARLY, "full"] and made.zero == ("synflow",)
    # full training passes 300 images 9 times, 3 times each, and 100 once; a set holds 20
    budget = 0.1 * (3 * 300 * 9 + 100)
    few, early = made.proxies["few"], made.proxies[EARLY]
    assert few.protocol.seeds == seeds and few.protocol.epochs == (budget / seeds - 100) // (3 * 20)
    assert budget - seeds * 3 * 20 < cost(few) <= budget
    assert budget - 3 * 10 < cost(early) <= budget
    # it trains as full training does, the set as the options say
    assert (early.protocol.learning_rate, early.protocol.seed, early.protocol.epochs) == (0.05, 3, 1)
    assert (few.protocol.learning_rate, few.protocol.seed) == (None, 0)


def test_files_are_written_once_and_never_over_others(tmp_path: Path) -> None:
    train, rest = ddplug.load_dataset("digits").split(0.2)
    first = selection_file(train, "random", 2, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert selection_file(train, "random", 2, tmp_path) == first
    assert first.stat().st_mtime_ns == stamp
    assert selection_file(train, "random", 2, tmp_path, seed=1) != first
    with pytest.raises(OptionError, match=r"random-2-seed-0.safetensors holds another set.*choose another folder"):
        selection_file(rest, "random", 2, tmp_path)
    whole = data_file(train, tmp_path / "whole.safetensors")
    assert len(SyntheticSet.load(data_file(train, whole))) == len(train)
    for data, path in ((rest, whole), (train, first)):
        with pytest.raises(OptionError, match="holds another set"):
            data_file(data, path)


@pytest.mark.parametrize(("budget", "epochs"), [(400, 1), (699, 1), (700, 2)])
def test_epochs_fill_the_cost_and_never_exceed_it(budget: float, epochs: int) -> None:
    assert epochs_within(budget, images=100, scored=100) == epochs


def test_mistakes_are_refused(files: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="a cost of 399 image passes does not allow one epoch of 100 images"):
        epochs_within(399, images=100, scored=100)
    fine = study(files, tmp_path)
    with pytest.raises(OptionError, match="a study of 1 candidates ranks nothing"):
        Study(fine.space, fine.samples[:1], fine.full, fine.proxies, tmp_path)
    for name in ("full", "synflow"):
        with pytest.raises(OptionError, match=re.escape(f"a proxy is named {name!r}, which is taken")):
            Study(fine.space, fine.samples, fine.full, {name: fine.full}, tmp_path, zero=("synflow",))
