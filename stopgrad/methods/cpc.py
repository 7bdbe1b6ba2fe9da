"""CPC: from what came before, tell what comes later from what does not.

Papers: arXiv:1807.03748 (sections 2, 3.1 audio, 3.2 images, 3.3 text) and arXiv:1905.09272 (version 2: layer norm, four
directions, patch augmentation). There is no code of the authors; facebookresearch/CPC_audio, loeweX/Greedy_InfoMax and
rschwarz15/CPCV2-PyTorch are re-implementations. Scores are plain dot products, the loss is a mean over the steps ahead.
`backbone.name=cpc_audio` and `cpc_text` make it one of sequences, `backbone.patches` one of images.

Differs from the papers: latents of images come from timm's ResNets with layer norm over a patch, where version 1 has a
pre-activation ResNet without any norm and version 2 one of 161 layers of its own; the masked convolutions of the
context are ours; of version 2's patch augmentation there are flips and dropped colours, and not the rest of its list.
Negatives that are drawn are shared by the anchors of a sequence, an anchor's own target is never among them
(CPC_audio's can be), and steps ahead differ in them. W_k begin at a std of one over the wider side. CPC_audio's score,
which is divided by the width, its LSTM and its transformer predictors are not offered. With loop.accumulate negatives
are those of the micro-batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stopgrad.contracts import ConfigError, Known
from stopgrad.methods.settings import MethodConfig, at_least, is_share
from stopgrad.nn.config import SEQUENCES

if TYPE_CHECKING:
    from torch import nn

    from stopgrad.siamese.predictive import Predictive

Whence = Literal["batch", "other_sequences", "own_sequence", "same_group", "same_group_others"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CPCConfig(MethodConfig):
    """Version 1 on ImageNet; every field is one of the papers' choices."""

    name: Literal["cpc"] = "cpc"
    steps: int = 5  # rows below that are predicted; 12 frames of audio, 3 sentences
    # Table 2 on audio, phones: batch 64.6, other_sequences 57.3, own_sequence 65.2, same_group (the same speaker) 65.5,
    # same_group_others 64.6. Groups are the user's, no label is looked at.
    negatives: Whence = "batch"
    drawn: int = 0  # negatives a sequence and step; 0: all there are. 16 and 128 in re-implementations
    skip: int = 0  # steps left out before the first; 1: no row that overlaps the context's (Greedy_InfoMax)
    # The rest is read on patches.
    directions: Literal[1, 4] = 1  # the sides an image is read from; 4 in version 2
    context: int = 256  # channels of the masked convolutions
    context_layers: int = 4
    patch_less: int = 4  # pixels by which the random part of a patch is smaller; 60 of 64
    patch_flip: float = 0.0  # version 2
    patch_drop_colours: float = 0.0  # version 2: all channels of a patch but one

    def __post_init__(self) -> None:
        at_least(self, 1, {"steps": 5, "context": 256, "context_layers": 4})
        at_least(self, 0, {"drawn": 0, "skip": 0, "patch_less": 4})
        is_share(self, {"patch_flip": 0, "patch_drop_colours": 0})
        if self.directions not in (1, 4):
            raise ConfigError(f"method.directions must be 1 or 4, got {self.directions}; version 2 uses 4")

    @property
    def grouped(self) -> bool:
        """Whether somebody has to say which samples are alike: `Predictive.set_groups`."""
        return self.negatives.startswith("same_group")

    def check(self, known: Known) -> None:
        if len(known.crops) != 1:
            raise ConfigError(
                f"views.crops: cpc predicts 1 view from itself, got {len(known.crops)}; keep the first, or add one"
            )
        for name in ON_PATCHES if known.backbone in SEQUENCES else ():
            if getattr(self, name) != CPCConfig.__dataclass_fields__[name].default:
                raise ConfigError(
                    f"method.{name}={getattr(self, name)} is read on patches of images, the backbone is "
                    f"{known.backbone}; remove it"
                )


ON_PATCHES = ("directions", "context", "context_layers", "patch_less", "patch_flip", "patch_drop_colours")


def cpc(backbone: nn.Module, config: CPCConfig, known: Known) -> Predictive:
    """Section 2 of arXiv:1807.03748 over time or over the rows of an image, as `backbone` is one of sequences
    (`nn/sequence.py`) or of patches (`nn/patches.py`). Raises ConfigError for another one, and for views too short."""
    from stopgrad.nn.patches import Patches, RowContext
    from stopgrad.nn.sequence import AudioTrunk, SequenceTrunk
    from stopgrad.siamese.candidates import Candidates
    from stopgrad.siamese.patch_views import PatchViews
    from stopgrad.siamese.predictive import OverRows, OverTime

    among = Candidates(config.negatives, config.drawn, known.images)
    method: Predictive
    if isinstance(backbone, SequenceTrunk):
        method = OverTime(backbone, (backbone.dim, backbone.width), config.steps, config.skip, 1, among)
    elif isinstance(backbone, Patches):
        if config.patch_less >= backbone.side:
            raise ConfigError(
                f"method.patch_less={config.patch_less} leaves nothing of patches of {backbone.side} pixels; use "
                f"--set method.patch_less={backbone.side // 16}"
            )
        method = OverRows(
            backbone,
            [RowContext(backbone.dim, config.context, config.context_layers) for _ in range(config.directions)],
            (config.context, backbone.dim),
            config.steps,
            config.skip,
            among,
            PatchViews(config.patch_less, config.patch_flip, config.patch_drop_colours),
        )
    else:
        raise ConfigError(
            f"cpc predicts patches or frames, and backbone.name={known.backbone} sees the whole image at once; type "
            "--set backbone.patches=8 backbone.norm=layer (images), or use cpc_audio or cpc_text"
        )
    if isinstance(backbone, Patches | AudioTrunk):
        method.check_length(backbone.length(known.crops[0]))
    elif known.kind == "text":  # of several sentences nobody knows it before the first step
        method.check_length(known.crops[0])
    return method
