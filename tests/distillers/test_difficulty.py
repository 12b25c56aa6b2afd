"""Difficulty: ranks against a slow computation, windows, and the one that held-out data choose."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ddplug.data import LabeledData
from ddplug.distillation.loop import distill
from ddplug.distillers import Difficulty
from ddplug.distillers.selection.difficulty import WINDOWS
from ddplug.errors import OptionError
from ddplug.synthetic import Recipe
from ddplug.testing import toy_images
from tests.exact import generator


class Brightness(nn.Module):
    """A teacher that holds bright images for class 0 and dark ones for class 1."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], 1)


def losses(data: LabeledData, label: int) -> dict[int, float]:
    """Cross-entropy of each sample of a class by its position, one by one in float64."""
    found = {}
    for position in data.class_indices[label].tolist():
        mean = float(data.batch(torch.tensor([position])).double().mean())
        own, other = (mean, -mean) if label == 0 else (-mean, mean)
        found[position] = -own + float(torch.logsumexp(torch.tensor([own, other], dtype=torch.float64), 0))
    return found


@pytest.mark.parametrize("window", [(0.0, 0.5), (0.4, 0.9), (0.8, 1.0)])
def test_samples_lie_in_the_window_of_ranks(window: tuple[float, float]) -> None:
    data = toy_images((30, 40))
    index = Difficulty(3, teacher=Brightness(), window=window).init(data, generator())["index"]
    for label, number in ((0, 30), (1, 40)):
        ranks = sorted(losses(data, label).items(), key=lambda pair: pair[1])
        allowed = {position for position, _ in ranks[round(window[0] * number) : round(window[1] * number)]}
        own = index[label * 3 : label * 3 + 3].tolist()
        assert set(own) <= allowed
        assert len(set(own)) == 3


def test_a_whole_window_is_taken_and_one_more_is_refused() -> None:
    data = toy_images((20, 20))
    method = Difficulty(10, teacher=Brightness(), window=(0.0, 0.5))
    first = method.init(data, generator())["index"][:10].tolist()
    ranks = sorted(losses(data, 0).items(), key=lambda pair: pair[1])
    assert set(first) == {position for position, _ in ranks[:10]}
    with pytest.raises(
        OptionError, match=r"window 0,0\.5 holds 10 of a class's 20 samples, fewer than images_per_class=11"
    ):
        replace(method, images_per_class=11).init(data, generator())


def test_draws_within_the_window_follow_the_seed() -> None:
    data = toy_images((60, 60))
    method = Difficulty(4, teacher=Brightness(), window=(0.0, 1.0))
    drawn = [method.init(data, generator(seed))["index"].tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_held_out_data_choose_a_window_with_few_wrong_labels() -> None:
    # three of ten labels are wrong, and so the hardest for a teacher that has seen enough
    rng = generator(3)
    pattern = torch.zeros(2, 1, 8, 8)
    pattern[0, :, :, :4], pattern[1, :, :, 4:] = 1, 1
    shown = torch.arange(1600) % 2
    targets = torch.where(torch.rand(1600, generator=rng) < 0.3, 1 - shown, shown)
    images = pattern[shown] + 0.3 * torch.randn(1600, 1, 8, 8, generator=rng)
    base = toy_images((800, 800))
    data = replace(base, inputs=images, targets=targets, augmentation="")
    method = Difficulty(
        8, teacher="convnet:width=8,depth=1", teacher_epochs=5, judge="convnet:width=8,depth=1", judge_steps=60
    )
    chosen = method.init(data, generator())["index"]
    anyhow = replace(method, window=(0.0, 1.0)).init(data, generator())["index"]
    right, at_random = (int((shown[index] == targets[index]).sum()) for index in (chosen, anyhow))
    assert right == 16 > at_random + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (0.5, 0.5)}, r"window is \(0.5, 0.5\); give two shares of the ranks, such as 0,0.5"),
        ({"window": (0.0, 1.5)}, "within 0 and 1"),
        ({"window": (0.5,)}, "give two shares"),
        ({"teacher_epochs": 0}, "teacher_epochs is 0; it must be at least 1"),
        ({"judge_steps": 0}, "judge_steps is 0; it must be at least 1"),
    ],
)
def test_options_outside_their_range(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Difficulty(**options)  # type: ignore[arg-type]


def test_a_set_tells_the_window_that_was_found() -> None:
    data = toy_images((30, 30))
    method = Difficulty(**{**Difficulty.small, "images_per_class": 2})
    made = distill(data, method, seed=0, device="cpu")
    assert tuple(made.provenance["window"]) in WINDOWS
    given = distill(data, replace(method, window=(0.2, 0.7)), seed=0, device="cpu")
    assert given.provenance["window"] == [0.2, 0.7]


def test_a_window_that_was_found_is_widened_where_a_few_more_samples_fit() -> None:
    data = toy_images((20, 20))
    method = Difficulty(10, teacher=Brightness())
    known = {"ranks": torch.cat([torch.tensor([*_ranked(data, label)]) for label in (0, 1)])}
    for window, allowed in (((0.0, 0.4), slice(0, 10)), ((0.6, 0.9), slice(10, 20)), ((0.2, 0.8), slice(4, 16))):
        found = {**known, "window": torch.tensor(window, dtype=torch.float64)}
        index = method.init(data, generator(), found)["index"]
        for label in (0, 1):
            assert set(index[10 * label :][:10].tolist()) <= set(_ranked(data, label)[allowed])


def _ranked(data: LabeledData, label: int) -> list[int]:
    """Return the positions of a class, the easiest first."""
    return [position for position, _ in sorted(losses(data, label).items(), key=lambda pair: pair[1])]


def test_the_window_is_found_once_while_the_number_of_images_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[int] = []

    def found(self: Difficulty, data: LabeledData, *given: object) -> tuple[float, float]:
        wanted.append(self.images_per_class)
        return 0.0, 0.5

    monkeypatch.setattr(Difficulty, "_found", found)
    made = distill(toy_images((60, 60)), Difficulty(teacher=Brightness()), nbytes=900, seed=0, device="cpu")
    (about,) = wanted
    assert about == pytest.approx(len(made) / 2, rel=0.2)
    assert made.provenance["window"] == [0.0, 0.5]


@pytest.mark.parametrize(("images", "judged"), [(200, (5, 3)), (1600, (5, 3)), (3000, (10, 2))])
def test_judges_take_steps_in_proportion_to_the_images(
    images: int, judged: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []

    def trained(chosen: list[LabeledData], network: object, recipe: Recipe, **more: object) -> list[nn.Module]:
        seen.append((recipe.steps, len(chosen[0])))
        return [Brightness()]

    monkeypatch.setattr("ddplug.distillers.selection.difficulty.train_each", trained)
    method = Difficulty(images // 2, teacher=Brightness(), judge_steps=5)
    method.init(toy_images((2000, 2000)), generator())
    steps, draws = judged
    fitting = [(first, last) for first, last in WINDOWS if (last - first) * 1800 >= images // 2]
    assert seen == [(steps, images)] * (draws * len(fitting))
