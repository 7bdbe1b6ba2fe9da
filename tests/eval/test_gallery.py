"""The gallery: complete, consistent, the same twice, and made of few, equal or odd images too."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stopgrad.contracts import DataError
from stopgrad.eval import gallery, sheets
from tests.eval import fakes
from tests.reporting import made


def test_every_position_in_the_index_is_an_image_of_the_sheet(tmp_path: Path) -> None:
    index = made.gallery(tmp_path)
    count, sheet = len(index["images"]), index["thumbs"]
    assert (index["shown"], index["searched"], index["of"]) == (90, 90, {"test": 30, "train": 60})
    assert index["images"][0]["split"] == "test"
    assert index["images"][89]["split"] == "train"
    with Image.open(tmp_path / "thumbs.jpg") as thumbs:
        rows = -(-count // sheet["columns"])
        assert thumbs.size == (sheet["columns"] * sheet["side"], rows * sheet["side"])
    near = index["neighbours"]["index"]
    assert all(len(set(row)) == gallery.NEIGHBOURS and i not in row for i, row in enumerate(near))
    assert all(row == sorted(row, reverse=True) for row in index["neighbours"]["similarity"])
    assert len(index["map"]["points"]) == index["shown"]
    used = [*index["examples"], *(i for g in index["duplicates"]["groups"] for i in g)]
    assert all(0 <= i < count for i in [*used, *(item["image"] for item in index["outliers"])])


def test_a_thumbnail_shows_its_image(tmp_path: Path) -> None:
    data = fakes.data()
    index = made.gallery(tmp_path, data)
    side, columns = index["thumbs"]["side"], index["thumbs"]["columns"]
    sheet = np.asarray(Image.open(tmp_path / "thumbs.jpg").convert("RGB"), dtype=np.float64)
    for at in (0, 41, 89):
        image = index["images"][at]
        split = data.test if image["split"] == "test" else data.train
        wanted = split[int(image["name"].split()[1])].mean(axis=(0, 1))
        y, x = at // columns * side, at % columns * side
        assert np.abs(sheet[y : y + side, x : x + side].mean(axis=(0, 1)) - wanted).max() < 12


def test_the_same_run_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        made.gallery(tmp_path / name)
    for file in ("gallery.json", "thumbs.jpg", "views.jpg"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_examples_are_of_different_classes_first() -> None:
    assert gallery.examples([0, 0, 0, 1, 2, 1]) == [0, 3, 4, 1, 5, 2]
    assert gallery.examples([None] * 20) == list(range(gallery.EXAMPLES))


def test_a_copy_is_a_near_duplicate_and_says_where_it_is(tmp_path: Path) -> None:
    data = fakes.data()
    data.train.images[7] = data.test.images[3]  # type: ignore[attr-defined]
    index = made.gallery(tmp_path, data)
    groups = [
        {(index["images"][i]["split"], index["images"][i]["name"]) for i in g} for g in index["duplicates"]["groups"]
    ]
    assert {("train", "fake 7"), ("test", "fake 3")} in groups


def test_the_image_unlike_all_others_is_the_first_outlier() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.zeros(50, 8)
    features[:, 0] = 1
    features += 0.01 * torch.randn(50, 8, generator=generator)
    features[17] = torch.eye(8)[3]
    found = gallery.outliers(torch.nn.functional.normalize(features, dim=1))
    assert found[0][0] == 17
    assert found[0][1] < 0.1 < found[1][1]


def test_equal_images_and_a_single_one_make_a_gallery_too(tmp_path: Path) -> None:
    index = made.gallery(tmp_path / "equal", made.constant(5))
    assert index["duplicates"]["total_images"] == 10
    assert index["map"]["method"] == "PCA"
    assert np.isfinite(index["map"]["points"]).all()
    index = made.gallery(tmp_path / "two", made.constant(1))
    assert index["neighbours"]["index"] == [[1], [0]]
    assert index["map"]["points"] == [[0, 0], [0, 0]]
    assert gallery.outliers(torch.ones(1, 4)) == []


def test_few_images_are_mapped_by_pca_along_their_largest_direction() -> None:
    values = np.zeros((20, 6), np.float32)
    values[:, 2] = np.arange(20)
    points, how, why = gallery.project(torch.from_numpy(values), seed=0)
    assert how == "PCA"
    assert "fewer than" in why
    assert np.allclose(np.abs(np.diff(points[:, 0])), 1)
    assert np.allclose(points[:, 1], 0, atol=1e-6)


def test_many_images_are_mapped_by_pacmap_the_same_twice() -> None:
    pytest.importorskip("pacmap")
    features = torch.nn.functional.normalize(torch.randn(600, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    first, how, why = gallery.project(features, seed=3)
    assert (how, why, first.shape) == ("PaCMAP", "", (600, 2))
    assert np.array_equal(first, gallery.project(features, seed=3)[0])


def test_without_pacmap_the_map_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pacmap", None)
    features = torch.nn.functional.normalize(torch.randn(600, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    _, how, why = gallery.project(features, seed=3)
    assert how == "PCA"
    assert "pip install 'stopgrad[maps]'" in why


def test_sixteen_bits_and_many_channels_are_stretched_and_said() -> None:
    plain = sheets.stretch_for(np.full((4, 2, 2, 3), 0.5), deep=False)
    assert plain.told == ""
    assert (plain(np.full((1, 3), 0.5)) == 128).all()
    dark = np.linspace(0.01, 0.02, 4 * 2 * 2 * 3).reshape(4, 2, 2, 3)
    deep = sheets.stretch_for(dark, deep=True)
    assert "stretched" in deep.told
    assert deep(dark).min() == 0
    assert deep(dark).max() == 255
    gray = sheets.stretch_for(np.random.default_rng(0).random((4, 2, 2, 2)), deep=False)
    assert "channel 1 as gray" in gray.told
    assert gray(np.full((5, 5, 2), 0.5)).shape == (5, 5, 3)


def test_five_channels_of_sixteen_bits_make_a_gallery(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    deep = random.integers(0, 3000, (20, fakes.SIDE, fakes.SIDE, 5)).astype(np.uint16)
    part = fakes.Split(deep, None)  # type: ignore[arg-type]
    data = dataclasses.replace(fakes.data(labelled=False), train=part, test=part)
    net = fakes.Net()
    net.conv = torch.nn.Conv2d(5, net.dim, 3, padding=1)
    mean, std = (0.02,) * 5, (0.013,) * 5
    preprocess = dataclasses.replace(made.PREPROCESS, channels=5, mean=mean, std=std, depth=16)
    views = dataclasses.replace(made.VIEWS, mean=mean, std=std)
    gallery.write_gallery(tmp_path, net, data, preprocess, views, seed=0, device="cpu", threads=1)
    index = json.loads((tmp_path / "gallery.json").read_text())
    assert "channels 1 to 3 as red, green and blue, stretched" in index["thumbs"]["told"]
    assert np.asarray(Image.open(tmp_path / "thumbs.jpg"))[: fakes.SIDE, : 20 * fakes.SIDE].std() > 40
    assert index["images"][0]["label"] is None


def test_a_large_sheet_is_kept_below_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3)).astype(np.uint8)
    whole = len(sheets.thumbnails(noise))
    monkeypatch.setattr(sheets, "SHEET_BYTES", whole // 2)
    smaller = sheets.thumbnails(noise)
    assert len(smaller) <= whole // 2
    assert Image.open(io.BytesIO(smaller)).size == (sheets.COLUMNS * 32, 5 * 32)


def test_features_that_are_not_finite_are_an_error(tmp_path: Path) -> None:
    broken = fakes.Net()
    broken.conv.weight.data.fill_(torch.nan)
    with pytest.raises(DataError, match="not finite"):
        gallery.write_gallery(
            tmp_path, broken, fakes.data(), made.PREPROCESS, made.VIEWS, seed=0, device="cpu", threads=1
        )
    assert not list(tmp_path.iterdir())
