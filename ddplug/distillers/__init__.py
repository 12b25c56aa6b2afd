"""The methods, one file each, found by the entry points of the group ``ddplug.distillers``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ddplug.utils.lazy import lazy_names

if TYPE_CHECKING:
    from ddplug.distillers.base import ImageDistiller as ImageDistiller
    from ddplug.distillers.dc import DC as DC
    from ddplug.distillers.dd import DD as DD
    from ddplug.distillers.dm import DM as DM
    from ddplug.distillers.dp_dm import DPDM as DPDM
    from ddplug.distillers.dsa import DSA as DSA
    from ddplug.distillers.frepo import FRePo as FRePo
    from ddplug.distillers.frepo import solve_labels as solve_labels
    from ddplug.distillers.idc import IDC as IDC
    from ddplug.distillers.idm import IDM as IDM
    from ddplug.distillers.mtt import MTT as MTT
    from ddplug.distillers.ncfm import NCFM as NCFM
    from ddplug.distillers.parts.experts import train_experts as train_experts
    from ddplug.distillers.parts.teachers import soft_labels as soft_labels
    from ddplug.distillers.parts.teachers import train_teacher as train_teacher
    from ddplug.distillers.parts.training import ExpertTraining as ExpertTraining
    from ddplug.distillers.presets import Preset as Preset
    from ddplug.distillers.rded import RDED as RDED
    from ddplug.distillers.selection.base import FeatureSelection as FeatureSelection
    from ddplug.distillers.selection.base import Selection as Selection
    from ddplug.distillers.selection.class_mean import ClassMean as ClassMean
    from ddplug.distillers.selection.difficulty import Difficulty as Difficulty
    from ddplug.distillers.selection.el2n import El2n as El2n
    from ddplug.distillers.selection.forgetting import Forgetting as Forgetting
    from ddplug.distillers.selection.herding import Herding as Herding
    from ddplug.distillers.selection.kcenter import KCenter as KCenter
    from ddplug.distillers.selection.kmeans import KMeans as KMeans
    from ddplug.distillers.selection.kmeans import KMeansCentroid as KMeansCentroid
    from ddplug.distillers.selection.random_ import Random as Random
    from ddplug.distillers.soft_label_dd import SoftLabelDD as SoftLabelDD
    from ddplug.distillers.sre2l import SRe2L as SRe2L

_HOMES = {
    "ClassMean": "selection.class_mean",
    "DC": "dc",
    "DD": "dd",
    "DM": "dm",
    "DPDM": "dp_dm",
    "DSA": "dsa",
    "Difficulty": "selection.difficulty",
    "El2n": "selection.el2n",
    "ExpertTraining": "parts.training",
    "FRePo": "frepo",
    "FeatureSelection": "selection.base",
    "Forgetting": "selection.forgetting",
    "Herding": "selection.herding",
    "IDC": "idc",
    "IDM": "idm",
    "ImageDistiller": "base",
    "KCenter": "selection.kcenter",
    "KMeans": "selection.kmeans",
    "KMeansCentroid": "selection.kmeans",
    "MTT": "mtt",
    "NCFM": "ncfm",
    "Preset": "presets",
    "RDED": "rded",
    "Random": "selection.random_",
    "SRe2L": "sre2l",
    "Selection": "selection.base",
    "SoftLabelDD": "soft_label_dd",
    "soft_labels": "parts.teachers",
    "solve_labels": "frepo",
    "train_experts": "parts.experts",
    "train_teacher": "parts.teachers",
}

__all__ = [
    "DC",
    "DD",
    "DM",
    "DPDM",
    "DSA",
    "IDC",
    "IDM",
    "MTT",
    "NCFM",
    "RDED",
    "ClassMean",
    "Difficulty",
    "El2n",
    "ExpertTraining",
    "FRePo",
    "FeatureSelection",
    "Forgetting",
    "Herding",
    "ImageDistiller",
    "KCenter",
    "KMeans",
    "KMeansCentroid",
    "Preset",
    "Random",
    "SRe2L",
    "Selection",
    "SoftLabelDD",
    "soft_labels",
    "solve_labels",
    "train_experts",
    "train_teacher",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
