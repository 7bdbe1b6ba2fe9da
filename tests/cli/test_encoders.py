"""export, embed, neighbours, duplicates: on a folder, by the command and from Python."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad import cli
from stopgrad.assemble import build, tables, use
from stopgrad.contracts import ConfigError, DataError, Preprocess
from stopgrad.encoder import Encoder, load_encoder, save_encoder
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.text import dump
from stopgrad.recipes import recipe_named
from stopgrad.views import preprocess_batch

SIDE = 32
EVIL = "<img src=x onerror=alert(1)>"
FORMULA = "=1+1"


@pytest.fixture(scope="module")
def encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    config = BackboneConfig(width=8)
    save_encoder(path, build_backbone(config, 3, SIDE, 0), config, Preprocess(image_size=SIDE))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 10 images each in two splits; evil names; one image in both splits."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in (EVIL, FORMULA):
            (root / split / name).mkdir(parents=True)
            for i in range(10):
                low = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
                Image.fromarray(low).resize((SIDE, SIDE)).save(root / split / name / f"{i}.png")
    same = Image.open(root / "train" / EVIL / "3.png")
    same.save(root / "test" / EVIL / "7.png", compress_level=0)
    return root


def run(*words: object) -> int:
    return cli.run([str(word) for word in words], debug=False)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_features_are_the_encoders_own_with_name_split_and_label(
    encoder_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "features.npz"
    assert run("embed", encoder_file, "--data", folder, "-o", path) == 0
    assert "40 images, 32 features each" in capsys.readouterr().out
    with np.load(path, allow_pickle=False) as found:
        table = {name: found[name] for name in found.files}
    assert table["features"].shape == (40, 32)
    assert table["features"].dtype == np.float32
    assert (table["split"] == np.repeat(["train", "test"], 20)).all()
    assert set(table["classes"][table["label"]]) == set(table["classes"])
    encoder = load_encoder(encoder_file)
    at = table["name"].tolist().index(f"test/{EVIL}/5.png")
    assert table["classes"][table["label"][at]] == EVIL
    alone = encoder(preprocess_batch([pixels(folder / "test" / EVIL / "5.png")], encoder.preprocess)).numpy()[0]
    np.testing.assert_allclose(table["features"][at], alone, atol=1e-5)


def test_images_for_a_run_are_kept_as_large_as_the_run_keeps_them(encoder_file: Path, tmp_path: Path) -> None:
    run_folder, images = tmp_path / "run", tmp_path / "images"
    run_folder.mkdir()
    images.mkdir()
    recipe = recipe_named("simsiam/scenes")
    kept = dataclasses.replace(recipe.data, max_side=64)
    (run_folder / "recipe.yaml").write_text(dump(dataclasses.replace(recipe, data=kept)))
    for i in range(3):
        Image.fromarray(np.full((100, 100, 3), i, np.uint8)).save(images / f"{i}.png")
    encoder = load_encoder(encoder_file)
    assert use.open_for(encoder, images, None, use.kept_as(run_folder)).train[0].shape == (64, 64, 3)
    assert use.read_query(images / "0.png", encoder, use.kept_as(run_folder)).shape == (64, 64, 3)
    assert use.open_for(encoder, images, None, use.kept_as(encoder_file)).train[0].shape == (100, 100, 3)


def test_parquet_holds_the_same_table(encoder_file: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = stopgrad.embed(encoder_file, folder)
    tables.write_features(found, tmp_path / "features.parquet")
    table = parquet.read_table(tmp_path / "features.parquet").to_pydict()
    assert table["name"] == list(found.names)
    assert table["split"] == list(found.split)
    assert found.labels is not None
    assert table["label"] == found.labels.tolist()
    assert table["class"] == [found.classes[i] for i in found.labels]
    np.testing.assert_array_equal(np.array(table["features"], np.float32), found.features)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"stopgrad\[tables\]"):
        tables.check_table(tmp_path / "features.parquet")


def test_arrays_are_embedded_as_files_are(encoder_file: Path, folder: Path) -> None:
    encoder = load_encoder(encoder_file)
    images = [pixels(folder / "test" / EVIL / f"{i}.png") for i in range(3)]
    found = stopgrad.embed(encoder, [*images, np.zeros((50, 40, 3), np.uint8)])
    of_folder = stopgrad.embed(encoder, str(folder))
    assert found.features.shape == (4, 32)
    assert found.labels is None
    at = [of_folder.names.index(f"test/{EVIL}/{i}.png") for i in range(3)]
    np.testing.assert_allclose(found.features[:3], of_folder.features[at], atol=1e-5)
    with pytest.raises(DataError, match="no images"):
        stopgrad.embed(encoder, [])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((9, 9), np.uint8), r"image 1 is uint8 of shape \[9, 9\]; this encoder takes uint8 images of shape"),
        (np.zeros((9, 9, 4), np.uint8), r"shape \[9, 9, 4\]"),
        (np.zeros((9, 0, 3), np.uint8), r"shape \[9, 0, 3\]"),
        (np.zeros((9, 9, 3), np.float32), "is float32"),
        (np.zeros((9, 9, 3), np.uint16), "is uint16"),
        ("photo.jpg", "image 1 is <U9"),
    ],
)
def test_arrays_that_are_no_images_are_refused_by_their_place(image: object, said: str, encoder_file: Path) -> None:
    with pytest.raises(DataError, match=said):
        stopgrad.embed(encoder_file, [np.zeros((9, 9, 3), np.uint8), image])  # type: ignore[list-item]


def test_what_is_neither_encoder_nor_images_is_said(encoder_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs a loaded encoder, .* got <class 'int'>"):
        stopgrad.embed(5, [])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a source or a list of arrays"):
        stopgrad.embed(encoder_file, None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a run folder or a list of them"):
        stopgrad.report(None)  # type: ignore[arg-type]


def test_an_encoder_stays_on_the_device_it_came_on(encoder_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(encoder_file)
    monkeypatch.setattr(build, "pick_device", lambda: torch.device("meta"))  # stands for a GPU: it computes nothing
    with pytest.raises(RuntimeError, match="meta"):
        stopgrad.embed(encoder, [np.zeros((9, 9, 3), np.uint8)])
    assert {value.device.type for value in encoder.backbone.parameters()} == {"cpu"}


def test_a_single_image_is_one_image_though_it_is_the_test_as_well(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "one" / "a.png"
    image.parent.mkdir()
    Image.fromarray(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)).save(image)
    assert stopgrad.embed(encoder_file, image.parent).names == ("a.png",)
    assert run("duplicates", encoder_file, "--data", image.parent, "-o", tmp_path / "g.csv") == 0
    assert "0 groups of 0 images among 1" in capsys.readouterr().out
    assert run("neighbours", encoder_file, "--data", image.parent, "--query", image) == 65
    assert "there is no image but the query" in capsys.readouterr().err


def test_images_of_other_channels_say_what_the_encoder_takes(
    encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bands").mkdir()
    query = tmp_path / "bands" / "a.npy"
    np.save(query, np.zeros((40, 40, 5), np.uint8))
    for words in (
        ("embed", encoder_file, "--data", query.parent, "-o", tmp_path / "f.npz"),
        ("neighbours", encoder_file, "--data", query.parent, "--query", query),
    ):
        assert run(*words) == 65
        err = capsys.readouterr().err
        assert "this encoder takes images of 3 channels" in err
        assert "--set" not in err  # no option of these commands


def test_features_that_are_not_finite_name_the_image(encoder_file: Path) -> None:
    encoder = load_encoder(encoder_file)
    with torch.no_grad():
        next(encoder.backbone.parameters()).fill_(float("nan"))
    with pytest.raises(DataError, match="image 0 are not finite"):
        stopgrad.embed(encoder, [np.zeros((SIDE, SIDE, 3), np.uint8)])


def test_the_nearest_are_printed_and_drawn_for_an_image_of_the_source_or_any_other(
    encoder_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = folder / "train" / EVIL / "3.png"
    sheet = tmp_path / "sheet.png"
    assert run("neighbours", encoder_file, "--data", folder, "--query", query, "-k", 7, "-o", sheet) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 7 + 1
    assert lines[1].split()[1:3] == ["1.0000", "test"]  # the same image is in both splits
    assert not any(line.endswith(f"train/{EVIL}/3.png") for line in lines)  # nobody is its own neighbour
    with Image.open(sheet) as drawn:
        assert drawn.size[0] > 800
    other = tmp_path / "photo.jpg"
    Image.fromarray(np.full((300, 200), 90, np.uint8)).save(other)
    assert run("neighbours", encoder_file, "--data", folder, "--query", other, "-k", 500) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + 40


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (("neighbours", "--query", "{tmp}/none.png"), "no such file", 66),
        (("neighbours", "--query", "{tmp}/text.png"), "looks like text", 65),
        (("neighbours", "--query", "{tmp}"), "can't be read", 65),
        (("neighbours", "--query", "{tmp}/text.png", "-k", "0"), "-k must be 1", 2),
        (("neighbours", "--query", "{tmp}/text.png", "-o", "{tmp}/a.jpg"), "must be a file that ends in .png", 2),
        (("embed", "-o", "{tmp}/features.csv"), "must be a file that ends in .npz or .parquet", 2),
        (("embed", "-o", "{tmp}/text.png/features.npz"), "can't be written (Not a directory)", 74),
        (("duplicates", "-o", "{tmp}/a.csv", "--threshold", "2"), "--threshold must be", 2),
        (("duplicates", "-o", "{tmp}/recipe.yaml"), "must be a file that ends in .csv", 2),
        (("export", "-o", "{tmp}/text.png/e.onnx"), "can't be written (Not a directory)", 74),
        (("eval", "--output", "{tmp}/recipe.yaml"), "must be a file that ends in .json", 2),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: tuple[str, ...],
    said: str,
    code: int,
    encoder_file: Path,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.png").write_text("not an image, but words")
    command, *rest = (word.format(tmp=tmp_path) for word in words)
    assert run(command, encoder_file, "--data", folder, *rest) == code
    printed = capsys.readouterr()
    assert said in printed.err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["text.png"]


def test_groups_hold_the_copy_and_no_cell_is_a_formula(
    encoder_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "groups.csv"
    assert run("duplicates", encoder_file, "--data", folder, "-o", path, "--threshold", "1.0") == 0
    said = capsys.readouterr().out
    assert "1 group of 2 images among 40" in said
    assert "both train and test" in said
    rows = list(csv.reader(io.StringIO(path.read_text())))
    assert rows == [
        ["group", "name", "split", "similarity"],
        ["1", f"train/{EVIL}/3.png", "train", "1.0000"],
        ["1", f"test/{EVIL}/7.png", "test", "1.0000"],
    ]
    assert run("duplicates", encoder_file, "--data", folder, "-o", path, "--threshold", "0.01") == 0
    assert "a higher --threshold parts them" in capsys.readouterr().out
    cells = [cell for row in csv.reader(io.StringIO(path.read_text())) for cell in row]
    assert len(cells) == 4 * 41
    assert not [cell for cell in cells if cell[:1] in "=+-@\t"]


def test_class_folders_at_the_top_with_a_formula_for_a_name_are_escaped(encoder_file: Path, tmp_path: Path) -> None:
    for name in (FORMULA, "@cmd"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(np.full((SIDE, SIDE, 3), 25 * i, np.uint8)).save(tmp_path / "images" / name / f"{i}.png")
    found = stopgrad.embed(encoder_file, tmp_path / "images")
    assert not [name for name in (*found.names, *found.classes) if name[0] in "=@"]


def test_export_from_a_file_is_checked_on_scenes_or_on_data(
    encoder_file: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("export", encoder_file, "-o", tmp_path / "a.pt2") == 0
    said = capsys.readouterr().out
    assert "8 images of the embedded scenes in batches of 1, 2 and 5" in said
    assert "torch.export.load" in said
    done = stopgrad.export(encoder_file, tmp_path / "b.pt2", data=folder)
    assert f"8 images of {folder.name}" in done.checked
    assert done.path.read_bytes() == (tmp_path / "a.pt2").read_bytes()
    assert run("export", encoder_file, "-o", tmp_path / "c.pth") == 2


@pytest.mark.parametrize(("channels", "depth"), [(1, 8), (5, 16)])
def test_scenes_stand_in_for_any_number_of_channels(channels: int, depth: int, tmp_path: Path) -> None:
    config = BackboneConfig(width=8)
    preprocess = Preprocess(
        image_size=SIDE, channels=channels, depth=depth, mean=(0.5,) * channels, std=(0.3,) * channels
    )
    encoder = Encoder(build_backbone(config, channels, SIDE, 0).eval(), preprocess, config)
    (tmp_path / "e.safetensors").touch()
    found, seen = use.samples_to_check_on(encoder, tmp_path / "e.safetensors", None, None)
    assert found.shape == (8, channels, SIDE, SIDE)
    assert found.max() > (255 if depth == 16 else 100)
    assert "scenes" in seen


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".pth", ".txt"])
def test_what_is_not_loaded_says_what_to_do_instead(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"encoder{suffix}"
    path.write_bytes(b"anything")
    with pytest.raises(ConfigError, match=r"safetensors") as caught:
        stopgrad.load(path)
    assert {".onnx": "onnxruntime", ".pt2": "run code", ".pth": "run code", ".txt": "finished run"}[suffix] in str(
        caught.value
    )


def test_attention_is_drawn_a_row_an_image_and_a_map_a_head(
    folder: Path, encoder_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, file, drawn = BackboneConfig(name="test_vit"), tmp_path / "vit.safetensors", tmp_path / "a.png"
    save_encoder(file, build_backbone(config, 3, SIDE, 0), config, Preprocess(image_size=SIDE))
    assert run("attention", file, "--data", folder, "-o", drawn, "--images", 3) == 0
    assert "3 images, each beside its attention by 2 heads" in capsys.readouterr().out
    picture = pixels(drawn)
    assert picture.shape[0] % 3 == 0
    assert picture.shape[1] == picture.shape[0]  # a photograph and two heads
    tile = picture.shape[0] // 3
    for left in (tile, 2 * tile):  # the most of each map
        assert (picture[:tile, left : left + tile] == (255, 214, 92)).all(axis=2).any()
    before = drawn.read_bytes()
    assert run("attention", encoder_file, "--data", folder, "-o", drawn) == 2
    assert "ViTs with a class token" in capsys.readouterr().err
    assert run("attention", file, "--data", folder, "-o", tmp_path / "a.gif") == 2
    assert run("attention", file, "--data", folder, "-o", drawn, "--images", 0) == 2
    assert drawn.read_bytes() == before
