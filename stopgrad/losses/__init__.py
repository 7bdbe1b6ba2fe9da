"""Losses and measures as pure functions: no state, no collectives. Embeddings are [B, D]; each docstring says whether
its inputs have to be unit vectors."""

from stopgrad.losses.cosine import negative_cosine, softmax_similarity

__all__ = ["negative_cosine", "softmax_similarity"]
