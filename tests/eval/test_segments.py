"""Which labels occur: average precision by its definition, who is left out, and that a view can be scored alone."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, Preprocess
from stopgrad.data import Data
from stopgrad.data.sources import Occurring
from stopgrad.eval import EvalConfig, columns, evaluate, rows
from stopgrad.eval.segments import LEAST, average_precision, mean_average_precision, probed, run
from stopgrad.eval.task import Encoded, Task
from stopgrad.nn.towers import SensorTowers
from stopgrad.views import CropConfig, ViewsConfig, preprocess_of
from tests.eval.fakes import SIDE, Split, data

RANDOM = np.random.default_rng(0)


def test_average_precision_is_scikit_learns_and_equal_scores_are_one_place() -> None:
    for _ in range(20):
        scores = RANDOM.integers(0, 6, 30).astype(np.float32)  # many are equal
        has = RANDOM.random(30) < 0.4
        assert average_precision(scores, has) == pytest.approx(average_precision_score(has, scores))
    assert average_precision(np.array([3, 2, 1], np.float32), np.array([True, False, True])) == pytest.approx(5 / 6)
    assert average_precision(np.zeros(8, np.float32), np.arange(8) < 2) == pytest.approx(0.25)  # no clue: the share


def test_every_label_counts_the_same() -> None:
    has = np.zeros((40, 2), bool)
    has[:20, 0], has[7, 1] = True, True
    scores = np.stack([-np.arange(40), np.zeros(40)], axis=1).astype(np.float32)
    assert mean_average_precision(scores, has) == pytest.approx(100 * (1 + 1 / 40) / 2)


def task(train: NDArray[Any], test: NDArray[Any]) -> Task:
    return Task(
        config=EvalConfig(),
        bank_labels=None,
        query_labels=None,
        device=torch.device("cpu"),
        seed=0,
        protocol="p",
        occurring=(train, test),
    )


def encoded(bank: Tensor | None, queries: Tensor | None) -> Encoded:
    none = torch.zeros(2, 1)
    return Encoded(bank=bank, queries=queries, clean=none, first=none, second=none)


def worlds(n: int, seed: int) -> tuple[Tensor, NDArray[np.bool_]]:
    """Features whose first three channels say which of three labels is there."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((n, 6))
    has = x[:, :3] > np.array([0.0, 0.7, -1.0])
    return torch.from_numpy(x * np.array([1, 10, 0.1, 1, 1, 1])).float(), has


def test_labels_that_features_tell_are_told_and_others_are_chance() -> None:
    (bank, has), (queries, there) = worlds(200, 0), worlds(100, 1)
    (row,) = run(encoded(bank, queries), task(has, there))
    assert (row.name, row.n, row.split) == ("segments_ap", 100, "test")
    assert row.value is not None
    assert float(row.value) > 95
    assert "of 3 of 3 labels" in row.protocol
    assert f"chance {100 * there.mean():.4g}" in row.protocol
    (blind,) = run(encoded(bank[:, 3:], queries[:, 3:]), task(has, there))
    assert float(blind.value or 0) == pytest.approx(100 * there.mean(), abs=12)


def test_rare_labels_and_those_of_every_image_are_left_out() -> None:
    train, test = np.zeros((40, 5), bool), np.zeros((10, 5), bool)
    train[:LEAST, 0], test[3, 0] = True, True
    train[: LEAST - 1, 1], test[3, 1] = True, True
    train[:, 2], test[:, 2] = True, True
    train[:20, 3] = True  # in no test image
    train[: 40 - LEAST, 4], test[:5, 4] = True, True
    assert probed(train, test).tolist() == [True, False, False, False, True]
    none = np.zeros((40, 5), bool)
    assert run(encoded(torch.rand(40, 3), torch.rand(10, 3)), task(none, test)) == []


def test_without_labels_there_is_no_row() -> None:
    (bank, has), (queries, there) = worlds(50, 0), worlds(20, 1)
    assert run(encoded(None, None), task(has, there)) == []
    assert run(encoded(bank, queries), replace(task(has, there), occurring=None)) == []


def test_the_test_split_chooses_nothing() -> None:
    (bank, has), (queries, there) = worlds(120, 0), worlds(40, 1)
    one = run(encoded(bank, queries), task(has, there))[0]
    flipped = run(encoded(bank, queries), task(has, ~there))[0]

    def chosen(protocol: str) -> str:
        return protocol.partition("L2 strength")[2].partition(";")[0]

    assert chosen(one.protocol) == chosen(flipped.protocol)


# --- in the suite -----------------------------------------------------------------------------------------------------


class Tower(nn.Module):
    """One convolution, [B, C, S, S] -> [B, dim]."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        self.dim = 8
        self.conv = nn.Conv2d(channels, self.dim, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.conv.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x).relu().mean(dim=(2, 3))
        return out


def towers(seed: int) -> SensorTowers:
    return SensorTowers([Tower(3, seed), Tower(1, seed + 50)], (3, 1))


def scenes() -> Data:
    """Images of three colours and a gray channel of noise, and which colours they have."""
    plain = data(labelled=False)
    splits = []
    for images in (plain.train, plain.test):
        noise = RANDOM.integers(0, 256, (len(images), SIDE, SIDE, 1)).astype(np.uint8)
        splits.append(Split(np.concatenate([np.stack([images[i] for i in range(len(images))]), noise], axis=3), None))
    has = [np.sort(np.arange(n) % 3)[:, None] == np.arange(3) for n in (60, 30)]
    return replace(plain, train=splits[0], test=splits[1], occurring=Occurring(("a", "b", "c"), *has))


VIEWS = ViewsConfig(
    image_size=SIDE, crops=(CropConfig(jitter=0, grayscale=0, blur=0),) * 2, mean=(0.4,) * 4, std=(0.3,) * 4
)
PREPROCESS: Preprocess = preprocess_of(VIEWS, 4, 8, ("rgb", "depth"))


def score(config: EvalConfig) -> dict[str, Any]:
    found = evaluate(towers(1), towers, scenes(), PREPROCESS, VIEWS, config, seed=0, device="cpu", threads=1)
    return {row.name: row for row in found}


def test_segments_stand_beside_the_baselines() -> None:
    found = score(EvalConfig(random_seeds=2))
    assert {name for name in found if "segments" in name} == {
        "segments_ap",
        "baseline_random_segments_ap",
        "baseline_pixels_segments_ap",
        "baseline_chance_segments_ap",
    }
    assert found["baseline_chance_segments_ap"].value == pytest.approx(100 / 3)
    table = dict(rows(list(found.values())))
    assert list(columns(list(found.values())).values()) == ["chance", "random", "pixels"]
    assert table["segments_ap"][1] == found["baseline_chance_segments_ap"].value
    assert "knn_top1" not in found  # an image has several labels, and no class
    assert found["baseline_pixels_segments_ap"].value > 90


def test_one_tower_is_scored_alone_and_so_are_its_pixels() -> None:
    both, rgb, depth = (score(EvalConfig(random_seeds=1, tower=tower)) for tower in ("", "rgb", "depth"))
    assert rgb["segments_ap"].value > depth["segments_ap"].value + 20
    assert rgb["baseline_pixels_segments_ap"].value > depth["baseline_pixels_segments_ap"].value + 20
    assert "features of depth alone" in depth["segments_ap"].protocol
    assert "of depth" in depth["baseline_pixels_segments_ap"].protocol
    assert both["effective_rank"].protocol.endswith("16 channels")
    assert depth["baseline_random_effective_rank"].protocol.split("; mean over")[0].endswith("8 channels")
    with pytest.raises(ConfigError, match=r"eval\.tower=L: this backbone has rgb, depth"):
        score(EvalConfig(random_seeds=0, tower="L"))
