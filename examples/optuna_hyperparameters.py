"""Tune on less data: Optuna scores every trial on 100 distilled digits, and trains the best quarter on all data."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import TPESampler

import ddplug
from ddplug.distillers import KMeansCentroid
from ddplug.optuna import DistilledObjective
from ddplug.search import Judge, Protocol

NETWORK = "convnet:width=8,depth=2"


def define(trial: Any) -> Any:
    """Suggest how to train: a candidate is a network and the fields of the protocol that are searched."""
    return NETWORK, {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        "momentum": trial.suggest_categorical("momentum", [0.0, 0.9]),
        "augment": trial.suggest_categorical("augment", ["", "crop", "crop_scale_rotate"]),
    }


def main(trials: int = 16, steps: int = 40, full_steps: int = 150, chance: int = 4) -> None:
    """Tune, go on where an earlier run stopped, and say what the search gained over choosing by chance."""
    train, rest = ddplug.load_dataset("digits").split(0.2)
    small = ddplug.distill(train, KMeansCentroid(images_per_class=10)).quantize()
    common: dict[str, Any] = {"batch_size": 64, "schedule": "cosine", "device": "cpu"}
    # nothing is trained twice, also where the study is made anew
    proxy = Judge(small, rest, Protocol(steps=steps, **common), journal="hyperparameters.jsonl")
    full = Judge(train, rest, Protocol(steps=full_steps, **common), journal="hyperparameters.jsonl")
    objective = DistilledObjective(define, proxy, full, promote=0.25)

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=TPESampler(seed=0), pruner=NopPruner())
    study.optimize(objective, n_trials=trials)
    print(f"{len(study.trials)} trials on {small.nbytes} bytes, {len(objective.promoted(study))} of them on all data")
    print(f"best: {study.best_value:.3f} with {study.best_params}")
    print(objective.retrain(study, top_k=2, chance=chance).text)
    objective.figure(study).savefig("hyperparameters.png")


if __name__ == "__main__":
    main()
