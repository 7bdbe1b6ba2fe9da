"""export, embed, neighbours, duplicates: on a folder, by the command and from Python."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import stopgrad
from stopgrad import cli
from stopgrad.assemble import use
from stopgrad.contracts import ConfigError, DataError, Preprocess
from stopgrad.encoder import Encoder, load_encoder, save_encoder
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
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


def test_parquet_holds_the_same_table(encoder_file: Path, folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = stopgrad.embed(encoder_file, folder)
    use.write_features(found, tmp_path / "features.parquet")
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
        use.check_table(tmp_path / "features.parquet")


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
    nearest = [line.split() for line in lines[1:3]]
    assert {row[2] for row in nearest} == {"train", "test"}  # the same image is in both
    assert {row[1] for row in nearest} == {"1.0000"}
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
        (("neighbours", "--query", "{tmp}/text.png", "-o", "{tmp}/a.jpg"), "must end in .png", 2),
        (("embed", "-o", "{tmp}/features.csv"), "must end in .npz or .parquet", 2),
        (("duplicates", "-o", "{tmp}/a.csv", "--threshold", "2"), "--threshold must be", 2),
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
    assert "1 groups of 2 images among 40" in said
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
    found, seen = use.images_to_check_on(encoder, tmp_path / "e.safetensors", None, None)
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
