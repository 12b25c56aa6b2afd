"""Ten clients that keep their data: each sends one small set, once; beside averaging of weights in many rounds.

The digits of scikit-learn are dealt to ten clients, each of which has much of a few digits and little of the rest.
Every way is judged by the same network on digits that no client has, and by the bytes that all send and receive.

    python examples/federated.py
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor, nn

import ddplug
from ddplug.data.preprocess import Identity
from ddplug.distillers import DPDM, Random
from ddplug.evaluation import accuracy, train_on
from ddplug.evaluation.train import fit
from ddplug.networks import build
from ddplug.synthetic import Recipe, SyntheticSet, privacy_statement
from ddplug.utils.notes import Note

NETWORK = "convnet:width=16,depth=2"
CLIENTS = 10
LEAST = 3
"""Records that each client has of each digit."""


@dataclass(frozen=True)
class Found:
    """What a way of learning together cost and led to.

    Attributes:
        way: what was done.
        nbytes: that all clients together sent and received.
        accuracy: on digits of no client.
    """

    way: str
    nbytes: int
    accuracy: float


def deal(data: ddplug.LabeledData, rng: torch.Generator) -> list[ddplug.LabeledData]:
    """Deal the records: of each digit a few to everyone, and half and a quarter of the rest to two of the clients."""
    dealt: list[list[Tensor]] = [[] for _ in range(CLIENTS)]
    for members in data.class_indices:
        order = members[torch.randperm(len(members), generator=rng)]
        rest = len(order) - CLIENTS * LEAST
        shares = torch.full((CLIENTS,), rest // (4 * (CLIENTS - 2)))
        favored = torch.randperm(CLIENTS, generator=rng)
        shares[favored[:2]] = torch.tensor([rest // 2, rest // 4])
        shares[favored[-1]] += rest - shares.sum()
        for own, part in zip(dealt, order.split((shares + LEAST).tolist()), strict=True):
            own.append(part)
    return [data.subset(torch.cat(parts)) for parts in dealt]


def trained_on(made: SyntheticSet, test: ddplug.LabeledData, steps: int) -> float:
    """Train the network on a set and return its accuracy."""
    recipe = Recipe.by_steps(steps, made.recipe.augment)
    (module,) = train_on(made, NETWORK, recipe=recipe, rng=torch.Generator().manual_seed(0))
    return accuracy(module, test)


def of_sets(way: str, sets: Sequence[SyntheticSet], test: ddplug.LabeledData, steps: int) -> Found:
    """Merge what the clients sent, each set once, and train on it."""
    return Found(way, sum(made.nbytes for made in sets), trained_on(reduce(SyntheticSet.merge, sets), test, steps))


def averaging(
    clients: Sequence[ddplug.LabeledData], test: ddplug.LabeledData, told: Sequence[int], epochs: int
) -> list[Found]:
    """Average weights (McMahan et al., AISTATS 2017): in a round each client gets them, trains and sends them back."""
    rng = torch.Generator().manual_seed(0)
    data = clients[0]
    server = build(NETWORK, data.shape, data.num_classes, rng)
    weights = {name: value.clone() for name, value in server.state_dict().items()}
    size = sum(4 * value.numel() for value in weights.values())
    recipe = Recipe(learning_rate=0.1, momentum=0.0, batch_size=32, schedule="constant", augment=data.augmentation)
    found = []
    for n in range(1, max(told) + 1):
        total = {name: torch.zeros_like(value) for name, value in weights.items()}
        for client in clients:
            for name, value in _local(server, weights, client, recipe, epochs, rng).items():
                total[name] += value * (len(client) / sum(map(len, clients)))
        weights = total
        if n in told:
            server.load_state_dict(weights)
            server.eval()
            way = f"averaging of weights, {n} round{'s' if n > 1 else ''}"
            found.append(Found(way, 2 * n * size * len(clients), accuracy(server, test)))
    return found


def _local(
    network: nn.Module,
    weights: dict[str, Tensor],
    client: ddplug.LabeledData,
    recipe: Recipe,
    epochs: int,
    rng: torch.Generator,
) -> dict[str, Tensor]:
    network.load_state_dict(weights)
    network.train()
    fit([network], [client], recipe, [rng], steps=epochs * -(-len(client) // recipe.batch_size))
    return network.state_dict()


def main(
    images: int = 3,
    epsilon: float = 10.0,
    steps: int = 100,
    rounds: Sequence[int] = (1, 5, 20),
    epochs: int = 2,
    training: int = 200,
) -> list[Found]:
    """Compare one exchange of sets with rounds of weights, and print a line for each.

    Args:
        images: of each digit that a client sends.
        epsilon: of the guarantee of each client's private set.
        steps: of making it.
        rounds: of averaging after which it is judged.
        epochs: that each client trains in a round.
        training: steps of training on sets.
    """
    began = time.monotonic()
    # what all must agree on beforehand, without looking at anyone's data: preprocessing, classes, network
    train, test = (replace(ddplug.load_dataset("digits", split=s), preprocess=Identity()) for s in ("train", "test"))
    clients = deal(train, torch.Generator().manual_seed(0))
    sizes = [len(client) for client in clients]
    print(f"{CLIENTS} clients with {min(sizes)} to {max(sizes)} records each, {len(test)} others to judge by")
    coded = [
        ddplug.distill(client, Random(images_per_class=images), codec="pixels:bits=2", seed=k)
        for k, client in enumerate(clients)
    ]
    method = DPDM(images_per_class=images, network="convnet:width=8,depth=2", pool_size=1, epsilon=epsilon, steps=steps)
    with warnings.catch_warnings():
        # a client has too few records of most digits for the noise, and each of the ten says so
        warnings.simplefilter("ignore", Note)
        private = [ddplug.distill(client, method, seed=k).quantize(bits=2) for k, client in enumerate(clients)]
    alone = [trained_on(made, test, training) for made in coded]
    found = [
        Found("a client's own set, on average", 0, sum(alone) / len(alone)),
        of_sets(f"sets of {images} coded images a digit, once", coded, test, training),
        of_sets(f"sets of dp-dm, epsilon {epsilon:g} each, once", private, test, training),
        *averaging(clients, test, rounds, epochs),
    ]
    for each in found:
        print(f"{each.way:38} {each.nbytes:10,} bytes  accuracy {100 * each.accuracy:.1f} %")
    said = privacy_statement(private[0].provenance)
    assert said is not None
    print(f"each private set: epsilon {said['epsilon']:g}, delta {said['delta']:g}, for {said['neighbors']}")
    print(f"{time.monotonic() - began:.0f} s")
    return found


if __name__ == "__main__":
    main()
