"""The watch: leaves no trace, sees no label in its verdict, reports a collapse that is injected, names bad data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import stopgrad.siamese.family as family
from stopgrad.assemble import api
from stopgrad.assemble.build import resolve
from stopgrad.contracts import TrainingStoppedError
from stopgrad.recipe.text import override
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir
from stopgrad.training.config import WatchConfig
from stopgrad.training.watch import parts_of
from tests.training.small_run import start


def test_watching_changes_no_bit_of_what_is_trained(tmp_path: Path) -> None:
    often = start(tmp_path, "often", "loop.epochs=2", "watch.every_steps=1", "watch.knn_every_steps=1")
    seldom = start(tmp_path, "seldom", "loop.epochs=2", "watch.every_steps=1000", "watch.knn_every_steps=1000")
    assert (often.path / "encoder.safetensors").read_bytes() == (seldom.path / "encoder.safetensors").read_bytes()


def test_every_number_the_verdict_needs_is_logged_from_step_0(tmp_path: Path) -> None:
    log = RunDir(start(tmp_path, "a", "loop.epochs=2").path).read_log()
    watched = [line for line in log if "std_ratio" in line]
    assert [line["step"] for line in watched] == [0, 10, 12]
    names = {"rank_z", "rank_h", "spectrum_z", "spectrum_h", "alignment", "uniformity", "dead_h"}
    names |= {"cosine_positive", "cosine_random", "retrieval_h", "retrieval_z", "separation_h", "verdict"}
    assert all(names <= line.keys() for line in watched)
    assert {"held_images", "held_distinct", "pixel_std", "pixel_retrieval"} <= watched[0].keys()
    assert [line["step"] for line in log if "knn_top1" in line] == [0, 12]
    assert 0.5 < sum(watched[0]["spectrum_h"]) <= 1  # the largest of a net of 32 features
    assert watched[0]["spectrum_h"] == sorted(watched[0]["spectrum_h"], reverse=True)


def test_without_labels_there_is_no_knn_and_the_verdict_is_the_same(tmp_path: Path) -> None:
    for name in ("flat", "classes"):
        for i in range(120):
            folder = tmp_path / name / (("a", "b")[i % 2] if name == "classes" else "")
            folder.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    rows: dict[str, Any] = {}
    said: dict[str, Any] = {}
    for name in ("flat", "classes"):
        finished = start(tmp_path, f"run-{name}", f"data.source={tmp_path / name}", "loop.epochs=2")
        rows[name] = {row.name: row.value for row in finished.results}
        said[name] = (finished.diagnosis.verdict, finished.diagnosis.explanation)
    assert said["flat"] == said["classes"]
    assert "knn_top1" in rows["classes"]
    assert not [name for name in rows["flat"] if "knn" in name or "linear" in name]
    assert {"retrieval_at_1", "baseline_random_retrieval_at_1", "baseline_pixels_retrieval_at_1"} <= rows["flat"].keys()


def test_outputs_that_are_all_equal_are_a_collapse_and_end_the_run_where_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = family.Siamese.embed
    steps = {"measured": 0}

    def equal(self: family.Siamese, crop: Tensor) -> tuple[Tensor, Tensor]:
        h, z = real(self, crop)
        steps["measured"] += 1
        return (h, z) if steps["measured"] <= 2 else (h * 0 + 1, z * 0 + 1)  # the two crops of step 0 are as they are

    monkeypatch.setattr(family.Siamese, "embed", equal)
    with pytest.raises(TrainingStoppedError, match=r"step 10: collapsed, stopping as asked") as caught:
        start(tmp_path, "a", "watch.stop_on_collapse=true")
    assert caught.value.exit_code == 65
    assert api.diagnose_run(tmp_path / "a").verdict == "collapsed"
    assert api.diagnose_run(tmp_path / "a").since_step == 10


def folder_of(path: Path, pictures: list[NDArray[np.uint8]], copies: int) -> Path:
    path.mkdir()
    for i in range(copies):
        Image.fromarray(pictures[i % len(pictures)]).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize("kind", ["constant", "duplicates"])
def test_a_folder_there_is_nothing_to_learn_from_is_the_datas_fault(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    gray = np.full((40, 40, 3), 128, dtype=np.uint8)
    pictures = [gray] if kind == "constant" else [random.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(3)]
    source = folder_of(tmp_path / "images", pictures, copies=400)
    finished = start(tmp_path, "a", f"data.source={source}", "loop.epochs=8", "data.limit=0")
    assert finished.diagnosis.cause == "data", finished.diagnosis
    assert finished.diagnosis.verdict in ("collapsed", "not_learning")


def test_no_forward_sees_a_handful_of_images() -> None:
    for count in (16, 256, 257, 511, 513, 600, 4096, 4097):
        assert min(len(part) for part in np.array_split(np.arange(count), parts_of(count))) >= min(count, 170)


def test_the_order_in_which_a_folder_keeps_its_images_changes_no_score(tmp_path: Path) -> None:
    """Splits come class by class; batch norm must not see one class at a time."""
    seen: list[Tensor] = []

    class Noting(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x.mean(dim=(1, 2, 3)))
            return x.flatten(1)[:, :8]

    from stopgrad.contracts import Preprocess
    from stopgrad.training.watch import Watch

    class Sorted:
        """600 flat gray images, darkest first."""

        labels = np.arange(600) // 60

        def __len__(self) -> int:
            return 600

        def take(self, index: NDArray[np.int64]) -> NDArray[np.uint8]:
            return np.broadcast_to((index // 3).astype(np.uint8)[:, None, None, None], (len(index), 16, 16, 3)).copy()

    watch = Watch.__new__(Watch)
    watch.method, watch.device, watch.bf16, watch.threads = torch.nn.Module(), torch.device("cpu"), False, 1  # type: ignore[assignment]
    watch.method.trunks = lambda: {"backbone": Noting()}  # type: ignore[method-assign]
    found = watch._features(Sorted(), Preprocess(image_size=16, mean=(0.0,) * 3, std=(1.0,) * 3))  # type: ignore[arg-type]
    assert len(seen) == 2
    assert abs(float(seen[0].mean() - seen[1].mean())) < 0.1  # each forward has dark and light ones
    assert torch.all(found[1:, 0] >= found[:-1, 0])  # and the features come back in the split's order


@pytest.mark.parametrize(("batch", "paced"), [(64, (200, 600)), (128, (140, 280)), (256, (70, 210)), (512, (50, 200))])
def test_the_watch_takes_about_one_forward_in_fifty(batch: int, paced: tuple[int, int]) -> None:
    config = WatchConfig().paced(batch)
    assert (config.every_steps, config.knn_every_steps) == paced
    assert WatchConfig(every_steps=7, knn_every_steps=9).paced(batch) == WatchConfig(every_steps=7, knn_every_steps=9)
    watched = 2 * config.images / config.every_steps + (config.images + config.knn_bank) / config.knn_every_steps
    assert watched / (6 * batch) < 0.025


@pytest.mark.parametrize("batch", [2, 16, 4096])
def test_a_collapse_is_measured_within_200_steps_whatever_the_batch(batch: int) -> None:
    config = WatchConfig().paced(batch)
    assert 50 <= config.every_steps <= 200
    assert config.knn_every_steps % config.every_steps == 0


def test_a_run_gets_its_pace_before_its_first_step() -> None:
    recipe = resolve(override(recipe_named("simsiam/scenes"), ["loop.batch_size=128"]), torch.device("cpu"))
    assert (recipe.watch.every_steps, recipe.watch.knn_every_steps) == (140, 280)


def test_a_watch_takes_nothing_from_the_runs_random_numbers() -> None:
    """A backbone with dropout or stochastic depth draws while it is watched; how often must not change a run."""
    from types import SimpleNamespace

    from stopgrad.contracts import Clock
    from stopgrad.training.watch import Watch

    watch = Watch.__new__(Watch)
    watch.method = torch.nn.Linear(1, 1)  # type: ignore[assignment]
    watch.config, watch.labelled, watch.recipe = WatchConfig(every_steps=1, knn_every_steps=1), None, {}
    watch.history, watch.facts, watch.also, watch.reaching = None, {}, dict, lambda _: {}
    watch.predicting = None
    watch.run = SimpleNamespace(read_log=list)  # type: ignore[assignment]
    drawn: list[Tensor] = []

    def measure() -> dict[str, float]:
        drawn.append(torch.rand(3))
        return {"std_ratio": 1.0}

    watch.measure = measure  # type: ignore[method-assign]
    before = torch.get_rng_state()
    watch(Clock(1, 10, 5), dict)
    assert len(drawn) == 1
    assert torch.equal(torch.get_rng_state(), before)


def test_where_kinds_of_view_are_compared_a_second_view_is_another_kind_of_the_same_crop() -> None:
    first, second, other = (torch.randn(24, 6, generator=torch.Generator().manual_seed(i)) for i in range(3))

    class Kinds(torch.nn.Module):
        compares_kinds = True

        def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
            return crop, 2 * crop

        def across(self, crop: Tensor) -> tuple[Tensor, Tensor] | None:
            return (crop, other[: len(crop)]) if self.compares_kinds else None

    from types import SimpleNamespace

    from stopgrad.losses import geometry
    from stopgrad.training.watch import Watch

    watch = Watch.__new__(Watch)
    watch.method, watch.device, watch.bf16 = Kinds(), torch.device("cpu"), False  # type: ignore[assignment]
    watch.views = SimpleNamespace(crops=(first, second))  # type: ignore[assignment]
    kinds = watch.measure()
    assert kinds["separation_h"] == geometry.separation(first, other)
    assert kinds["cosine_positive"] == pytest.approx(float(torch.cosine_similarity(first, other).mean()))
    assert kinds["std_ratio"] == geometry.std_ratio(first)
    watch.method.compares_kinds = False  # type: ignore[assignment]
    crops = watch.measure()
    assert crops["separation_h"] == geometry.separation(first, second)
    assert crops["rank_h"] == kinds["rank_h"]
