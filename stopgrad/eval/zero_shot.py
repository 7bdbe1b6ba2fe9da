"""Zero-shot classification: an image belongs to the class whose description is nearest to it, and none was trained on.

CLIP, arXiv:2103.00020, section 3.1.4: a class is the mean of the unit vectors of its prompts, made unit length again.
Letters: C classes, P prompts of a class, Q images, D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.data.folder import unescape_name
from stopgrad.eval.search import exact

EncodeText = Callable[[Sequence[str]], Tensor]  # T texts -> [T, D], float32, on the CPU
SLOT = "{}"  # of a template: where the name of the class stands
TOP = (1, 5)


def in_words(name: str) -> str:
    """A class as text: `garbage_truck` -> `garbage truck`. name: escaped, as `Data.classes` has it."""
    return unescape_name(name).decode("utf-8", "replace").replace("_", " ")


def class_vectors(encode: EncodeText, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """[C, D], unit length. classes: names as they shall be read.  templates: texts with one SLOT each."""
    prompts = [template.replace(SLOT, name) for name in classes for template in templates]
    each = F.normalize(encode(prompts), dim=1).view(len(classes), len(templates), -1)  # [C, P, D]
    return F.normalize(each.mean(dim=1), dim=1)


def accuracy(images: Tensor, vectors: Tensor, labels: NDArray[np.int64]) -> dict[int, float]:
    """{k: percentage of images whose class is among the k nearest}, k of TOP that are fewer than the classes.

    images: [Q, D], of any length.  vectors: [C, D].  labels: [Q], 0 to C - 1.  Equally near: the first class counts.
    """
    wanted = [k for k in TOP if k < len(vectors)]
    _, found = exact(images, vectors, max(wanted))  # [Q, K]
    right = found.numpy() == labels[:, None]
    return {k: 100.0 * float(right[:, :k].any(axis=1).mean()) for k in wanted}
