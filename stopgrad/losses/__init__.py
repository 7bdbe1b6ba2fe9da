"""Losses and measures as pure functions: no state, no collectives. Embeddings are [B, D]; each docstring says whether
its inputs have to be unit vectors. All compute in float32 or wider, also where autocast is on."""

from stopgrad.losses.assignment import centred_cross_entropy, sinkhorn, swapped_prediction
from stopgrad.losses.contrastive import (
    info_nce,
    info_nce_batch,
    instance_spreading,
    instance_spreading_queries,
    margin_queries,
    nce,
    non_parametric_softmax,
    nt_logistic_queries,
    nt_xent,
    nt_xent_queries,
)
from stopgrad.losses.cosine import negative_cosine, softmax_similarity
from stopgrad.losses.covariance import barlow_twins, vicreg, vicreg_terms
from stopgrad.losses.gradients import correlation, unigrad
from stopgrad.losses.metric import logistic, margin_contrastive, n_pair, triplet

__all__ = [
    "barlow_twins",
    "centred_cross_entropy",
    "correlation",
    "info_nce",
    "info_nce_batch",
    "instance_spreading",
    "instance_spreading_queries",
    "logistic",
    "margin_contrastive",
    "margin_queries",
    "n_pair",
    "nce",
    "negative_cosine",
    "non_parametric_softmax",
    "nt_logistic_queries",
    "nt_xent",
    "nt_xent_queries",
    "sinkhorn",
    "softmax_similarity",
    "swapped_prediction",
    "triplet",
    "unigrad",
    "vicreg",
    "vicreg_terms",
]
