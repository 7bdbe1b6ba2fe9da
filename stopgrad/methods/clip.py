"""CLIP: which caption belongs to which image, learnt from pairs; then any class can be named in words.

Paper: arXiv:2103.00020. Reference: openai/CLIP clip/model.py, and mlfoundations/open_clip for training, which the
paper's authors did not release. `loss: sigmoid` is SigLIP's (arXiv:2303.15343, open_clip's SigLipLoss).
The image tower is the recipe's backbone, the text tower `method.text`; each ends in a linear projection without bias
into `method.dim` channels, and is evaluated, saved and exported with it, as encode_image and encode_text are.
Differs from the reference: the gradient over processes is exact (open_clip's default leaves the towers 1 / processes
of it); t is held between 0 and ln 100, as open_clip does (the paper names the upper limit alone); GELU where OpenAI's
weights have its quick form; the text ends at its last token, wherever that is, not at the largest id; ViTs are timm's,
with its initialisation. A caption that is twice in a batch is a negative of its own image, as in the reference.
Negatives are the pairs of one step over all processes, also with loop.accumulate, which batch norm forbids.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import MethodConfig, above_zero, at_least, read_with
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.kept import KeptLayer
from stopgrad.nn.text_config import OWN_TEXTS

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.nn.with_kept import WithKept
    from stopgrad.siamese.two_towers import TwoTowers

TEXT_TOWER = "text"  # its name, in files too
TEMPERATURES = {"softmax": 0.07, "sigmoid": 0.1}  # at the start: the papers'


def _text_tower() -> BackboneConfig:
    return BackboneConfig(name="text_transformer", width=512, layers=12, heads=8, pool="end", causal=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class CLIPConfig(MethodConfig):
    """The paper's CLIP with a ViT-B/32."""

    name: Literal["clip"] = "clip"
    dim: int = 512  # channels of the space that both towers end in
    text: BackboneConfig = field(default_factory=_text_tower)
    loss: Literal["softmax", "sigmoid"] = "softmax"
    temperature: float = 0.0  # at the start, it is learnt; 0: the loss's own, 0.07 of softmax, 0.1 of sigmoid
    bias: float = -10.0  # of sigmoid, at the start

    def __post_init__(self) -> None:
        at_least(self, 1, {"dim": 512})
        if self.temperature:
            above_zero(self, {"temperature": TEMPERATURES[self.loss]})
            if not 0.01 <= self.temperature <= 1:
                raise ConfigError(
                    f"method.temperature must be from 0.01 to 1, between which it is held, got {self.temperature}; the "
                    f"paper begins at {TEMPERATURES[self.loss]}"
                )
        read_with(self, "loss=sigmoid", self.loss == "sigmoid", "bias")
        if self.text.name not in OWN_TEXTS:
            raise ConfigError(
                f"method.text.name must be {' or '.join(OWN_TEXTS)}, got {self.text.name!r}; use text_transformer"
            )
        for name in ("init", "kept"):
            if getattr(self.text, name):
                raise ConfigError(
                    f"method.text.{name} is read by nothing: the tower begins at random and ends in "
                    "the projection into method.dim channels; remove it"
                )

    def check(self, known: Known) -> None:
        if known.kind != "captioned":
            raise ConfigError(
                f"clip learns from images with captions, and views.kind is {known.kind}; begin with a preset of "
                "clip: stopgrad train clip --data captions.csv"
            )
        if known.batch_size // known.accumulate < 2:
            parts = f" in {known.accumulate} parts" if known.accumulate > 1 else ""
            raise ConfigError(
                f"loop.batch_size={known.batch_size}{parts}: without another pair there is nothing to tell apart; use "
                f"{2 * known.accumulate} or more"
            )

    def trunk(self, backbone: BackboneConfig) -> BackboneConfig:
        return self._projected(backbone)

    def towers(self) -> Mapping[str, BackboneConfig]:
        return {TEXT_TOWER: self._projected(self.text)}

    def _projected(self, tower: BackboneConfig) -> BackboneConfig:
        layer = KeptLayer(width=self.dim, norm="none", bias=False, activation="none")
        return dataclasses.replace(tower, kept=(*tower.kept, layer))


def clip(backbone: nn.Module, config: CLIPConfig, known: Known) -> TwoTowers:
    """`backbone` has `.dim` and gives [B, dim]; its projection is put on it here."""
    from stopgrad import rng
    from stopgrad.nn.backbones import build_backbone
    from stopgrad.siamese.two_towers import Sigmoid, Softmax, TwoTowers

    # two kinds of token where nobody has looked at the captions: enough to be told about, not to be trained
    vocabulary, length = known.text or (2, 1)
    text = build_backbone(config.text, vocabulary, length, rng.torch_seed(known.seed, 4))
    temperature = config.temperature or TEMPERATURES[config.loss]
    return TwoTowers(
        _with_projection(backbone, config.dim),
        _with_projection(text, config.dim),
        Softmax(temperature) if config.loss == "softmax" else Sigmoid(temperature, config.bias),
    )


def _with_projection(tower: nn.Module, dim: int) -> WithKept:
    """The tower and its projection, weights from a normal of std width ** -.5, named as `nn.with_kept` names them."""
    from torch import nn

    from stopgrad.nn.with_kept import WithKept

    width = int(tower.dim)  # type: ignore[arg-type]
    linear = nn.Linear(width, dim, bias=False)
    nn.init.normal_(linear.weight, std=width**-0.5)
    trunk, before = (tower.trunk, tower.kept) if isinstance(tower, WithKept) else (tower, ())
    return WithKept(trunk, nn.Sequential(*before, linear), dim)
