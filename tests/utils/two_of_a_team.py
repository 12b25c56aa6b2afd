"""What ``test_teams`` lets two processes of ``torchrun`` do; prints one line a case, or dies where it is told to.

Each case is run together and then alone, in the same process, and gives tensors that must be equal bit for bit.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddplug import registry
from ddplug.data.labeled import LabeledData
from ddplug.distillation.loop import distill
from ddplug.distillation.protocol import State
from ddplug.distillers.parts.experts import train_experts
from ddplug.distillers.parts.shares import each_part
from ddplug.distillers.parts.training import ExpertTraining
from ddplug.errors import DivergedError
from ddplug.evaluation.results import evaluate
from ddplug.networks import batching
from ddplug.synthetic.recipe import Recipe
from ddplug.testing import made_small, toy_images
from ddplug.utils.preparation import Keeper
from ddplug.utils.teams import agreed, alone, spread, team, together

DATA = toy_images((30, 30, 30))


def made(name: str, **options: Any) -> list[Tensor]:
    """A method after two steps: its images and labels."""
    method = made_small(registry.resolve("distiller", name)(**options))
    own = distill(DATA, method, steps=2 if method.steps else 0, device="cpu")
    return [own.inputs, own.targets]


def judged() -> list[Tensor]:
    own = distill(DATA, "random", images_per_class=2, device="cpu")
    network = "convnet:width=2,depth=1,norm=batch"  # whose networks are trained one after the other
    found = evaluate(own, DATA, network=network, repeats=3, recipe=Recipe(epochs=3, batch_size=4), device="cpu")
    return [torch.tensor(found.accuracies)]


def stubborn() -> list[Tensor]:
    """Parts whose draws depend on values, so that none can be left to others."""
    rng = torch.Generator().manual_seed(0)

    def make(data: LabeledData, state: State) -> dict[str, Tensor]:
        many = 1 + int(data.batch(torch.tensor([0])).abs().sum()) % 7
        return {"x": torch.rand(many, generator=rng)}

    return [part["x"] for part in each_part([make] * 3, DATA, {}, rng, "part")] + [rng.get_state()]


def refused() -> list[Tensor]:
    """An error of one process is that of all."""

    def make(k: int) -> dict[str, Tensor]:
        if k == 1:
            raise DivergedError("the second part diverged")
        return {"x": torch.zeros(1)}

    try:
        spread(2, make)
    except DivergedError as error:
        return [torch.tensor(list(str(error).encode()))]
    raise AssertionError("nothing was raised")


CASES: dict[str, Callable[[], list[Tensor]]] = {
    **{name: partial(made, name) for name in ("dm", "ncfm", "dc", "idc", "idm", "frepo", "kmeans", "rded", "mtt")},
    "sre2l": partial(made, "sre2l", batch_size=2),
    "evaluate": judged,
    "stubborn": stubborn,
    "refused": refused,
}


def compare() -> None:
    for name, case in CASES.items():
        shared = case()
        with alone():
            expected = case()
        same = len(shared) == len(expected) and all(map(torch.equal, shared, expected))
        say(f"{name} {same}")


def share() -> None:
    """How many of five parts this process has made itself."""
    own: list[bool] = []
    rng = torch.Generator().manual_seed(0)

    def make(data: LabeledData, state: State) -> dict[str, Tensor]:
        own.append(not data.inputs.is_meta)
        return {"x": torch.rand(1, generator=rng)}

    each_part([make] * 5, DATA, {}, rng, "part")
    say(f"share {sum(own)}")


def experts(folder: Path) -> None:
    training = ExpertTraining(epochs=1, epoch_steps=2)
    found = train_experts(DATA, folder, "mlp:width=5", training, number=3, device="cpu")
    say(f"experts {sum(path.exists() for path in found)}")


def die(path: Path) -> None:
    """The second process is killed after the first round of the pool."""
    put = Keeper.put

    def killed(self: Keeper, number: int, part: Any) -> None:
        put(self, number, part)
        if number >= 3 + team().size and team().rank == 1:  # after the starts of three classes
            os.kill(os.getpid(), signal.SIGKILL)

    Keeper.put = killed  # type: ignore[method-assign]
    distill(DATA, small_dm(), steps=2, device="cpu", checkpoint=path, checkpoint_every=0)


def small_dm() -> Any:
    return replace(made_small(registry.resolve("distiller", "dm")()), pool_size=5)


def say(line: str) -> None:
    if team().leads:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    torch.set_num_threads(1)
    with together():
        if sys.argv[1] == "die":
            die(Path(sys.argv[2]))
        else:
            batching.PIECE_BYTES = 1 << 14  # so that the six images of a step are several micro-batches
            compare()
            share()
            experts(Path(sys.argv[2]))
    with together():  # once more
        agreed("the threads", str(spread(2, lambda k: {"k": torch.tensor(k)})))
    left = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in left if "gloo" in name]
