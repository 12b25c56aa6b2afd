"""Presets are options that their methods have, and restore the published schedules."""

from __future__ import annotations

import pytest

from ddplug import registry
from ddplug.distillers import presets
from ddplug.errors import OptionError

METHODS = {name: registry.resolve("distiller", name) for name in registry.names("distiller")}
ALL = [(name, preset) for name, method in METHODS.items() for preset in presets.of(method)]


@pytest.mark.parametrize(("method", "name"), ALL)
def test_every_preset_is_a_published_loop_with_its_source(method: str, name: str) -> None:
    made = registry.resolve("distiller", method)(**presets.get(method, name))
    if method in ("dm", "dc", "dsa"):
        assert made.pool_size == 0 and made.batch_real == 256
        assert made.network == ("mlp" if name == "paper-mlp" else "convnet")
    if method in ("dc", "dsa"):
        assert (made.inner_loop, made.network_learning_rate) == (0, 0.01)
    if method == "frepo":  # has a pool, which is its own published loop when a state of a network serves one step
        assert (made.pool_size, made.reuse, made.advance, made.max_age) == (10, 1, 1, 100)
    if method == "idm":
        assert (made.pool_size, made.reuse, made.advance) == (100, 1, 20)
        assert made.batch_real == (5000 if made.images_per_class == 1 else 256)
        assert made.learning_rate * made.images_per_class == pytest.approx(0.2)
    if method == "idc":
        assert (made.pool_size, made.reuse, made.batch_real, made.max_age) == (1, 1, 64, 99 * made.advance)
        assert made.distance == ("l1" if "mnist" in name else "mse")
    if method == "ncfm":
        assert (made.pool_size, made.networks) == (0, 20)
    assert presets.of(METHODS[method])[name].source


def test_published_numbers() -> None:
    assert presets.get("dc", "mnist-10")["steps"] == 1000 * 10
    assert presets.get("dsa", "cifar10-50")["steps"] == 1000 * 50
    assert presets.get("dm", "svhn-1")["steps"] == 20_000
    assert presets.get("dd", "mnist-10")["steps"] == 400 * 59 and presets.get("dd", "paper")["halve_every"] == 40 * 59
    assert presets.get("dd", "cifar10-10-fixed")["steps"] == 400 * 49
    assert presets.get("soft-label-dd", "paper")["halve_every"] == 35 * 59
    assert presets.get("idm", "cifar10-50")["calibration"] == 0.1
    # 5e-3 for pixels in 0..1 and 10 images per class; ours are of standard deviation 1, and multiplied by the images
    assert presets.get("idc", "cifar10-50")["learning_rate"] == pytest.approx(5e-3 / 10 / 0.2**2)
    assert presets.get("idc", "cifar10-10")["advance"] == 32 and presets.get("idc", "mnist-1")["advance"] == 8
    # the rate's own step is the published one: its logarithm moves by lr_lr / rate^2 times the same gradient
    assert presets.get("mtt", "cifar10-50")["lr_rate"] == pytest.approx(1e-5 / 1e-3**2)
    assert presets.get("mtt", "cifar10-10")["learning_rate"] == 100  # the published 1e5 is a misprint
    assert presets.get("mtt", "datm-cifar100-10") == {
        "images_per_class": 10,
        "steps": 10_000,
        "network": "convnet",
        "num_experts": 100,
        "epoch_steps": 0,
        "syn_steps": 80,
        "expert_epochs": 2,
        "min_start_epoch": 0,
        "max_start_epoch": 50,
        "early_start_epoch": 30,
        "grow_steps": 10_000,
        "train_learning_rate": 0.01,
        "learning_rate": 1000,
        "lr_rate": pytest.approx(0.1),
        "label_rate": 10,
        "threshold": 1.0,
        "batch_synthetic": 1000,
        "init_from": "real",
        "augment": "auto",
        "gradient": "exact",
    }
    # the published rate of DM does not depend on the images per class; ours is multiplied by them
    rates = {name: presets.get("dm", name) for name in presets.of(METHODS["dm"]) if name != "paper"}
    published = {name: options["learning_rate"] * options["images_per_class"] for name, options in rates.items()}
    large = {name for name in published if options_are_large(rates[name])}
    assert all(published[name] == pytest.approx(10 if name in large else 1) for name in published)
    assert large == {f"cifar10-{n}" for n in (100, 200, 500, 1000, 1250)}


def options_are_large(options: dict[str, int]) -> bool:
    return options["images_per_class"] >= 100


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(OptionError, match="unknown preset of 'dc', 'papers'; did you mean 'paper'"):
        presets.get("dc", "papers")
    with pytest.raises(OptionError, match="unknown preset of 'random', 'paper'"):
        presets.get("random", "paper")
    with pytest.raises(OptionError, match="unknown distiller 'dx'"):
        presets.get("dx", "paper")
