"""Architecture search with NNI on distilled digits: Evolution over ConvNets, two candidates at once."""

from __future__ import annotations

from pathlib import Path

from nni.nas.strategy import RegularizedEvolution

import ddplug
from ddplug.distillers.dm import DM
from ddplug.nni import ConvNetSpace, ProxyEvaluator, ProxyExperiment


def make_files(folder: Path, steps: int) -> tuple[Path, Path]:
    """Distill ten images a class from four fifths of the training data, and keep the rest to judge candidates on."""
    paths = folder / "digits-dm-10.safetensors", folder / "digits-validation.safetensors"
    if all(path.exists() for path in paths):
        # other files would make another search
        return paths
    train, rest = ddplug.load_dataset("digits").split(0.2)
    distiller = DM(images_per_class=10, network="convnet:width=32,depth=2")
    ddplug.distill(train, distiller, steps=steps).save(paths[0])
    ddplug.holdout(rest).save(paths[1])
    return paths


def main(folder: str = "nni-search", trials: int = 12, epochs: int = 60, steps: int = 100) -> None:
    """Search, or go on with a search that was stopped, and print every candidate, best first."""
    place = Path(folder)
    place.mkdir(exist_ok=True)
    train, validation = make_files(place, steps)
    evaluator = ProxyEvaluator(train, validation, epochs=epochs, time_limit=60)
    space = ConvNetSpace((1, 8, 8), 10, widths=(4, 8, 16), depths=(1, 2))
    strategy = RegularizedEvolution(population_size=6, sample_size=3, mutation_prob=0.3, seed=0)
    experiment = ProxyExperiment(space, evaluator, strategy, trials=trials, concurrency=2, folder=place)
    experiment.run()
    for record in sorted(experiment.results, key=lambda record: -(record.metric or 0)):
        print(f"{record.metric:.3f}  {record.result.seconds:5.2f} s  {dict(record.sample)}")
    for record in experiment.failures:
        print(f"failed  {dict(record.sample)}: {record.failure}")
    print(f"best: {experiment.export_top_models(1, formatter='dict')[0]}")


if __name__ == "__main__":
    # trials import this module, so that nothing may run without this guard
    main()
