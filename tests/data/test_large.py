"""Large data: drawing a few of many, inputs that stay in a file, and data without values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ddplug import registry
from ddplug.data.labeled import _SHUFFLED, LabeledData
from ddplug.data.loaders import from_dataset
from ddplug.data.preprocess import Identity
from ddplug.distillation.loop import distill
from ddplug.distillation.memory import peak_bytes
from ddplug.distillation.settling import settled
from ddplug.distillers.parts import features
from ddplug.testing import made_small, toy_images
from tests.exact import generator, twin

LARGE = LabeledData(
    torch.zeros(_SHUFFLED + 6, 1), torch.tensor([0] * (_SHUFFLED + 1) + [1] * 5), 2, Identity(), ("many", "few")
)


def test_a_few_of_many_are_drawn_without_shuffling_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: pytest.fail("all were shuffled"))
    rng = generator()
    drawn = torch.cat([LARGE.draw(0, 4000, rng) for _ in range(50)])
    assert all(len(part.unique()) == 4000 for part in drawn.split(4000))
    assert int(drawn.min()) >= 0 and int(drawn.max()) <= _SHUFFLED
    counts = torch.histc(drawn.double(), 8, 0, _SHUFFLED)  # 25,000 each, with a deviation of 140
    assert bool(((counts - 25_000).abs() < 700).all())
    assert torch.equal(LARGE.draw(0, 3, generator(1)), LARGE.draw(0, 3, generator(1)))


def test_many_of_many_and_small_classes_are_drawn_as_ever() -> None:
    assert len(LARGE.draw(0, _SHUFFLED, generator()).unique()) == _SHUFFLED
    order = torch.randperm(5, generator=generator())
    assert torch.equal(LARGE.draw(1, 3, generator()), _SHUFFLED + 1 + order[:3])


def test_a_shadow_draws_as_the_data_do_and_has_no_values() -> None:
    data = toy_images()
    rng, shadow = generator(), data.shadow()
    other = twin(rng)
    real, seen = data.sample(1, 4, rng), shadow.sample(1, 4, other)
    assert (seen.shape, seen.device.type, seen.dtype) == (real.shape, "meta", real.dtype)
    assert torch.equal(rng.get_state(), other.get_state())
    assert torch.equal(shadow.labels(torch.tensor([3, 20])), data.labels(torch.tensor([3, 20])))
    assert (len(shadow), shadow.shape, shadow.device.type) == (len(data), data.shape, "meta")
    with pytest.raises((NotImplementedError, RuntimeError)):
        seen.tolist()


def test_mapped_inputs_stay_where_they_are_and_batches_go(tmp_path: Path) -> None:
    own = toy_images()
    items: list[Any] = [(image, int(label)) for image, label in zip(own.inputs, own.targets, strict=True)]
    data = from_dataset(items, cache=tmp_path)
    moved = data.to("meta")  # a device that takes no values, as an accelerator takes no file
    assert moved.inputs.data_ptr() == data.inputs.data_ptr() and moved.device.type == "meta"
    assert moved.targets.device.type == moved.preprocess.tensors()["mean"].device.type == "meta"
    assert moved.to("meta") is moved
    in_memory = distill(own, "random", images_per_class=2, device="cpu")
    assert torch.equal(distill(data, "random", images_per_class=2, device="cpu").inputs, in_memory.inputs)


def test_of_classes_too_large_to_cluster_a_part_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = toy_images((50, 9)), []
    monkeypatch.setattr(features, "LARGEST", 20 * 64)

    def extract(members: torch.Tensor) -> torch.Tensor:
        seen.append(members)
        return features.pixels(data)(members)

    for members, number, taken in ((data.class_indices[0], 3, 20), (data.class_indices[1], 3, 9)):
        assert len(features.cluster_means(data, members, extract, number, generator())) == number
        assert len(seen[-1].unique()) == taken
    assert len(features.cluster_means(data, data.class_indices[0], extract, 40, generator())) == 40


@pytest.mark.parametrize("name", ["herding", "k-center", "kmeans", "dm", "dc", "dd"])
def test_memory_does_not_grow_with_the_images(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "LARGEST", 100 * 256)
    toys, number = toy_images((2, 2), size=16), 20_000
    path = tmp_path / "images"
    torch.randint(256, (256 * number,), generator=generator(), dtype=torch.uint8).numpy().tofile(path)
    mapped = torch.from_file(str(path), shared=False, size=256 * number, dtype=torch.uint8).view(number, 1, 16, 16)
    labels = torch.arange(number) % 2
    data = LabeledData(mapped, labels, 2, toys.preprocess, toys.class_names, scratch=str(tmp_path))
    method = settled(made_small(registry.resolve("distiller", name)()), data.shape)
    states: list[Any] = []
    peak = peak_bytes(lambda: states.append(method.init(data, generator())))
    if method.steps:
        peak = max(peak, peak_bytes(lambda: method.step(states[0], data, generator())))
    # positions are there, but a tenth of the images in model space is not
    assert peak < 4 * mapped.numel() / 10
