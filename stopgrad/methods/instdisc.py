"""InstDisc: every image is a class of its own, and a bank of past embeddings holds the classes' weights.

Paper: arXiv:1805.01978 (sections 3.1 to 3.3). Reference: zhirongw/lemniscate.pytorch, main.py and cifar.py.
Paper and code disagree on what smooths training: the paper replaces a row by the new embedding and penalises the
distance to the old one, with a weight it does not print; the code has no penalty and averages a row with the new
embedding half and half. The default is the paper's replacement (bank_momentum 0) and, for want of a number, no penalty
(proximal 0); the presets quote the code's numbers and take its bank_momentum .5.
Differs from the reference by default: the bank begins with unit rows (the paper's; the code's are unit on average);
batch norm sees the whole batch, where the code's DataParallel normalises a GPU's share at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import HeadConfig, MethodConfig, above_zero, at_least, is_share, one_layer_reads

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.family import Siamese


def _linear() -> HeadConfig:
    return HeadConfig(layers=1, dim=128, norm="none", output_norm="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class InstDiscConfig(MethodConfig):
    """One view, one network, one row an image."""

    name: Literal["instdisc"] = "instdisc"
    projector: HeadConfig = field(default_factory=_linear)
    negatives: int = 4096  # rows drawn for an image, section 3.2; 0: no drawing, the softmax over all rows (eq. 2)
    temperature: float = 0.07
    bank_momentum: float = 0.0  # share of a row that stays; 0.5 in the code
    proximal: float = 0.0  # lambda of section 3.3

    def __post_init__(self) -> None:
        at_least(self, 0, {"negatives": 4096})
        above_zero(self, {"temperature": 0.07})
        is_share(self, {"bank_momentum": 0})
        one_layer_reads(self, self.projector)
        if not self.proximal >= 0:
            raise ConfigError(
                f"method.proximal must be at least 0, got {self.proximal}; use 0, the paper prints no number"
            )

    def check(self, known: Known) -> None:
        if len(known.crops) != 1:
            raise ConfigError(
                f"views.crops: instdisc compares 1 view with the bank's row of its image, got {len(known.crops)}; keep "
                "the first"
            )


def instdisc(backbone: nn.Module, config: InstDiscConfig, known: Known) -> Siamese:
    """Section 3 of arXiv:1805.01978 from its parts. `backbone` has `.dim` and gives [B, dim]."""
    from torch import nn

    from stopgrad import rng
    from stopgrad.nn.heads import mlp
    from stopgrad.nn.memory import Bank
    from stopgrad.siamese.family import Siamese
    from stopgrad.siamese.pairs import Pairs
    from stopgrad.siamese.remembered import BankNCE, BankSoftmax
    from stopgrad.siamese.targets import NoTarget

    head = config.projector
    # one row where nobody has counted the images: enough to be weighed, and a forward refuses it
    bank = Bank(max(1, known.images), head.dim, rng.torch_seed(known.seed, rng.NEGATIVES), config.bank_momentum)
    objective: BankSoftmax
    if config.negatives:
        objective = BankNCE(bank, config.negatives, config.temperature, config.proximal)
    else:
        objective = BankSoftmax(bank, config.temperature, config.proximal)
    return Siamese(
        backbone=backbone,
        projector=mlp(head.widths(int(backbone.dim)), head.norm, head.output_norm),  # type: ignore[arg-type]
        predictor=nn.Identity(),
        target=NoTarget(),
        objective=objective,
        pairs=Pairs((), alone=(0,)),
    )
