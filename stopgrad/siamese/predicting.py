"""What a predictor says of views it has not seen: SimSiam's hypothesis that it is their mean (arXiv:2011.10566, section
5.2), and DirectPred's that its eigenvectors become those of its inputs' correlation (arXiv:2102.06810, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.losses.inputs import widen
from stopgrad.method import Method
from stopgrad.nn.heads import SymmetricLinear
from stopgrad.siamese.assignment import SharedPrototypes
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.predictors import DirectPredictor, second_moment


@torch.no_grad()
def measured(method: Siamese, first: Tensor, second: Tensor, others: Sequence[Tensor]) -> dict[str, float]:
    """For the log: mean cosines of the prediction from `first` with `second` and with the mean of `others`, and of
    `first` itself with that mean, which is what there is without a predictor.

    first, second, others: projections [B, D] of views of the same images, drawn apart. The mean is of unit vectors, for
    what a cosine is highest with. Of a predictor that is one matrix also `matrix_facts`. Nothing is remembered.
    """
    prediction = method.predictor(first)
    method.discard()  # DirectPred would count what it was called with
    mean = torch.stack([F.normalize(widen(z), dim=1) for z in others]).mean(dim=0)
    found = {
        "predictor_view": cosine(prediction, second),
        "predictor_mean": cosine(prediction, mean),
        "projection_mean": cosine(first, mean),
    }
    matrix = matrix_of(method.predictor)
    return found if matrix is None else {**found, **matrix_facts(matrix, second_moment(torch.cat([first, second])))}


def matrix_facts(w: Tensor, correlation: Tensor) -> dict[str, float]:
    """How far W leaves the eigenvectors of F where they point, cos(u, W u) weighted by their eigenvalues' shares, and
    |W - W^T| / |W|, by Frobenius.  w, correlation: [D, D].  1 where W and F have the same eigenvectors and W's
    eigenvalues are above 0."""
    s, u = torch.linalg.eigh(widen(correlation))  # columns of u
    share = s.clamp(min=0) / s.clamp(min=0).sum().clamp_min(1e-30)
    turned = widen(w) @ u
    along = F.cosine_similarity(u, turned, dim=0)
    return {
        "predictor_alignment": float((share * along).sum()),
        "predictor_asymmetry": float((w - w.T).norm() / w.norm().clamp_min(1e-30)),
    }


def matrix_of(predictor: nn.Module) -> Tensor | None:
    """Of a predictor that is one matrix, [D, D]."""
    if isinstance(predictor, DirectPredictor):
        return predictor.linear.weight.detach()
    if isinstance(predictor, SymmetricLinear):
        return predictor.matrix.detach()
    return predictor.weight.detach() if isinstance(predictor, nn.Linear) else None


def check(method: Method) -> Siamese:
    """Raises ConfigError for a method without the parts this looks at."""
    if not isinstance(method, Siamese) or isinstance(method.predictor, SharedPrototypes):
        raise ConfigError(
            "watch.predictor looks at what predicts a projection, and this method has nothing of that kind (cpc, cmc, "
            "clip and fine-tuning are of another family, dino's projections end in prototypes); remove it"
        )
    return method


def cosine(a: Tensor, b: Tensor) -> float:
    """Mean over the rows."""
    return float(F.cosine_similarity(widen(a), widen(b), dim=1).mean())
