"""Networks: published sizes, the whole 720-architecture space, and no trace left in the global random state."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ddplug import Recipe, distill, errors, evaluate, names
from ddplug.distillers import DM, MTT, El2n
from ddplug.networks.convnet import SPACE, ConvNet
from ddplug.networks.factory import build, check_outputs, embed, has_batch_norm
from ddplug.networks.layers import ACTIVATIONS, NORMS, POOLS
from ddplug.testing import toy_images
from ddplug.utils import specs


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("spec", "count"), [("convnet", 320_010), ("convnet:width=32", 24_714)])
def test_published_parameter_counts(spec: str, count: int) -> None:
    assert parameters(build(spec, (3, 32, 32), 10, rng())) == count


def test_one_channel_images_of_28_pixels_give_the_maps_of_32() -> None:
    module = build("convnet", (1, 28, 28), 10, rng())
    assert embed(module, torch.zeros(1, 1, 28, 28)).shape == (1, 128 * 4 * 4)


def test_the_space_has_720_architectures() -> None:
    assert math.prod(map(len, SPACE.values())) == 720
    assert set(SPACE["norm"]) == set(NORMS)
    assert set(SPACE["pool"]) == set(POOLS)
    assert set(SPACE["act"]) == set(ACTIVATIONS) - {"swish"}


def slow_convnet(module: nn.Module, x: Tensor, depth: int, norm: Any, act: Any, pool: Any) -> Any:
    """The same network written out by hand from the numbers of ``module``."""
    state = {name: tensor.double() for name, tensor in module.state_dict().items()}
    x = x.double()
    for block in range(depth):
        x = nn.functional.pad(x, [2 if block == 0 and x.shape[1] == 1 else 0] * 4)
        x = nn.functional.conv2d(
            x, state[f"features.{4 * block}.weight"], state[f"features.{4 * block}.bias"], padding=1
        )
        n, c, h, w = x.shape
        view, dims = {
            "none": (x, None),
            "batch": (x, (0, 2, 3)),
            "layer": (x, (1, 2, 3)),
            "instance": (x, (2, 3)),
            "group": (x.view(n, 4, c // 4, h, w), (2, 3, 4)),
        }[norm]
        if dims is not None:
            mean, var = view.mean(dims, keepdim=True), view.var(dims, correction=0, keepdim=True)
            x = ((view - mean) / (var + 1e-5).sqrt()).reshape(n, c, h, w)
            scale, shift = (state[f"features.{4 * block + 1}.{name}"] for name in ("weight", "bias"))
            shape = (1, c, h, w) if norm == "layer" else (1, c, 1, 1)
            x = x * scale.view(shape) + shift.view(shape)
        x = {
            "relu": x.clamp_min(0),
            "leakyrelu": torch.where(x > 0, x, 0.01 * x),
            "sigmoid": 1 / (1 + (-x).exp()),
            "swish": x / (1 + (-x).exp()),
        }[act]
        if pool != "none":
            cells = x[:, :, : h // 2 * 2, : w // 2 * 2].unfold(2, 2, 2).unfold(3, 2, 2).flatten(4)
            x = cells.mean(-1) if pool == "avg" else cells.amax(-1)
    return x.flatten(1) @ state["head.weight"].T + state["head.bias"]


# the width only scales the layers: the structures are run at width 4, the published widths on a sample below
STRUCTURES = list(itertools.product(SPACE["depth"], SPACE["norm"], [*SPACE["act"], "swish"], SPACE["pool"]))


@pytest.mark.parametrize("depth", SPACE["depth"])
@pytest.mark.parametrize("norm", SPACE["norm"])
def test_every_structure_is_what_it_says_and_trains(depth: int, norm: str) -> None:
    chosen = [s for s in STRUCTURES if s[:2] == (depth, norm)]
    assert len(chosen) == 12
    x = torch.rand(2, 1, 12, 12, generator=rng())
    for _, _, act, pool in chosen:
        module = build(f"convnet:width=4,depth={depth},norm={norm},act={act},pool={pool}", (1, 12, 12), 3, rng())
        with torch.no_grad():
            for p in module.parameters():  # scales of one and shifts of zero would hide a missing affine map
                p.copy_(torch.randn(p.shape, generator=rng(p.numel())))
        logits = module(x)
        assert logits.shape == (2, 3)
        torch.testing.assert_close(
            logits.double(), slow_convnet(module, x, depth, norm, act, pool), rtol=1e-3, atol=1e-3
        )
        gradients = torch.autograd.grad(logits.square().sum(), list(module.parameters()))
        assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("width", SPACE["width"])
@pytest.mark.parametrize("channels", [1, 3])
def test_published_widths(width: int, channels: int) -> None:
    module = build(f"convnet:width={width},depth=4", (channels, 32, 32), 10, rng())
    conv = channels * 9 + 1 + 3 * (width * 9 + 1) + 4 * 2
    side = 2  # 32 or 36 pixels, halved four times
    assert parameters(module) == width * conv + (width * side**2 + 1) * 10
    assert module(torch.zeros(1, channels, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("network", ["convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 33, 47)])
def test_every_network_takes_the_usual_images(network: str, shape: tuple[int, ...]) -> None:
    narrow = {"convnet", "vgg11", "resnet18"} & {network}
    module = build(network + (":width=4" if narrow else ""), shape, 7, rng())
    x = torch.rand(2, *shape, generator=rng())
    logits = module(x)
    assert logits.shape == (2, 7)
    gradients = torch.autograd.grad(logits.square().sum(), list(module.parameters()))
    assert all(bool(g.abs().sum() > 0) for g in gradients[-2:])
    features = embed(module, x)
    assert features.ndim == 2
    last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1]
    torch.testing.assert_close(last(features), logits)


def test_names_of_the_package_are_all_tested_above() -> None:
    assert {"convnet", "mlp", "lenet", "alexnet", "vgg11", "resnet18"} <= set(names("network"))


def test_resnet18_has_its_published_size() -> None:
    # the 11,173,962 parameters of the CIFAR variant are widely reported
    assert parameters(build("resnet18:norm=batch", (3, 32, 32), 10, rng())) == 11_173_962


def test_mlp_takes_tables_and_is_a_linear_classifier_at_depth_one() -> None:
    assert build("mlp", (5,), 3, rng())(torch.zeros(2, 5)).shape == (2, 3)
    assert parameters(build("mlp:depth=1", (5,), 3, rng())) == 5 * 3 + 3
    assert parameters(build("mlp", (1, 28, 28), 10, rng())) == 784 * 128 + 128 + 128 * 128 + 128 + 128 * 10 + 10


def test_building_neither_reads_nor_moves_global_randomness() -> None:
    states = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            before = torch.get_rng_state()
            states.append(build("convnet:width=4", (1, 8, 8), 3, rng(5)).state_dict())
            assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_one_generator_gives_different_networks() -> None:
    shared = rng()
    first, second = (build("mlp", (4,), 2, shared) for _ in range(2))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_initialization_is_torchs_own() -> None:
    layer = next(build("convnet", (3, 32, 32), 10, rng()).parameters()).detach()
    bound = 1 / math.sqrt(3 * 9)  # of torch's default for convolutions: uniform within 1 / sqrt(fan in)
    assert 0.95 * bound < float(layer.abs().max()) <= bound
    assert float(layer.std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_xavier_initialization_has_its_variance_and_no_biases() -> None:
    network = build("lenet:init=xavier", (1, 28, 28), 10, torch.Generator().manual_seed(0))
    sizes = {"features.3": (6 * 25, 16 * 25), "features.7": (16 * 25, 120)}
    for name, (before, after) in sizes.items():
        layer: Any = network.get_submodule(name)
        assert float(layer.weight.detach().var()) == pytest.approx(2 / (before + after), rel=0.1)
    assert all(not bool(p.any()) for name, p in network.named_parameters() if name.endswith("bias"))
    with pytest.raises(errors.OptionError, match="unknown value of option 'init', 'xavir'; did you mean 'xavier'"):
        build("lenet:init=xavir", (1, 28, 28), 10, torch.Generator().manual_seed(0))


def test_a_callable_is_accepted() -> None:
    make: Callable[[], nn.Module] = lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 2))  # noqa: E731
    first, second = (build(make, (1, 2, 2), 2, rng(3)) for _ in range(2))
    assert torch.equal(first[1].weight, second[1].weight)  # type: ignore[index]


class Backwards(nn.Module):
    """Defines its layers in another order than it calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.first = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(x).relu())
        return out


def test_embed_gives_what_the_last_linear_layer_called_receives() -> None:
    module, x = build(Backwards, (4,), 2, rng()), torch.rand(5, 4, generator=rng())
    assert isinstance(module, Backwards)
    torch.testing.assert_close(embed(module, x), module.first(x).relu())
    assert not module.last._forward_pre_hooks  # nothing stays behind


def test_embed_is_differentiable_and_works_under_functional_calls() -> None:
    module, x = build(Backwards, (4,), 2, rng()), torch.rand(5, 4, generator=rng())

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module

        def forward(self, x: Tensor) -> Tensor:
            return embed(self.inner, x)

    zero = {f"inner.{name}": torch.zeros_like(p).requires_grad_() for name, p in module.named_parameters()}
    out = torch.func.functional_call(Features(), zero, (x,))
    assert out.requires_grad
    assert float(out.detach().abs().sum()) == 0


def test_embed_needs_a_linear_layer() -> None:
    with pytest.raises(errors.OptionError, match=r"Conv2d has no nn\.Linear"):
        embed(build(lambda: nn.Conv2d(1, 1, 1), (1, 2, 2), 2, rng()), torch.zeros(1, 1, 2, 2))


def test_has_batch_norm() -> None:
    found = {norm: has_batch_norm(build(f"convnet:width=4,norm={norm}", (3, 8, 8), 2, rng())) for norm in NORMS}
    assert found == {norm: norm == "batch" for norm in NORMS}


def test_convnet_is_a_class_with_features() -> None:
    assert isinstance(build("convnet:width=4", (1, 8, 8), 2, rng()), ConvNet)


def test_specifications_are_read() -> None:
    assert specs.parse("network", "mlp") == ("mlp", {})
    assert specs.parse("network", "x:a=1, b=0.5,c=word") == ("x", {"a": 1, "b": 0.5, "c": "word"})


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ("convnt", (1, 8, 8), "unknown network 'convnt'; did you mean 'convnet'"),
        ("convnet:widht=3", (1, 8, 8), "'widht'; did you mean 'width'"),
        ("convnet:norm=instanse", (1, 8, 8), "'instanse'; did you mean 'instance'"),
        ("convnet:act=rellu", (1, 8, 8), "'rellu'; did you mean 'relu'"),
        ("convnet:pool=mean", (1, 8, 8), "'pool', 'mean'; did you mean 'max'[?] Known: avg, max, none"),
        ("convnet:width=wide", (1, 8, 8), "width=wide is not of type int"),
        ("convnet:width=1.5", (1, 8, 8), "width=1.5 is not of type int"),
        ("convnet:norm=3", (1, 8, 8), "norm=3 is not of type str"),
        ("convnet:width=0", (1, 8, 8), "width is 0; it must be at least 1"),
        ("convnet:depth=0", (1, 8, 8), "depth is 0; it must be at least 1"),
        ("convnet:width", (1, 8, 8), "'width' is not an option; write convnet:option=value"),
        ("convnet:width=4,width=8", (1, 8, 8), "gives the option 'width' twice"),
        ("convnet:norm=group,width=6", (1, 8, 8), "do not divide width=6"),
        ("convnet:depth=4", (1, 8, 8), "depth=4 pools 8x8 images below 1x1; use depth=3 or pool=none"),
        ("convnet:depth=1", (3, 1, 1), "depth=1 pools 1x1 images below 1x1; use mlp"),
        ("convnet:depth=1", (3, 1, 2), "depth=1 pools 1x2 images below 1x1; use pool=none"),
        ("convnet:pool=none", (3, 1, 1), "norm=instance turns a map of 1x1 into zeros"),
        ("convnet", (64,), r"not inputs of shape \(64,\); use mlp"),
        ("lenet", (1, 8, 8), "at least 12x12 pixels, not 8x8"),
        ("lenet", (3, 15, 32), "at least 16x16 pixels, not 15x32"),
        ("alexnet", (3, 7, 7), "at least 8x8 pixels, not 7x7"),
        ("vgg11", (1, 8, 8), "at least 28x28 pixels, not 8x8"),
        ("vgg11", (3, 28, 28), "at least 32x32 pixels, not 28x28"),
        ("resnet18", (1, 8, 8), "norm=instance turns a map of 1x1 into zeros"),
        ("mlp:depth=0", (4,), "depth is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(spec: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(errors.OptionError, match=message) as caught:
        build(spec, shape, 3, rng())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "shape"), [("lenet", (1, 12, 12)), ("lenet", (3, 16, 16)), ("alexnet", (3, 8, 8)), ("alexnet", (1, 4, 4))]
)
def test_the_smallest_images_named_are_taken(spec: str, shape: tuple[int, ...]) -> None:
    assert build(spec, shape, 3, rng())(torch.zeros(2, *shape)).shape == (2, 3)


def test_a_callable_must_make_a_module() -> None:
    with pytest.raises(errors.OptionError, match=r"made a int; it must return a torch\.nn\.Module"):
        build(lambda: 3, (1, 8, 8), 3, rng())  # type: ignore[arg-type,return-value]


class Plain(nn.Module):
    """A network as people write them, of a shape and a number of classes."""

    def __init__(self, shape: tuple[int, ...], classes: int, width: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), width), nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


NETWORKS: dict[str, Any] = {
    "two arguments": lambda shape, classes: Plain(shape, classes),
    "a class": Plain,
    "ours": ConvNet,
    "two and more": lambda shape, classes, width=4: Plain(shape, classes, width),
    "none": lambda: Plain((1, 6, 6), 2),
    "none but with defaults": lambda width=4: Plain((1, 6, 6), 2, width),
    "partial": partial(Plain, width=5),
    "partial of all": partial(Plain, (1, 6, 6), 2),
    "lazy": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(2)),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_function_is_called_as_it_wants_to_be(name: str) -> None:
    data, network = toy_images((5, 6), size=6), NETWORKS[name]
    assert isinstance(build(network, data.shape, 2, rng()), nn.Module)
    if name == "lazy":
        return
    method = DM(images_per_class=1, network=network, pool_size=1, batch_real=2, steps=1, init_from="noise")
    made = distill(data, method, device="cpu")
    assert evaluate(made, data, network=network, repeats=1, recipe=Recipe(epochs=1), device="cpu").n == 1


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (lambda shape: Plain(shape, 2), r"<lambda> needs 1 arguments; it must take none, or two"),
        (lambda shape, classes, width: Plain(shape, 2), r"needs 3 arguments"),
        (lambda: Plain((3, 6, 6), 2), r"network Plain cannot take an input of shape \(1, 6, 6\) \(RuntimeError: "),
        (lambda: nn.Conv2d(3, 8, 3), r"network Conv2d cannot take an input of shape \(1, 6, 6\)"),
        (lambda: Plain((1, 6, 6), 5), r"network Plain turns one input into \(1, 5\); it must give \(1, 2\)"),
        (lambda: nn.Conv2d(1, 2, 3), r"network Conv2d turns one input into \(1, 2, 4, 4\); it must give \(1, 2\)"),
        (lambda: nn.LSTM(6, 2), "network LSTM (cannot take|turns one input into tuple)"),
        (
            lambda: 1 / 0,
            r"<lambda> cannot be built for inputs of shape \(1, 6, 6\) and 2 classes \(ZeroDivisionError: ",
        ),
        (lambda *, width: Plain((1, 6, 6), 2), "cannot be built .* missing 1 required keyword-only argument"),
        (lambda: "mlp", "made a str; it must return a torch.nn.Module"),
        (lambda: nn.Linear(2, 2, device="meta"), "parameters on the device 'meta', .*; create them on the CPU"),
        (Plain((1, 6, 6), 2), "network is a Plain; give a name, or a function that builds a new one"),
        (3, "network is a int; give a name, or a function"),
        (None, "network is a NoneType; give a name, or a function"),
    ],
)
def test_what_is_no_network_for_the_data_is_refused_before_the_work(network: Any, says: str) -> None:
    data = toy_images((5, 6), size=6)
    made = distill(data, "random", images_per_class=2, device="cpu")
    calls: list[Callable[[], object]] = [lambda: evaluate(made, data, network=network, device="cpu")]
    calls += [partial(distill, data, cls(images_per_class=1, network=network), device="cpu") for cls in (DM, El2n, MTT)]
    for call in calls:
        with pytest.raises(errors.OptionError, match=says) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_a_check_leaves_a_network_as_it_is() -> None:
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    module[1].eval()
    before = copy.deepcopy(module.state_dict())
    state = torch.get_rng_state()
    check_outputs(module, torch.ones(1, 1, 2, 2), 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert [layer.training for layer in module] == [True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
