"""METHODS: every method by its name on the command line. A new one is a file here and a line in the table.

A row: the builder (backbone, settings, what is known of the run) -> Method, and its class of settings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stopgrad.contracts import ConfigError, did_you_mean
from stopgrad.methods.barlow_twins import BarlowTwinsConfig, barlow_twins
from stopgrad.methods.byol import BYOLConfig, byol
from stopgrad.methods.clip import CLIPConfig, clip
from stopgrad.methods.cmc import CMCConfig, cmc
from stopgrad.methods.cpc import CPCConfig, cpc
from stopgrad.methods.dino import DINOConfig, dino
from stopgrad.methods.directpred import DirectPredConfig, directpred
from stopgrad.methods.distill import DistillConfig, distill
from stopgrad.methods.finetune import FinetuneConfig, finetune
from stopgrad.methods.instdisc import InstDiscConfig, instdisc
from stopgrad.methods.invaspread import InvaSpreadConfig, invaspread
from stopgrad.methods.moco import MoCoV1Config, MoCoV2Config, moco
from stopgrad.methods.moco_v3 import MoCoV3Config, moco_v3
from stopgrad.methods.own import OwnConfig, own
from stopgrad.methods.settings import MethodConfig
from stopgrad.methods.simclr import SimCLRConfig, simclr
from stopgrad.methods.simclr_v2 import SimCLRv2Config, simclr_v2
from stopgrad.methods.simsiam import SimSiamConfig, simsiam
from stopgrad.methods.swav import SwAVConfig, swav
from stopgrad.methods.unigrad import UniGradConfig, unigrad
from stopgrad.methods.vicreg import VICRegConfig, vicreg

__all__ = ["METHODS", "MethodConfig", "OwnConfig", "method_named"]

METHODS: dict[str, tuple[Callable[..., Any], type[MethodConfig]]] = {  # as they were published
    "instdisc": (instdisc, InstDiscConfig),
    "cpc": (cpc, CPCConfig),
    "invaspread": (invaspread, InvaSpreadConfig),
    "cmc": (cmc, CMCConfig),
    "moco_v1": (moco, MoCoV1Config),
    "simclr": (simclr, SimCLRConfig),
    "moco_v2": (moco, MoCoV2Config),
    "byol": (byol, BYOLConfig),
    "simclr_v2": (simclr_v2, SimCLRv2Config),
    "swav": (swav, SwAVConfig),
    "simsiam": (simsiam, SimSiamConfig),
    "directpred": (directpred, DirectPredConfig),
    "clip": (clip, CLIPConfig),
    "barlow_twins": (barlow_twins, BarlowTwinsConfig),
    "moco_v3": (moco_v3, MoCoV3Config),
    "dino": (dino, DINOConfig),
    "vicreg": (vicreg, VICRegConfig),
    "unigrad": (unigrad, UniGradConfig),
}

# A file of the user's; and what needs labels or a teacher, which METHODS never get.
BESIDE: dict[str, tuple[Callable[..., Any], type[MethodConfig]]] = {
    "own": (own, OwnConfig),
    "finetune": (finetune, FinetuneConfig),
    "distill": (distill, DistillConfig),
}


def method_named(name: str) -> tuple[Callable[..., Any], type[MethodConfig]]:
    """The row of a method, or of BESIDE. Raises ConfigError with the nearest name."""
    if name in BESIDE:
        return BESIDE[name]
    if name not in METHODS:
        raise ConfigError(f"method.name: unknown method {name!r}{did_you_mean(name, METHODS)}")
    return METHODS[name]
