"""What `make bench` says of quality: lightly's recipe beside ours, equal but for what the note names."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks import draw, quality, rival_loops, views
from benchmarks.loops import pixels_of
from benchmarks.pairs import paired
from stopgrad.assemble import api
from stopgrad.assemble.build import build_method, fresh_backbone
from stopgrad.contracts import Clock, Views
from stopgrad.data import Data, Loader, open_data
from stopgrad.optim.groups import build_optimiser, set_rates
from stopgrad.recipe import Recipe
from stopgrad.siamese.family import Siamese
from stopgrad.views import ViewMaker
from tests.test_bench_views import law, off, pictures

FEW = quality.Sizes(images=320, epochs=2, seeds=2)  # 288 are trained on: two steps an epoch


@pytest.fixture(autouse=True)
def no_real_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STOPGRAD_BENCH_DATA", raising=False)
    monkeypatch.setattr(rival_loops, "WORKERS", 0)


@pytest.fixture
def lightly() -> None:
    pytest.importorskip("lightly", reason="lightly is in .bench only")


@pytest.mark.usefixtures("lightly")
@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("name", quality.CASES)
def test_our_crops_are_the_law_of_lightlys_transform(name: str, view: int) -> None:
    case, pixels = quality.CASES[name], 255 - pictures()  # bright: solarization shows
    recipe, _ = quality.recipe_of(case, FEW)
    maker = ViewMaker(recipe.views, 3, 0, torch.device("cpu"), 1)
    ours = maker(Loader(views.Held(pixels), len(pixels), seed=0).batch(0)).crops[view]
    maker.close()
    torch.manual_seed(0)
    np.random.seed(0)  # lightly's solarization draws from it
    transform: Any = case.transform()
    cut, crop = transform.transforms[view].transform.transforms[0], recipe.views.crops[view]
    assert (cut.scale, cut.ratio) == (crop.scale, crop.ratio)  # these hardly show
    expected, found = law(torch.stack([transform(Image.fromarray(image))[view] for image in pixels])), law(ours)
    room = dict.fromkeys(expected, 0.12) | {"gray": 0.2}  # two draws of 1,024 views differ by about a twentieth
    assert {key: (found[key], expected[key]) for key in expected if off(found[key], expected[key]) > room[key]} == {}


@pytest.mark.usefixtures("lightly")
@pytest.mark.parametrize("name", quality.CASES)
def test_but_for_what_the_note_names_both_sides_take_the_same_steps(name: str) -> None:
    recipe, _ = quality.recipe_of(quality.CASES[name], FEW)
    method = build_method(recipe, 288)
    assert isinstance(method, Siamese)
    method.bn_batch = "view"  # that of SimCLR is named
    model = quality.CASES[name].model(fresh_backbone(recipe, recipe.seed))
    same = {"projection_head": method.projector, "prediction_head": method.predictor}
    same["projection_head_momentum"] = getattr(method.target, "target_projector", method.projector)
    for key in same.keys() & dict(model.named_children()).keys():
        head = model.get_submodule(key).layers
        missing, _ = head.load_state_dict(same[key].state_dict(), strict=False)
        assert {*missing} <= {"3.bias"}  # BYOL's: that is named
        last = list(head)[-1]
        nn.init.zeros_(last.bias.requires_grad_(False))  # SimCLR's: that is named too
    ours, theirs = build_optimiser(method, recipe.optim, quality.BATCH), quality.sgd(model)
    clock = Clock(0, 10**9, 1)  # of a run so long that neither cosine moves
    set_rates(ours, recipe.optim, quality.BATCH, clock)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x0, x1 = torch.randn(2, 16, 3, 32, 32, generator=generator)
        ours.zero_grad()
        method(Views((x0, x1), torch.arange(16)), clock).loss.backward()
        ours.step()
        method.after_step(clock)
        quality.one_step(model, theirs, x0, x1)
    start = dict(fresh_backbone(recipe, recipe.seed).named_parameters())
    mine, other = (dict(trunk.named_parameters()) for trunk in (method.backbone, model.get_submodule("backbone")))
    with torch.no_grad():
        apart = {key: (value - other[key]).norm() / (other[key] - start[key]).norm() for key, value in mine.items()}
    assert {key: float(share) for key, share in apart.items() if share > 1e-4} == {}


@pytest.mark.usefixtures("lightly")
def test_both_sides_have_the_same_images_and_as_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the same kNN; lightly's is taken after every epoch."""
    case = quality.CASES["byol"]
    recipe, source = quality.recipe_of(case, FEW)
    data = open_data(recipe.data, 32)
    assert source == "scenes (synthetic)"
    score, untrained = quality.ours(recipe, tmp_path)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert quality.knn(api.load(tmp_path / "run").backbone, recipe, data) == score
    assert untrained != score
    steps: list[tuple[int, float]] = []
    handed: list[int] = []

    def one_step(model: nn.Module, optimiser: torch.optim.Optimizer, x0: Tensor, x1: Tensor) -> None:
        assert model.training
        steps.append((len(x0), optimiser.param_groups[0]["lr"]))
        optimiser.step()  # without a gradient

    def in_memory(pixels: Any, transform: Any) -> Any:
        handed.append(len(pixels))
        assert np.array_equal(pixels, pixels_of(data, recipe))
        return rival_loops.InMemory(pixels, transform)

    monkeypatch.setattr(quality, "one_step", one_step)
    monkeypatch.setattr(quality, "InMemory", in_memory)
    scores = quality.lightly(case, recipe, data)
    assert handed == [288]
    assert log[-1]["step"] == len(steps) == 4
    assert steps == [(128, pytest.approx(rate)) for rate in (0.06, 0.06, 0.03, 0.03)]  # the cosine by epoch
    # nothing was learnt, so both epochs say what the untrained backbone, the same as ours, is worth
    fresh = quality.knn(fresh_backbone(recipe, recipe.seed), recipe, data)
    assert scores == [fresh, fresh]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Sides that give scores without training; who was asked, and for which seed."""
    asked: list[tuple[str, int]] = []

    def ours(recipe: Recipe, folder: Path) -> tuple[float, float]:
        asked.append(("ours", recipe.seed))
        return (48.0, 34.0) if recipe.seed == 0 else (50.0, 35.0)

    def lightly(case: quality.Case, recipe: Recipe, data: Data) -> list[float]:
        asked.append(("lightly", recipe.seed))
        return [40.0, 53.0, 50.0] if recipe.seed == 0 else [40.0, 45.0, 50.0]

    monkeypatch.setattr(quality, "ours", ours)
    monkeypatch.setattr(quality, "lightly", lightly)
    return asked


def test_ours_stands_beside_lightlys_last_and_best_epoch(scored: list[tuple[str, int]]) -> None:
    last, best = quality.measure(quality.CASES["simclr"], FEW)
    assert scored == [("ours", 0), ("lightly", 0), ("ours", 1), ("lightly", 1)]
    assert (last.name, last.unit) == ("kNN of SimCLR, tiny on scenes (synthetic)", "points of kNN")
    assert (last.ours, last.rival, last.low, last.high) == (49, 50, 48 / 50, 1)
    assert (best.ours, best.rival, best.low) == (49, 51.5, 48 / 53)
    assert "last epoch" in last.rival_name
    assert "best epoch on test" in best.rival_name
    assert "last epoch -2.00, +0.00, minus its best on test -5.00, +0.00" in last.note
    assert "untrained 34.00, 35.00" in last.note
    assert "288 images trained on by both, 2 epochs" in last.note
    assert "320 training images, 64 test images" in last.note


@pytest.mark.parametrize(("ours", "reached"), [(46.9, "no"), (47.0, "floor"), (49.9, "floor"), (50.0, "target")])
def test_more_than_3_points_under_lightlys_is_not_enough(ours: float, reached: str) -> None:
    pair = paired("kNN", "points of kNN", [(ours, 50.0)], "lightly's recipe", goal=quality.goal([50.0]))
    assert pair.reached() == reached


def test_quality_is_in_the_table_and_not_in_the_chart_of_speed(scored: list[tuple[str, int]]) -> None:
    pairs = [pair.as_dict() for pair in quality.measure(quality.CASES["byol"], FEW)]
    table = draw.table({"quality": pairs})
    assert (
        "| kNN of BYOL, tiny on scenes (synthetic) | 49 | 50 (lightly's recipe, last epoch) | points of kNN |" in table
    )
    assert "| 0.94 / 1 | floor |" in table
    assert table.count("- kNN of BYOL, tiny on scenes (synthetic): ") == 1  # one note for both rows
    assert "kNN" not in draw.chart(pairs)
