"""Settings of the evaluation, and the name of the protocol they belong to. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stopgrad.contracts import ConfigError

# Part of every row. A change that moves a score at equal features and settings is a new number.
PROTOCOL = "stopgrad-eval-1"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvalConfig:
    """How features are scored. Defaults are what published kNN tables use (methods-contrastive.md, 14.1)."""

    # Neighbours; the first is `knn_top1`, the others `knn_top1_k200`. lightly: 200 on CIFAR, 20 on ImageNet-100.
    k: tuple[int, ...] = (20, 200)
    temperature: float = 0.1  # a neighbour's vote weighs exp(cosine / temperature); DINO: 0.07
    linear: Literal["lbfgs", "sgd", "both", "none"] = "lbfgs"
    linear_epochs: int = 100  # of the SGD probe; MoCo, DINO and SimCLR's CIFAR recipe: 100
    linear_lr: float = 0.1  # of the SGD probe, for a batch of 256, decays to 0 as a cosine; SimCLR, MoCo v3: 0.1
    random_seeds: int = 3  # untrained backbones whose mean is the baseline; 0: no such baseline
    retrieval_images: int = 1024  # test images that get two views; chance of retrieval is 100 / this
    precision: Literal["float32", "bfloat16"] = "float32"  # of the backbone; neighbours and probes are always float32
    # Another encoder to be scored beside the run's: timm:NAME (pretrained), a run folder or an encoder.safetensors.
    baseline: str = ""
    tower: str = ""  # of a split backbone, the view whose features are scored: L, ab, or a sensor; "": all of them
    batch_size: int = 256  # images in one forward; the untrained baseline's batch norm is measured on such
    # What a class is called before an image is compared with it, {} is its name; of images with captions. A prompt that
    # reads like the captions does best: the bare name, and three of CLIP's.
    templates: tuple[str, ...] = ("{}", "a photo of a {}.", "a picture of a {}.", "an image of a {}.")

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1 or len(set(self.k)) < len(self.k):
            raise _wrong("k", "one or more different whole numbers above 0", self.k, "(20, 200)")
        if not self.temperature > 0:
            raise _wrong("temperature", "above 0", self.temperature, "0.1")
        if self.linear not in ("lbfgs", "sgd", "both", "none"):
            raise _wrong("linear", "lbfgs, sgd, both or none", repr(self.linear), "lbfgs")
        if self.linear_epochs < 1:
            raise _wrong("linear_epochs", "1 or more", self.linear_epochs, "100")
        if not self.linear_lr > 0:
            raise _wrong("linear_lr", "above 0", self.linear_lr, "0.1")
        if self.random_seeds < 0:
            raise _wrong("random_seeds", "0 (no such baseline) or more", self.random_seeds, "3")
        if self.retrieval_images < 2:
            raise _wrong("retrieval_images", "2 or more", self.retrieval_images, "1024")
        if self.precision not in ("float32", "bfloat16"):
            raise _wrong("precision", "float32 or bfloat16", repr(self.precision), "float32")
        if self.batch_size < 1:
            raise _wrong("batch_size", "1 or more", self.batch_size, "256")
        if not self.templates or any(template.count("{}") != 1 for template in self.templates):
            raise _wrong("templates", "texts with {} once, where the class is named", self.templates, '("{}",)')


def _wrong(name: str, needed: str, found: object, usual: str) -> ConfigError:
    return ConfigError(f"eval.{name} must be {needed}, got {found}; the default is {usual}")
