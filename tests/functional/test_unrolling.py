"""The reverse sweep against autograd's own unroll, finite differences, closed forms, and the memory it is there for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from ddplug.errors import OptionError
from ddplug.functional.types import Tensors
from ddplug.functional.unrolling import StepLoss, unroll
from ddplug.networks.factory import build
from ddplug.networks.functional import minibatch_loss, stateless
from tests.exact import peak_of_graphs

Outer = Callable[[Tensors], Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(network: str, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A network in float64, always the same."""
    return build(network, shape, classes, generator(7)).double()


def setting(network: str, steps: int, soft: bool) -> tuple[StepLoss, Tensors, list[Tensor], Tensor, Outer]:
    """A float64 training of some images of three classes, and an outer loss on others."""
    shape, classes, rng = (1, 12, 12), 3, generator(7)
    module = stateless(partial(double, network, shape, classes), shape, classes)
    weights = {name: p.detach() for name, p in double(network, shape, classes).named_parameters()}
    images = torch.randn(6, *shape, generator=rng, dtype=torch.float64).requires_grad_()
    labels = torch.arange(6) % classes
    if soft:  # neither positive nor adding up to 1
        labels = torch.randn(6, classes, generator=rng, dtype=torch.float64).requires_grad_()
    rates = (0.05 + 0.2 * torch.rand(steps, generator=rng, dtype=torch.float64)).requires_grad_()
    real = torch.randn(9, *shape, generator=rng, dtype=torch.float64)

    def outer(final: Tensors) -> Tensor:
        logits = functional_call(module, final, (real,))
        return cross_entropy(logits, torch.arange(9) % classes) + final["head.bias"].square().sum()

    batches = [torch.tensor([0, 1, 2, 3]), torch.tensor([3, 4, 5])]
    return minibatch_loss(module, {}, batches), weights, [images, labels], rates, outer


def slow_unroll(network: str, weights: Tensors, learned: Sequence[Tensor], rates: Tensor) -> Tensors:
    """What the paper's loop does, written out on an ordinary module's parameters."""
    module = double(network, (1, 12, 12), 3)
    images, labels = learned
    for step in range(len(rates)):
        chosen = slice(0, 4) if step % 2 == 0 else slice(3, 6)
        logs = functional_call(module, weights, (images[chosen],)).log_softmax(1)
        targets = labels[chosen] if labels.ndim == 2 else torch.eye(3, dtype=logs.dtype)[labels[chosen]]
        loss = -(targets * logs).sum(1).mean()
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {name: w - rates[step] * g for (name, w), g in zip(weights.items(), gradients, strict=True)}
    return weights


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("network", ["lenet", "convnet:width=4,depth=1", "mlp:width=5,act=sigmoid"])
def test_the_sweep_is_the_full_unroll(network: str, soft: bool, every: int) -> None:
    loss, weights, learned, rates, outer = setting(network, 7, soft)
    leaves = [t for t in (*learned, rates) if t.is_floating_point()]
    start = {name: w.requires_grad_() for name, w in weights.items()}
    ends = slow_unroll(network, start, learned, rates)
    expected = torch.autograd.grad(outer(ends), [*leaves, *start.values()])
    for recompute in (True, False):
        found = unroll(loss, start, learned, rates, recompute=recompute, every=every)
        for name, end in ends.items():
            torch.testing.assert_close(found[name], end, rtol=1e-12, atol=1e-14)
        gradients = torch.autograd.grad(outer(found), [*leaves, *start.values()])
        assert all(float(g.norm()) > 1e-6 for g in gradients[: len(leaves)])
        for one, other in zip(gradients, expected, strict=True):
            # a bias before an instance normalization has the gradient zero, and only rounding
            assert float((one - other).norm()) <= 1e-9 * float(other.norm()) + 1e-14


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("network", ["lenet", "mlp:width=5,act=sigmoid"])
def test_what_is_not_carried_sees_constant_weights(network: str, every: int) -> None:
    """The sum of all steps' gradients, each at weights cut off from the steps before."""
    loss, weights, (images, labels), rates, outer = setting(network, 7, True)
    now, moved = weights, dict.fromkeys(weights, torch.zeros((), dtype=torch.float64))
    for step in range(7):
        leaves = {name: w.detach().requires_grad_() for name, w in now.items()}
        gradients = torch.autograd.grad(loss(leaves, [images, labels], step), list(leaves.values()), create_graph=True)
        moved = {name: moved[name] - rates[step] * g for name, g in zip(leaves, gradients, strict=True)}
        now = {name: weights[name] + moved[name].detach() for name in weights}
    expected = torch.autograd.grad(
        outer({name: w + moved[name] for name, w in weights.items()}), [images, labels, rates]
    )
    found = unroll(loss, weights, [images, labels], rates, carry=False, every=every)
    exact = unroll(loss, weights, [images, labels], rates)
    for name in weights:
        assert torch.equal(found[name], exact[name])
    parts = [torch.autograd.grad(outer(end), [images, labels, rates]) for end in (found, exact)]
    for tesla, true, slow in zip(*parts, expected, strict=True):
        assert float((tesla - slow).norm()) <= 1e-9 * float(slow.norm())
        assert float((true - slow).norm()) > 1e-3 * float(slow.norm())


def test_finite_differences_agree() -> None:
    rng = generator(3)
    images = torch.randn(3, 2, generator=rng, dtype=torch.float64).requires_grad_()
    labels = torch.rand(3, 2, generator=rng, dtype=torch.float64).requires_grad_()
    rates = torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64).requires_grad_()
    small = partial(double, "mlp:width=3,act=swish", (2,), 2)
    start = {name: w.detach() for name, w in small().named_parameters()}
    loss = minibatch_loss(stateless(small, (2,), 2), {}, [torch.tensor([0, 1]), torch.tensor([1, 2])])

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        images, labels, rates, *weights = tensors
        return tuple(unroll(loss, dict(zip(start, weights, strict=True)), [images, labels], rates).values())

    inputs = (images, labels, rates, *(w.requires_grad_() for w in start.values()))
    assert torch.autograd.gradcheck(function, inputs)


def test_a_quadratic_has_a_closed_form() -> None:
    """The loss ``(w - x)^2 / 2`` gives ``w_T = x + (w_0 - x) prod(1 - rate)``."""
    x, w = torch.tensor(2.0, dtype=torch.float64).requires_grad_(), torch.tensor(5.0, dtype=torch.float64)
    rates = torch.tensor([0.5, 0.25, 0.1], dtype=torch.float64).requires_grad_()
    end = unroll(lambda weights, learned, step: (weights["w"] - learned[0]).square() / 2, {"w": w}, [x], rates)["w"]
    left = 0.5 * 0.75 * 0.9
    assert end.item() == pytest.approx(2 + 3 * left)
    slope, *_ = torch.autograd.grad(end, [x, rates], retain_graph=True)
    assert float(slope) == pytest.approx(1 - left)
    expected = [-3 * left / (1 - rate) for rate in rates.tolist()]
    assert torch.autograd.grad(end, rates)[0].tolist() == pytest.approx(expected)


def test_what_the_loss_does_not_depend_on_has_the_gradient_zero() -> None:
    """A linear loss leaves no graph of its gradient; nor do weights and labels that take no part."""
    x, idle = torch.tensor([2.0]).requires_grad_(), torch.tensor([1.0]).requires_grad_()
    rates = torch.tensor([0.5, 0.25]).requires_grad_()
    weights = {"w": torch.tensor([1.0]).requires_grad_(), "idle": torch.tensor([4.0]).requires_grad_()}
    for linear, of_x in ((lambda w, s, k: 3 * w["w"].sum(), 0.0), (lambda w, s, k: (s[0] * w["w"]).sum(), -0.75)):
        end = unroll(linear, weights, [x, idle], rates)
        assert end["w"].item() == pytest.approx(1 - 0.75 * (2 if of_x else 3)) and end["idle"].item() == 4
        found = torch.autograd.grad(end["w"].sum() + 2 * end["idle"].sum(), [x, idle, rates, *weights.values()])
        assert [g.tolist() for g in found] == [[of_x], [0], [-2, -2] if of_x else [-3, -3], [1], [2]]


def test_no_steps_give_the_start() -> None:
    loss, weights, learned, _, _ = setting("lenet", 1, False)
    start = {name: w.requires_grad_() for name, w in weights.items()}
    for recompute in (True, False):
        end = unroll(loss, start, learned, torch.zeros(0, dtype=torch.float64), recompute=recompute)
        assert all(torch.equal(end[name], start[name]) for name in start)


def peak_of_saved(recompute: bool, steps: int) -> int:
    """Most bytes that graphs held at once, weights kept from step to step not counted."""
    loss, weights, learned, rates, outer = setting("lenet", steps, True)

    def gradient() -> None:
        final = unroll(loss, weights, learned, rates, recompute=recompute)
        torch.autograd.grad(outer(final), [learned[0], learned[1], rates])

    return peak_of_graphs(gradient)


def test_graphs_take_as_much_memory_for_50_steps_as_for_10() -> None:
    assert peak_of_saved(True, 50) <= 1.01 * peak_of_saved(True, 10)  # the rates themselves are a little longer
    assert peak_of_saved(False, 50) > 4 * peak_of_saved(False, 10) > 8 * peak_of_saved(True, 10)


@pytest.mark.parametrize(("every", "kept"), [(1, 36), (6, 6), (5, 8), (100, 1)])
def test_weights_are_kept_every_so_many_steps(every: int, kept: int) -> None:
    loss, weights, learned, _, _ = setting("lenet", 1, True)
    end: Any = unroll(loss, weights, learned, torch.full((36,), 0.1, dtype=torch.float64), every=every)
    assert len(end["head.bias"].grad_fn.kept) == kept


def test_bad_requests_name_the_value() -> None:
    loss: Any = None
    with pytest.raises(OptionError, match=r"rates have the shape \(2, 1\); give one learning rate a step"):
        unroll(loss, {}, [], torch.zeros(2, 1))
    with pytest.raises(OptionError, match="carry=False needs recompute=True"):
        unroll(loss, {}, [], torch.zeros(2), recompute=False, carry=False)
    with pytest.raises(OptionError, match="every is 0; it must be at least 1"):
        unroll(loss, {}, [], torch.zeros(2), every=0)
