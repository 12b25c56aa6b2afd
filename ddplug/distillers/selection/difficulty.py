"""Difficulty: choose at random among samples that are neither too hard nor too easy for a small teacher."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ddplug.data.labeled import LabeledData
from ddplug.distillation.protocol import State
from ddplug.distillation.settling import Suits, settled
from ddplug.distillers.parts.features import logits
from ddplug.distillers.parts.images import available
from ddplug.distillers.parts.teachers import Teacher, check_teacher, frozen
from ddplug.distillers.parts.training import draw_pool
from ddplug.distillers.selection.base import Selection
from ddplug.errors import OptionError
from ddplug.evaluation.train import train_each
from ddplug.functional.augmentation import joint
from ddplug.functional.types import Tensors
from ddplug.networks.forms import AUTO
from ddplug.synthetic.dataset import SyntheticSet
from ddplug.synthetic.recipe import Recipe
from ddplug.utils.checks import at_least
from ddplug.utils.preparation import kept_each

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["WINDOWS", "Difficulty"]

WINDOWS = ((0.0, 1.0), (0.0, 0.1), (0.0, 0.2), (0.0, 0.5), (0.0, 0.9), (0.4, 0.9))
"""Windows that are tried: all; the easiest tenth, fifth, half; all but the hardest tenth; the half next to that."""

_HELD_OUT, _MOST_HELD_OUT = 0.1, 5000
"""Share of each class that judges windows, and samples of all classes at most, by which a gain on CIFAR-10 has an error
of 0.7 points; by 2,000 it was 1.1, and easy images gain one to four."""

_ROUND, _JUDGED = 32, 5
"""Samples of each class, and steps of a judge, that the time is estimated by."""


@dataclass(frozen=True)
class Difficulty(Selection):
    """Rank the samples of each class by a teacher's cross-entropy and draw at random from a window of the ranks.

    The fewer samples a set has for its task, the easier they should be: at 30 kB of CIFAR-10 the easier half is worth
    four points more than random images of the same bytes. Where a few samples nearly suffice, as on MNIST, no window is
    better than random samples. So it is found on held-out training data unless it is given.

    Args:
        teacher: specification of a network to be trained on the data, or a trained module of your own; ``"auto"`` for
            convnet:width=32,norm=batch where the data are images, conv1d where they are series, mlp where they are
            rows. A weak one loses the gain: with one of 65 % on CIFAR-10 no window was better than random
            images in 300 kB, with one of 72 % the best was better by a point and a half, and with one of 80 %
            (convnet:width=64,norm=batch, ten epochs, 20 minutes of a core) by three.
        teacher_epochs: epochs to train it for, at least 1, by :meth:`ddplug.synthetic.Recipe.by_steps`.
        max_samples_per_class: samples of each class that the teacher is trained on, at most.
        window: first and last rank as shares of the class, from the easiest, 0 to 1; ``None`` to find the best of
            :data:`WINDOWS` by training ``judge`` on two or three selections from each and testing it on a held-out
            tenth, and random samples where none is better by its standard error.
        judge: specification of the network that windows are compared by; ``"auto"`` for a smaller one of these.
        judge_steps: SGD steps that it takes on up to 2,250 samples; on more, for each 1,500 of them.

    Raises:
        OptionError: an option is outside its range, or the window holds fewer samples than are wanted.

    Reference: EL2N (Paul, Ganguli & Dziugaite, NeurIPS 2021) keeps one end of such ranks; that few images should be
        easy ones is Sorscher et al., "Beyond Neural Scaling Laws", NeurIPS 2022, section 3.

    Example:
        >>> Difficulty(window=(0.0, 0.5)).name
        'difficulty'
    """

    name: ClassVar[str] = "difficulty"
    bfloat16: ClassVar[bool] = True
    suits: ClassVar[Suits] = {
        "teacher": {"image": "convnet:width=32,norm=batch", "series": "conv1d", "row": "mlp"},
        "judge": {"image": "convnet:width=16", "series": "conv1d:width=32", "row": "mlp"},
    }
    small: ClassVar[Mapping[str, Any]] = {
        **Selection.small,
        "teacher": "convnet:width=8,depth=1",
        "teacher_epochs": 1,
        "judge": "convnet:width=8,depth=1",
        "judge_steps": 2,
    }
    teacher: Teacher = AUTO
    teacher_epochs: int = 5
    max_samples_per_class: int = 5000
    window: tuple[float, ...] | None = None
    judge: str = AUTO
    judge_steps: int = 300

    def __post_init__(self) -> None:
        at_least(self, teacher_epochs=1, max_samples_per_class=1, judge_steps=1)
        if self.window is not None and not (len(self.window) == 2 and 0 <= self.window[0] < self.window[1] <= 1):
            raise OptionError(f"window is {self.window}; give two shares of the ranks, such as 0,0.5, within 0 and 1")

    def work(self, most: int = sys.maxsize) -> dict[str, int]:
        own = 0 if isinstance(self.teacher, nn.Module) else min(self.max_samples_per_class, most)
        samples = self.teacher_epochs * own
        return {"teacher rounds": samples // _ROUND, "judge rounds": 0 if self.window else self.judge_steps // _JUDGED}

    def trial(self, **more: int) -> Self:
        return replace(
            self,
            teacher_epochs=1,
            max_samples_per_class=_ROUND * (1 + more.get("teacher rounds", 0)),
            window=self.window if "judge rounds" in more else (0.0, 1.0),
            judge_steps=1 + _JUDGED * more.get("judge rounds", 0),
        )

    def init(self, data: LabeledData, rng: torch.Generator, prepared: State | None = None) -> dict[str, Tensor]:
        available(data, self.images_per_class)
        found = self.prepare(data, rng) if prepared is None else prepared
        window, number = found["window"].tolist(), self.images_per_class
        # bytes may hold a few more samples than those that the window was found for
        least = number if self.window is None else 0
        ranked = found["ranks"].split([len(members) for members in data.class_indices])
        picks = [_drawn(members, window, number, rng, least) for members in ranked]
        return {"index": torch.cat(picks).to(data.device), "window": found["window"]}

    def result(self, state: State, data: LabeledData) -> SyntheticSet:
        """Build the set, whose provenance tells which ``window`` was found."""
        return replace(super().result(state, data), provenance={"window": state["window"].tolist()})

    def prepare(self, data: LabeledData, rng: torch.Generator) -> dict[str, Tensor]:
        """Rank the samples, and find the window for about as many as are wanted.

        Returns:
            ``"ranks"``: positions of each class's samples, the easiest first, class after class; ``"window"`` of them.
        """
        with frozen(self._teacher(data, rng), {}, data.device) as ready:
            ranked = []
            for label, members in enumerate(data.class_indices):
                outputs = logits(ready, data, members).float().cpu()
                losses = cross_entropy(outputs, torch.full((len(members),), label), reduction="none")
                ranked.append(members.cpu()[losses.argsort(stable=True)])
        window = self.window or self._found(data, ranked, rng)
        return {"ranks": torch.cat(ranked), "window": torch.tensor(window, dtype=torch.float64)}

    def _teacher(self, data: LabeledData, rng: torch.Generator) -> nn.Module:
        """Train a named teacher; give the user's own as it is."""
        teacher = settled(self, data.shape).teacher
        if isinstance(teacher, nn.Module):
            check_teacher(teacher, data)
            return teacher
        pool = data.subset(draw_pool(data, self.max_samples_per_class, rng))
        recipe = Recipe.by_steps(1, joint(data.augmentation, few=False))
        recipe = replace(recipe, steps=max(1, self.teacher_epochs * len(pool) // recipe.batch_size))
        return train_each([pool], teacher, recipe, rng=rng, device=data.device)[0]

    def _found(self, data: LabeledData, ranked: list[Tensor], rng: torch.Generator) -> tuple[float, float]:
        """Find the window whose samples teach best, by a held-out part of the data; random samples where none fits."""
        shuffled = [torch.randperm(len(members), generator=rng) for members in ranked]
        most = max(1, _MOST_HELD_OUT // len(ranked))
        apart = [order[: min(most, int(_HELD_OUT * len(order)))] for order in shuffled]
        rest = []
        for members, out in zip(ranked, apart, strict=True):
            stays = torch.ones(len(members), dtype=torch.bool)
            stays[out] = False
            rest.append(members[stays])
        test = data.subset(torch.cat([members[out] for members, out in zip(ranked, apart, strict=True)]))
        fitting = [
            window
            for window in WINDOWS
            if all(len(_inside(part, window)) >= min(self.images_per_class, len(part)) for part in rest)
        ]
        if len(test) < 2 or len(fitting) < 2:  # one sample has no error to tell selections apart by
            return WINDOWS[0]
        steps, draws = _judging(self.judge_steps, sum(min(self.images_per_class, len(part)) for part in rest))
        recipe = Recipe.by_steps(steps, joint(data.augmentation))
        makes = []
        for turn, window in product(range(draws), fitting):
            index = torch.cat([_drawn(members, window, self.images_per_class, rng) for members in rest])
            makes.append(partial(self._judged, data, index, test, recipe, turn))
        right = torch.stack([part["right"] for part in kept_each(rng, makes, "windows")])
        return fitting[_told_apart(right.view(draws, len(fitting), -1).double().mean(0))]

    def _judged(self, data: LabeledData, index: Tensor, test: LabeledData, recipe: Recipe, turn: int) -> Tensors:
        """Train a network on a selection; tell which samples of the test part it has ``right``, ``(n,)`` bool."""
        own = torch.Generator().manual_seed(turn)  # the same network and order for each window
        chosen, judge = data.subset(index), settled(self, test.shape).judge
        (module,) = train_each([chosen], judge, recipe, rng=own, device=test.device)
        return {"right": logits(module, test, torch.arange(len(test))).argmax(1).cpu() == test.targets.cpu()}


def _judging(steps: int, images: int) -> tuple[int, int]:
    """Return the steps that a judge takes on a number of images, and how many selections from each window are judged.

    Judges of few steps like easy images too much: in 123 kB of CIFAR-10, 3,000 images, those of 300 steps took the
    easiest tenth, on which networks reach 57.9 % of held-out images, and those of 600 the easier half, 60.6 %. Two
    networks on two draws of few images from the same window differ by a point, so few images are drawn once more.

    Example:
        >>> _judging(300, 1450), _judging(300, 3000), _judging(300, 5600)
        ((300, 3), (600, 2), (1200, 2))
    """
    times = max(1, round(images / 1500))
    return times * steps, 3 if times == 1 else 2


def _told_apart(right: Tensor) -> int:
    """Return the best of several selections, or the first where that is not better by its standard error.

    Two errors, as for a discovery, left out easier images in three searches of eleven on CIFAR-10, which cost two to
    five points; a window that is no better than all costs little.

    Args:
        right: ``(k, n)``, the share of the networks trained on each that label each sample rightly.

    Example:
        >>> judged = torch.zeros(3, 100)
        >>> judged[0, :50], judged[1, 10:61], judged[2, :60] = 1.0, 1.0, 1.0
        >>> _told_apart(judged), _told_apart(judged[:2])
        (2, 0)
    """
    ahead = right - right[0]
    gain, error = ahead.mean(1), ahead.std(1) / right.shape[1] ** 0.5
    best = int(gain.argmax())
    return best if bool(gain[best] > error[best]) else 0


def _inside(members: Tensor, window: Sequence[float], least: int = 0) -> Tensor:
    """Return the samples of a class, ranked from the easiest, that lie in a window.

    Args:
        members: of the class.
        window: first and last rank as shares of the class.
        least: samples that it is widened to hold, as far as there are so many.
    """
    first, last = (round(share * len(members)) for share in window)
    least = min(least, len(members))
    last = max(last, min(first + least, len(members)))
    return members[min(first, last - least) : last]


def _drawn(members: Tensor, window: Sequence[float], number: int, rng: torch.Generator, least: int = 0) -> Tensor:
    """Draw from the samples in a window, without putting any back.

    Raises:
        OptionError: it holds fewer.
    """
    inside, number = _inside(members, window, least), min(number, len(members))
    if len(inside) < number:
        raise OptionError(
            f"window {window[0]:g},{window[1]:g} holds {len(inside)} of a class's {len(members)} samples, fewer than "
            f"images_per_class={number}; widen it"
        )
    return inside[torch.randperm(len(inside), generator=rng)[:number]]
