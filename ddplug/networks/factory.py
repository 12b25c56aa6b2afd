"""Networks by name or by function, initialized without moving the global random state."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ddplug.errors import DdplugError, OptionError
from ddplug.networks.forms import AUTO, SUITED, form_of
from ddplug.registry import resolve
from ddplug.utils import specs
from ddplug.utils.randomness import temporary_seed
from ddplug.utils.specs import Options
from ddplug.utils.surroundings import own_surroundings
from ddplug.utils.text import one_line

__all__ = [
    "Network",
    "build",
    "check_outputs",
    "embed",
    "features_of",
    "has_batch_norm",
    "linear_input",
    "logits_of",
    "name_of",
    "suited",
]


Network = str | Callable[..., nn.Module]
"""A network's name with its options, as ``"convnet:width=32"``; or ``"auto"``; or a function that builds one: without
arguments, or of the shape of an input and the number of classes."""


def _check_options(name: str, factory: Callable[..., Any], options: Options) -> None:
    """Refuse options that a factory does not have, and values of another type than the option's default."""
    parameters = list(inspect.signature(factory).parameters.values())[2:]
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        specs.check(f"network {name!r}", options, {parameter.name: parameter.default for parameter in parameters})


@own_surroundings()
def build(
    network: str | Callable[..., nn.Module], shape: tuple[int, ...], num_classes: int, rng: torch.Generator
) -> nn.Module:
    """Make a freshly initialized network.

    Args:
        network: a name from ``ddplug.names("network")``, alone or with options as ``"name:option=value,..."``; or
            ``"auto"`` for the one that suits the shape; or a function that returns a module: one without arguments, or
            of the shape and the number of classes.
        shape: of one input, without the batch.
        num_classes: number of outputs.
        rng: generator on the CPU; one number is drawn from it. Equal generators give equal networks.

    Returns:
        The network, on the CPU, in training mode, with PyTorch's own initialization.

    Raises:
        OptionError: the name, an option or a value is not known, the inputs do not suit the network, or the function
            needs other arguments or returns something else than a module.

    Example:
        >>> build("convnet:width=8,depth=2", (1, 8, 8), 10, torch.Generator().manual_seed(0)).head
        Linear(in_features=72, out_features=10, bias=True)
    """
    seed = int(torch.randint(2**63 - 1, (), generator=rng))
    known = (tuple(shape), num_classes)
    make = _factory(network, *known) if isinstance(network, str) else _call(network, *known)
    with temporary_seed(seed):
        module = make()
    if not isinstance(module, nn.Module):
        raise OptionError(f"network {network!r} made a {type(module).__name__}; it must return a torch.nn.Module")
    if any(parameter.is_meta for parameter in module.parameters()):
        raise OptionError(
            f"network {type(module).__name__} has parameters on the device 'meta', which holds no numbers; create them "
            "on the CPU"
        )
    return module


def _call(network: Any, shape: tuple[int, ...], num_classes: int) -> Callable[[], Any]:
    """Return the function without arguments that calls a user's own as it wants to be called."""
    if isinstance(network, nn.Module) or not callable(network):
        raise OptionError(
            f"network is a {type(network).__name__}; give a name, or a function that builds a new one, as "
            "lambda shape, classes: ..."
        )
    needed = _needed(network)
    if needed not in (0, 2):
        raise OptionError(
            f"network {name_of(network)} needs {needed} arguments; it must take none, or two: the shape of an input "
            "and the number of classes"
        )

    def call() -> Any:
        try:
            return network() if needed == 0 else network(shape, num_classes)
        except DdplugError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise OptionError(
                f"network {name_of(network)} cannot be built for inputs of shape {shape} and {num_classes} classes "
                f"({type(error).__name__}: {one_line(error, most=200)}); fix the function"
            ) from error

    return call


def _needed(function: Callable[..., Any]) -> int:
    """Count the arguments that a function has to be given by their position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some built-in ones nothing is known
        return 0
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(own.kind in places and own.default is inspect.Parameter.empty for own in parameters)


def check_outputs(module: nn.Module, sample: Tensor, num_classes: int) -> None:
    """Refuse a network that has nothing to train, or does not turn one input into one logit a class.

    Args:
        module: a network; it is left in the mode it is in.
        sample: ``(1, *shape)``, in model space.
        num_classes: number of classes.

    Raises:
        OptionError: it does not.
    """
    if not any(parameter.requires_grad for parameter in module.parameters()):
        raise OptionError(
            f"network {type(module).__name__} has no parameters to train; give it some, and let a function build a new "
            "network at each call"
        )
    logits_of(f"network {type(module).__name__}", module, sample, num_classes)


@torch.no_grad()
def logits_of(name: str, module: nn.Module, sample: Tensor, num_classes: int) -> Tensor:
    """Return the logits of one input, in evaluation mode.

    Args:
        name: of the network, for messages.
        module: the network; it is left in the mode it is in.
        sample: ``(1, *shape)``, in model space.
        num_classes: number of classes.

    Raises:
        OptionError: it fails, or gives something else than ``(1, num_classes)``.
    """
    modes = [(part, part.training) for part in module.modules()]
    parameter = next(module.parameters(), sample)
    try:
        with temporary_seed(0, parameter.device):
            output = module.eval()(sample.to(parameter.device))
    except Exception as error:  # a user's module may raise anything
        raise OptionError(
            f"{name} cannot take an input of shape {tuple(sample.shape[1:])} ({type(error).__name__}: "
            f"{one_line(error, most=200)}); give a network for the data's model space"
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if not isinstance(output, Tensor) or shape != (1, num_classes):
        raise OptionError(
            f"{name} turns one input into {shape}; it must give (1, {num_classes}), one logit for each class of the "
            "data, in their order"
        )
    return output


def suited(network: Network, shape: tuple[int, ...]) -> Network:
    """Return the network that suits inputs of a shape for ``"auto"``, and any other as it is.

    Args:
        network: see :func:`build`.
        shape: of one input.

    Example:
        >>> suited("auto", (1, 28, 28)), suited("auto", (3, 100)), suited("auto", (30,)), suited("lenet", (30,))
        ('convnet', 'conv1d', 'mlp', 'lenet')
    """
    return SUITED[form_of(shape)] if isinstance(network, str) and network == AUTO else network


def _factory(spec: str, shape: tuple[int, ...], num_classes: int) -> Callable[[], nn.Module]:
    """Return the function without arguments that a specification stands for."""
    name, options = specs.parse("network", str(suited(spec, shape)))
    factory = resolve("network", name)
    _check_options(name, factory, options)
    return lambda: factory(shape, num_classes, **options)


@own_surroundings(gradients=False)
def embed(module: nn.Module, x: Tensor) -> Tensor:
    """Return the features of a batch: what the last linear layer receives.

    Args:
        module: a network; its own ``embed`` is used if it has one.
        x: ``(n, *shape)`` in model space.

    Returns:
        ``(n, D)``.

    Raises:
        OptionError: the network has neither an ``embed`` method nor a linear layer.

    Example:
        >>> embed(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.ones(3, 2, 2)).shape
        torch.Size([3, 4])
    """
    return features_of(module, x)


def features_of(module: nn.Module, x: Tensor) -> Tensor:
    """Return what :func:`embed` does, in the surroundings that it is called in, such as autocast."""
    own = getattr(module, "embed", None)
    if callable(own):
        features: Tensor = own(x)
        return features.flatten(1)
    received = linear_input(module, x)
    if received is None:
        raise OptionError(f"{type(module).__name__} has no nn.Linear to take features from; give it a method embed(x)")
    return received


def linear_input(module: nn.Module, x: Tensor) -> Tensor | None:
    """Call a network on a batch and return what its last linear layer received, ``(n, D)``; ``None`` without one."""
    seen: list[Tensor] = []

    def keep(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen[:] = [arguments[0]]

    hooks = [layer.register_forward_pre_hook(keep) for layer in module.modules() if isinstance(layer, nn.Linear)]
    try:
        if hooks:
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return seen[0].flatten(1) if seen else None


def has_batch_norm(module: nn.Module) -> bool:
    """Tell whether the samples of a batch influence each other, as batch normalization makes them.

    Example:
        >>> has_batch_norm(nn.Sequential(nn.BatchNorm1d(3)))
        True
    """
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules())


def name_of(network: Network) -> str:
    """Return a network's name for a table."""
    return str(network) if isinstance(network, str) else getattr(network, "__qualname__", type(network).__qualname__)
