"""Proxy evaluation for architecture search with NNI: an evaluator, an experiment, trials, spaces and agreement.

Needs the extra ``nni``: ``pip install -e '.[nni]'`` in a clone. Importing this package alone imports nothing of
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.nni.evaluator import ProxyEvaluator as ProxyEvaluator
    from ddplug.nni.experiment import ProxyExperiment as ProxyExperiment
    from ddplug.nni.oneshot import OneShotEvaluator as OneShotEvaluator
    from ddplug.nni.spaces import ConvNetSpace as ConvNetSpace
    from ddplug.nni.spaces import architectures as architectures

_HOMES = {
    "ConvNetSpace": "spaces",
    "OneShotEvaluator": "oneshot",
    "ProxyEvaluator": "evaluator",
    "ProxyExperiment": "experiment",
    "architectures": "spaces",
}

__all__ = ["ConvNetSpace", "OneShotEvaluator", "ProxyEvaluator", "ProxyExperiment", "architectures"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES, framework="NNI", needs=("nni", "psutil", "pytorch_lightning"))
