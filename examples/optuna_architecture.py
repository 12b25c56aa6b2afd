"""Search networks on less data: trials of Optuna in a study on disk, which several processes may work on at once.

Start it in two terminals, and both take trials of one study. Stop it and start it again, and it goes on.
"""

from __future__ import annotations

from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import TPESampler

import ddplug
from ddplug.distillers import KMeansCentroid
from ddplug.optuna import DistilledObjective
from ddplug.search import Judge, Protocol


def define(trial: Any) -> str:
    """Suggest a network: a candidate is its name with options, or a function that makes one."""
    width = trial.suggest_categorical("width", [4, 8, 16])
    depth = trial.suggest_int("depth", 1, 2)
    norm = trial.suggest_categorical("norm", ["none", "batch", "instance"])
    pool = trial.suggest_categorical("pool", ["none", "max", "avg"])
    return f"convnet:width={width},depth={depth},norm={norm},pool={pool}"


def main(trials: int = 16, steps: int = 30, full_steps: int = 150, storage: str = "sqlite:///architecture.db") -> None:
    """Search until the study has so many trials, and print the networks that were trained in full, best first."""
    train, rest = ddplug.load_dataset("digits").split(0.2)
    small = ddplug.distill(train, KMeansCentroid(images_per_class=10)).quantize()
    common: dict[str, Any] = {"learning_rate": 0.05, "batch_size": 64, "schedule": "constant", "device": "cpu"}
    proxy = Judge(small, rest, Protocol(steps=steps, seeds=2, **common), journal="architecture.jsonl")
    full = Judge(train, rest, Protocol(steps=full_steps, **common), journal="architecture.jsonl")
    objective = DistilledObjective(define, proxy, full, promote=0.25)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="architecture",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=TPESampler(seed=0),
        pruner=NopPruner(),
    )
    while len(study.get_trials(deepcopy=False)) < trials:
        study.optimize(objective, n_trials=1)
    for record in sorted(objective.promoted(study), key=lambda record: -(record.metric or 0)):
        print(f"{record.metric:.3f}  {dict(record.sample)}")
    print(objective.retrain(study, top_k=2, chance=0).text)
    objective.figure(study).savefig("architecture.png")


if __name__ == "__main__":
    main()
