"""kNN and linear probes on ready features: ours, scikit-learn's and lightly's, with equal answers; time and memory.

The features are made: ten overlapping classes in a spectrum that decays as that of a trained encoder. Memory is taken
in a process of its own for each contender, as its peak above what it held once its libraries and the features were
loaded (VmHWM; ru_maxrss of a child also counts the process that started it).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.memory import megabytes
from benchmarks.pairs import ROUNDS, Goal, Pair, paired

CLASSES, K, TEMPERATURE = 10, 200, 0.1
SEPARATION = 7.0  # of the classes from their mean, in standard deviations of the whitened features
LIGHTLY_BATCH = 256  # queries at a time, as lightly's benchmarks evaluate
RIGHT_WITHIN = 0.1  # points by which accuracies may differ
SEEDED_WITHIN = 0.5  # points, where two runs of one contender differ as well: other orders, other first weights

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Features:
    """What an encoder said of a training and a test split, float32, on the CPU."""

    bank: NDArray[np.float32]  # [N, D]
    bank_labels: Labels  # [N]
    queries: NDArray[np.float32]  # [Q, D]
    query_labels: Labels  # [Q]

    def percent(self, predicted: Labels) -> float:
        return 100 * float(np.mean(predicted == self.query_labels))

    def first(self, count: int) -> Features:
        """The first rows alone, to load libraries with."""
        return Features(self.bank[:count], self.bank_labels[:count], self.queries[:count], self.query_labels[:count])

    def write(self, folder: Path) -> None:
        for name, values in vars(self).items():
            np.save(folder / f"{name}.npy", values)

    @classmethod
    def read(cls, folder: Path) -> Features:
        return cls(*(np.load(folder / f"{name}.npy") for name in cls.__dataclass_fields__))


def made(bank: int, queries: int, dim: int, seed: int = 0) -> Features:
    """Gaussian classes, the same for the same numbers.

    The variance of channel i falls as 1 / i, and classes differ most in the first channels, where a trained encoder has
    them: kNN is right on about 80 %, a linear probe on 95 %.
    """
    generator = np.random.default_rng(seed)
    scale = (1 + np.arange(dim, dtype=np.float32)) ** -0.5
    centres = generator.standard_normal((CLASSES, dim), dtype=np.float32) * np.square(scale)
    centres *= SEPARATION / np.sqrt(np.square(centres).sum(axis=1).mean())
    labels = generator.integers(0, CLASSES, bank + queries)
    x = (generator.standard_normal((bank + queries, dim), dtype=np.float32) + centres[labels]) * scale
    return Features(x[:bank].copy(), labels[:bank], x[bank:].copy(), labels[bank:])


# --- the contenders: features in, a label for each query out ----------------------------------------------------------


def our_knn(given: Features) -> Labels:
    import torch

    from stopgrad.eval.neighbours import knn

    bank, queries = torch.from_numpy(given.bank), torch.from_numpy(given.queries)
    return knn(bank, given.bank_labels, queries, (K,), TEMPERATURE, CLASSES)[K]


def sklearn_knn(given: Features, metric: str) -> Labels:
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import normalize

    bank, queries = normalize(given.bank), normalize(given.queries)
    search = NearestNeighbors(n_neighbors=K, algorithm="brute", metric=metric).fit(bank)
    distance, index = search.kneighbors(queries)  # [Q, K] both
    cosine = 1 - distance if metric == "cosine" else 1 - np.square(distance) / 2
    weight = np.exp(cosine / TEMPERATURE)
    cells = np.arange(len(queries))[:, None] * CLASSES + given.bank_labels[index]
    votes = np.bincount(cells.ravel(), weight.ravel(), len(queries) * CLASSES)
    return np.asarray(votes.reshape(-1, CLASSES).argmax(axis=1))


def sklearn_knn_cosine(given: Features) -> Labels:
    return sklearn_knn(given, "cosine")


def sklearn_knn_euclidean(given: Features) -> Labels:
    return sklearn_knn(given, "euclidean")


def lightly_knn(given: Features) -> Labels:
    """As its KNNClassifier works once it has the features."""
    import torch
    import torch.nn.functional as F
    from lightly.utils.benchmarking import knn_predict

    bank = F.normalize(torch.from_numpy(given.bank), dim=1).t().contiguous()  # [D, N]
    labels = torch.from_numpy(given.bank_labels)
    found = []
    with torch.no_grad():
        for part in torch.split(torch.from_numpy(given.queries), LIGHTLY_BATCH):
            predicted = knn_predict(F.normalize(part, dim=1), bank, labels, CLASSES, knn_k=K, knn_t=TEMPERATURE)
            found.append(predicted[:, 0])
    return torch.cat(found).numpy()


def our_lbfgs(given: Features) -> Labels:
    """As the suite runs it: the penalty is chosen among four on a tenth of the bank, so this is five fits."""
    import torch

    from stopgrad.eval.probes import lbfgs_head

    head, _ = lbfgs_head(torch.from_numpy(given.bank), given.bank_labels, 0)
    return head.predict(torch.from_numpy(given.queries))


def sklearn_grid(given: Features) -> Labels:
    """The same choice by scikit-learn's own means: four penalties, a tenth held out, then all of the bank."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, ShuffleSplit
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from stopgrad.eval.probes import STRENGTHS

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    choices = {"logisticregression__C": [1 / (strength * len(given.bank)) for strength in STRENGTHS]}
    search = GridSearchCV(model, choices, cv=ShuffleSplit(1, test_size=0.1, random_state=0))
    return np.asarray(search.fit(given.bank, given.bank_labels).predict(given.queries))


def sklearn_plain(given: Features, strength: float) -> Labels:
    """One fit at a penalty that is known."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fit = LogisticRegression(C=1 / (strength * len(given.bank)), max_iter=1000)
    model = make_pipeline(StandardScaler(), fit).fit(given.bank, given.bank_labels)
    return np.asarray(model.predict(given.queries))


def our_sgd(given: Features, epochs: int) -> Labels:
    import torch

    from stopgrad.eval.probes import sgd_head

    head = sgd_head(torch.from_numpy(given.bank), given.bank_labels, epochs, 0.1, 0)
    return head.predict(torch.from_numpy(given.queries))


def lightly_sgd(given: Features, epochs: int) -> Labels:
    """lightly's LinearClassifier on the same standardised features; what Lightning can do without is off."""
    import torch
    from lightly.utils.benchmarking import LinearClassifier
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader, TensorDataset

    bank, queries = torch.from_numpy(given.bank), torch.from_numpy(given.queries)
    std, mean = torch.std_mean(bank, dim=0, correction=0)
    torch.manual_seed(0)
    classifier = LinearClassifier(
        torch.nn.Identity(),
        batch_size_per_device=256,
        lr=0.1,
        feature_dim=bank.shape[1],
        num_classes=CLASSES,
        topk=(1, 5),
    )
    rows = TensorDataset((bank - mean) / std, torch.from_numpy(given.bank_labels))
    batches = DataLoader(rows, min(256, len(rows)), shuffle=True, drop_last=True)
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(max_epochs=epochs, accelerator="cpu", enable_model_summary=False, **quiet)
        trainer.fit(classifier, batches)
    with torch.no_grad():
        return np.asarray(classifier((queries - mean) / std).argmax(dim=1))


CONTENDERS: dict[str, Callable[..., Labels]] = {
    one.__name__: one
    for one in (
        our_knn,
        sklearn_knn_cosine,
        sklearn_knn_euclidean,
        lightly_knn,
        our_lbfgs,
        sklearn_grid,
        sklearn_plain,
        our_sgd,
        lightly_sgd,
    )
}


# --- the measures -----------------------------------------------------------------------------------------------------


def knn(bank: int = 50_000, queries: int = 10_000, dim: int = 512, rounds: int = ROUNDS) -> list[Pair]:
    """Our kNN beside scikit-learn's brute force, in whichever of its two forms is faster here, and lightly's."""
    given = made(bank, queries, dim)
    forms = ("sklearn_knn_euclidean", "sklearn_knn_cosine")
    for form in forms:
        CONTENDERS[form](given.first(2 * K))  # its imports and threads
    took = {form: timed(CONTENDERS[form], given) for form in forms}
    chosen = min(forms, key=lambda form: took[form][0])
    metric = chosen.rpartition("_")[2]
    names = ("our_knn", chosen, "lightly_knn")
    right, seconds = race(given, {name: CONTENDERS[name] for name in names}, rounds)
    right |= {form: given.percent(took[form][1]) for form in forms}
    same(right, RIGHT_WITHIN)
    note = (
        f"bank {bank:,} x {dim}, k = {K}, temperature {TEMPERATURE}; {told(right)} % right; scikit-learn by "
        + ", ".join(f"{form.rpartition('_')[2]} in {took[form][0]:.3g} s" for form in forms)
        + f": {metric} is taken; lightly in batches of {LIGHTLY_BATCH}"
    )
    what = f"kNN, {queries:,} in {bank:,} x {dim}"
    rivals = {chosen: "scikit-learn, brute", "lightly_knn": "lightly"}
    goals = {chosen: Goal(floor=1, target=3)}
    pairs = rates(what, "queries/s", queries, "our_knn", rivals, seconds, goals, note)
    return pairs + memory(what, given, "our_knn", rivals)


def lbfgs(bank: int = 20_000, queries: int = 10_000, dim: int = 256, rounds: int = ROUNDS) -> list[Pair]:
    """Our L-BFGS probe, which chooses its penalty, beside the same choice by scikit-learn and beside one plain fit."""
    import torch

    from stopgrad.eval.probes import lbfgs_head

    given = made(bank, queries, dim)
    how = lbfgs_head(torch.from_numpy(given.bank), given.bank_labels, 0)[1]
    found = re.search(r"L2 strength (\S+), ", how)
    if found is None:
        raise SystemExit(f"bench: probes.py no longer says which penalty it chose, but {how!r}; mend scores.lbfgs")
    strength = float(found[1])

    def plain(given: Features) -> Labels:
        return sklearn_plain(given, strength)

    contenders = {"our_lbfgs": our_lbfgs, "sklearn_grid": sklearn_grid, "sklearn_plain": plain}
    right, seconds = race(given, contenders, rounds)
    same({name: right[name] for name in ("our_lbfgs", "sklearn_plain")}, RIGHT_WITHIN)
    note = (
        f"{how}; {told(right)} % right on {queries:,}; ours fits five times (once for each of four penalties on nine "
        "tenths, then all), as GridSearchCV with the same penalties and split does; the plain fit is told the penalty"
    )
    what = f"linear probe, L-BFGS, {bank:,} x {dim}"
    rivals = {"sklearn_grid": "scikit-learn, GridSearchCV", "sklearn_plain": "scikit-learn, one fit"}
    pairs = rates(what, "images/s", bank, "our_lbfgs", rivals, seconds, {}, note)
    return pairs + memory(what, given, "our_lbfgs", rivals, {"sklearn_plain": [strength]})


def sgd(
    bank: int = 20_000, queries: int = 10_000, dim: int = 256, epochs: int = 20, rounds: int = ROUNDS
) -> list[Pair]:
    """Our SGD probe beside lightly's LinearClassifier in a Lightning Trainer: equal epochs, rate, batch."""
    given = made(bank, queries, dim)

    def ours(given: Features) -> Labels:
        return our_sgd(given, epochs)

    def rival(given: Features) -> Labels:
        return lightly_sgd(given, epochs)

    right, seconds = race(given, {"our_sgd": ours, "lightly_sgd": rival}, rounds)
    same(right, SEEDED_WITHIN)
    note = f"{epochs} epochs, batch 256, rate 0.1; {told(right)} % right on {queries:,}"
    what = f"linear probe, SGD, {bank:,} x {dim}"
    pairs = rates(what, "images/s", bank * epochs, "our_sgd", {"lightly_sgd": "lightly"}, seconds, {}, note)
    extra = {"our_sgd": [epochs], "lightly_sgd": [epochs]}
    return pairs + memory(what, given, "our_sgd", {"lightly_sgd": "lightly"}, extra)


def timed(work: Callable[[Features], Labels], given: Features) -> tuple[float, Labels]:
    begin = time.perf_counter()
    found = work(given)
    return time.perf_counter() - begin, found


def race(
    given: Features, contenders: Mapping[str, Callable[[Features], Labels]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Percent right of each, from a first call that is not timed; and the seconds of each round, taken in turns."""
    right = {name: given.percent(work(given)) for name, work in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, work in contenders.items():
            seconds[name].append(timed(work, given)[0])
    return right, seconds


def same(right: Mapping[str, float], within: float) -> None:
    """Speed counts at equal answers only."""
    if max(right.values()) - min(right.values()) > within + 1e-9:
        raise SystemExit(f"bench: accuracies differ by more than {within} points ({told(right)}); nothing is compared")


def told(right: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in right.items())


def rates(
    what: str,
    unit: str,
    count: int,
    ours: str,
    rivals: Mapping[str, str],
    seconds: Mapping[str, Sequence[float]],
    goals: Mapping[str, Goal],
    note: str,
) -> list[Pair]:
    """A pair for each rival, from the seconds of the same rounds; the note stands with the first."""
    return [
        paired(
            what,
            unit,
            [(count / a, count / b) for a, b in zip(seconds[ours], seconds[name], strict=True)],
            title,
            goal=goals.get(name),
            note=note if i == 0 else "",
        )
        for i, (name, title) in enumerate(rivals.items())
    ]


def memory(
    what: str,
    given: Features,
    ours: str,
    rivals: Mapping[str, str],
    extra: Mapping[str, Sequence[float]] | None = None,
) -> list[Pair]:
    """Peak above libraries and features, MB, each contender once in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="stopgrad-bench-") as folder:
        given.write(Path(folder))
        found = {name: peak_above(name, Path(folder), (extra or {}).get(name, ())) for name in (ours, *rivals)}
    size = (given.bank.nbytes + given.queries.nbytes) / 1e6
    note = f"once each, above the features' own {size:.0f} MB and the libraries; less is better"
    return [
        paired(f"{what}: memory", "MB", [(found[ours], found[name])], title, note=note if i == 0 else "")
        for i, (name, title) in enumerate(rivals.items())
    ]


def peak_above(name: str, folder: Path, extra: Sequence[float]) -> float:
    command = [sys.executable, "-m", "benchmarks.scores", name, str(folder), json.dumps(list(extra))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"bench: {name} failed in its process: {done.stderr.strip().splitlines()[-1:]}")
    return float(done.stdout.splitlines()[-1])


def child(name: str, folder: Path, extra: Sequence[float]) -> None:
    """Prints the MB that one contender needs at its peak above what it began with."""
    given, work = Features.read(folder), CONTENDERS[name]
    work(given.first(max(2 * K, 1000)), *extra)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew at what is held now
    before = megabytes()["VmHWM"]
    work(given, *extra)
    print(max(0.1, round(megabytes()["VmHWM"] - before, 1)))


MEASURES: dict[str, Callable[[], list[Pair]]] = {"knn": knn, "lbfgs": lbfgs, "sgd": sgd}

if __name__ == "__main__":
    child(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
