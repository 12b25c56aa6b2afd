"""Networks by name or by function, initialized without moving the global random state, and called as functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.networks.conv1d import Conv1d as Conv1d
    from ddplug.networks.convnet import ConvNet as ConvNet
    from ddplug.networks.factory import Network as Network
    from ddplug.networks.factory import build as build
    from ddplug.networks.factory import embed as embed
    from ddplug.networks.factory import has_batch_norm as has_batch_norm
    from ddplug.networks.factory import name_of as name_of
    from ddplug.networks.functional import forward as forward
    from ddplug.networks.functional import initial_parameters as initial_parameters
    from ddplug.networks.functional import loss_gradient as loss_gradient
    from ddplug.networks.functional import minibatch_loss as minibatch_loss
    from ddplug.networks.functional import sgd_step as sgd_step
    from ddplug.networks.functional import stateless as stateless
    from ddplug.networks.layers import Classifier as Classifier

_HOMES = {
    "Classifier": "layers",
    "Conv1d": "conv1d:Conv1d",
    "ConvNet": "convnet:ConvNet",
    "Network": "factory",
    "build": "factory",
    "embed": "factory",
    "forward": "functional",
    "has_batch_norm": "factory",
    "initial_parameters": "functional",
    "loss_gradient": "functional",
    "minibatch_loss": "functional",
    "name_of": "factory",
    "sgd_step": "functional",
    "stateless": "functional",
}

__all__ = [
    "Classifier",
    "Conv1d",
    "ConvNet",
    "Network",
    "build",
    "embed",
    "forward",
    "has_batch_norm",
    "initial_parameters",
    "loss_gradient",
    "minibatch_loss",
    "name_of",
    "sgd_step",
    "stateless",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
