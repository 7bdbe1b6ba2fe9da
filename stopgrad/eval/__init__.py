"""Evaluation: what a frozen backbone's features are worth, beside raw pixels and beside the same backbone untrained.

`config` says how, `extract` turns samples into features, `neighbours`, `probes`, `segments` and `labelfree` score them,
`suite` holds the table EVALS and runs it, `table` lays the rows side by side. Letters in shapes: N bank,
Q queries, P samples with two views, D features, K neighbours, C classes.

Everything takes a backbone, never a method, and nothing here is ever chosen by looking at the test split. Settings
import without torch; what needs it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stopgrad.eval.config import PROTOCOL, EvalConfig
from stopgrad.eval.table import columns, rows
from stopgrad.lazy import later

if TYPE_CHECKING:
    from stopgrad.eval.extract import features, measure_batch_norm, without_network
    from stopgrad.eval.neighbours import knn, knn_top1
    from stopgrad.eval.probes import linear_lbfgs, linear_sgd
    from stopgrad.eval.suite import EVALS, Other, evaluate

__all__ = [
    "EVALS",
    "PROTOCOL",
    "EvalConfig",
    "Other",
    "columns",
    "evaluate",
    "features",
    "knn",
    "knn_top1",
    "linear_lbfgs",
    "linear_sgd",
    "measure_batch_norm",
    "rows",
    "without_network",
]

__getattr__ = later(
    __name__,
    {
        "EVALS": "suite",
        "Other": "suite",
        "evaluate": "suite",
        "features": "extract",
        "measure_batch_norm": "extract",
        "knn": "neighbours",
        "knn_top1": "neighbours",
        "linear_lbfgs": "probes",
        "linear_sgd": "probes",
        "without_network": "extract",
    },
)
