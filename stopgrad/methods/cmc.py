"""CMC: views of different kinds of one scene, an encoder each; a view is to be recognised by each of the others.

Paper: arXiv:1906.05849. Reference: HobbitLong/CMC, train_CMC.py, NCE/NCEAverage.py, models/resnet.py.
Of a colour image the views are its lightness and its colour, the L and the ab of Lab: one crop, split in the backbone
(backbone.split=lab), so that the encoder that is kept takes RGB. Of several sensors (backbone.split=sensors) each has
an encoder in the backbone, and of the crop its own channels. The loss is added over both directions of each pair of
views, and over the pairs of the graph.
Paper and code leave some open. Negatives: the README says 4,096 are drawn, the weights that are released were trained
with as many and NCE; the code's default is 16,384, and its --softmax is `negatives: bank_softmax`, which the README
expects to be better. `in_batch`, the images of one forward over all processes, is an addition: with loop.accumulate
they are the micro-batch's. More than two views: the code has two alone; a view's Z is that of all its directions.
Differs from the reference: banks begin with unit rows (the code's are unit on average) and are written after the
optimiser's step, the same sequence; batch norm sees the whole batch, where DataParallel normalises a GPU's share; Lab's
range is taken from sRGB as in the code, its matrix and white to more digits than scikit-image's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import (
    HeadConfig,
    MethodConfig,
    above_zero,
    at_least,
    is_share,
    one_layer_reads,
    read_with,
)

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.cross_view import AmongBank, AmongBatch, CrossView

SPLIT = "--set backbone.split=lab --set views.mean=[0,0,0] --set views.std=[1,1,1]"


def _linear() -> HeadConfig:
    return HeadConfig(layers=1, dim=128, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class CMCConfig(MethodConfig):
    """The paper's CMC of lightness and colour on ImageNet."""

    name: Literal["cmc"] = "cmc"
    projector: HeadConfig = field(default_factory=_linear)  # of each view
    graph: Literal["core", "full"] = "core"  # of more than two views: the first with each other, or every two
    negatives: Literal["bank_nce", "bank_softmax", "in_batch"] = "bank_nce"
    bank_negatives: int = 4096  # rows drawn for an image; 0: none are drawn, the softmax over all of a bank
    bank_momentum: float = 0.5  # share of a row that stays
    temperature: float = 0.07  # 0.1 on STL-10 (README)

    def __post_init__(self) -> None:
        above_zero(self, {"temperature": 0.07})
        at_least(self, 0, {"bank_negatives": 4096})
        is_share(self, {"bank_momentum": 0.5})
        one_layer_reads(self, self.projector)
        read_with(self, "negatives=bank_nce", self.negatives != "in_batch", "bank_negatives", "bank_momentum")
        if self.negatives == "bank_nce" and not self.bank_negatives:
            raise ConfigError(
                "method.bank_negatives=0 is the softmax over all rows of a bank, got method.negatives=bank_nce; type "
                "--set method.negatives=bank_softmax, or 4096 as the paper"
            )

    def check(self, known: Known) -> None:
        if known.split == "none":
            raise ConfigError(
                "cmc compares views of different kinds, and with backbone.split=none there is one kind; split it into "
                f"lightness and colour: {SPLIT}, or take several sensors: --set backbone.split=sensors"
            )
        if len(known.crops) != 1:
            raise ConfigError(
                f"views.crops: cmc makes its views of 1 crop, got {len(known.crops)}; keep the first, backbone.split="
                f"{known.split} makes its views of it"
            )


def cmc(backbone: nn.Module, config: CMCConfig, known: Known) -> CrossView:
    """`backbone` is one trunk with `.dim`, split, or an nn.ModuleDict of towers in the order of views.crops: {name:
    trunk with `.dim`, split or not}. The first view is the core."""
    from torch import nn

    from stopgrad.nn.heads import mlp
    from stopgrad.nn.towers import widths_of
    from stopgrad.siamese.cross_view import CrossView, pairs_of_graph

    towers = dict(backbone.items()) if isinstance(backbone, nn.ModuleDict) else {"backbone": backbone}
    widths = [width for tower in towers.values() for width in widths_of(tower)]  # a view each
    if len(widths) < 2:
        raise ConfigError(f"cmc compares 2 views or more, {' '.join(towers)} has {len(widths)}; split it: {SPLIT}")
    head = config.projector
    return CrossView(
        towers,
        [mlp(head.widths(width), head.norm, head.output_norm) for width in widths],
        _objective(config, known, len(widths)),
        pairs_of_graph(config.graph, len(widths)),
    )


def _objective(config: CMCConfig, known: Known, views: int) -> AmongBatch | AmongBank:
    from stopgrad import rng
    from stopgrad.nn.memory import Bank
    from stopgrad.siamese.cross_view import AmongBank, AmongBatch, AmongDrawn, AmongDrawnByNCE

    if config.negatives == "in_batch":
        return AmongBatch(config.temperature)
    # one row where nobody has counted the images: enough to be weighed, and a forward refuses it
    rows, dim = max(1, known.images), config.projector.dim
    seeds = [rng.torch_seed(known.seed, rng.NEGATIVES, view) for view in range(views)]
    banks = [Bank(rows, dim, seed, config.bank_momentum) for seed in seeds]
    if not config.bank_negatives:
        return AmongBank(banks, config.temperature)
    kind = AmongDrawnByNCE if config.negatives == "bank_nce" else AmongDrawn
    return kind(banks, config.temperature, config.bank_negatives)
