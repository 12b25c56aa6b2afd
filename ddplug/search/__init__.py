"""Search on less data, in any loop: judge candidates on a small set, and say how far their order can be trusted.

Nothing here knows a framework for search; :mod:`ddplug.nni` and :mod:`ddplug.optuna` are adapters above it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.search.agreement import Study as Study
    from ddplug.search.candidates import Candidates as Candidates
    from ddplug.search.candidates import convnets as convnets
    from ddplug.search.figures import progress as progress
    from ddplug.search.journal import Journal as Journal
    from ddplug.search.journal import Record as Record
    from ddplug.search.judging import Judge as Judge
    from ddplug.search.judging import judge as judge
    from ddplug.search.protocol import CandidateError as CandidateError
    from ddplug.search.protocol import Protocol as Protocol
    from ddplug.search.protocol import Result as Result
    from ddplug.search.retraining import Retrained as Retrained
    from ddplug.search.retraining import retrain as retrain
    from ddplug.search.workers import Workers as Workers

_HOMES = {
    "CandidateError": "protocol",
    "Candidates": "candidates",
    "Journal": "journal",
    "Judge": "judging",
    "Protocol": "protocol",
    "Record": "journal",
    "Result": "protocol",
    "Retrained": "retraining",
    "Study": "agreement",
    "Workers": "workers",
    "convnets": "candidates",
    "judge": "judging",
    "progress": "figures",
    "retrain": "retraining",
}

__all__ = [
    "CandidateError",
    "Candidates",
    "Journal",
    "Judge",
    "Protocol",
    "Record",
    "Result",
    "Retrained",
    "Study",
    "Workers",
    "convnets",
    "judge",
    "progress",
    "retrain",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
