"""The files of a scene as one image: channels, depth, label maps, sizes; which labels occur; the embedded scenes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stopgrad.contracts import ConfigError, DataError
from stopgrad.data import BadFilesError, Data, DataConfig, open_data, scenes
from stopgrad.data.bands import BadImageError, DecodeSettings
from stopgrad.data.label_maps import one_hot, read_map
from stopgrad.data.scene_sensors import SENSORS

WIDTH, HEIGHT = 16, 12
SETTINGS = DecodeSettings(channels=1, max_side=512, min_side=4, max_megapixels=1.0)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


def numbers(seed: int, high: int, shape: tuple[int, ...] = (HEIGHT, WIDTH), dtype: Any = np.uint8) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, high, shape, dtype)


def save(path: Path, pixels: NDArray[Any]) -> NDArray[Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def source(root: Path, count: int = 8) -> tuple[Path, dict[str, list[NDArray[Any]]]]:
    """Photographs, 16-bit depths, normals and label maps of 5 classes; and what is in them."""
    made: dict[str, list[NDArray[Any]]] = {"rgb": [], "depth": [], "normals": [], "labels": []}
    for i in range(count):
        part = "train" if i < count // 2 else "test"
        made["rgb"].append(save(root / part / "rgb" / f"{i}.png", numbers(i, 256, (HEIGHT, WIDTH, 3))))
        deep = numbers(i, 65536, dtype=np.uint16)
        made["depth"].append(save(root / part / "depth" / f"{i}.png", deep))
        made["normals"].append(save(root / part / "normals" / f"{i}.png", numbers(i + 50, 256, (HEIGHT, WIDTH, 3))))
        made["labels"].append(save(root / part / "labels" / f"{i}.png", numbers(i, 5)))
    return root, made


def opened(root: Path, sensors: tuple[str, ...], **settings: Any) -> Data:
    return open_data(DataConfig(source=str(root), sensors=sensors, **settings), image_size=8)


def image(data: Data, i: int) -> NDArray[Any]:
    """Scene i of `source`."""
    return np.asarray(data.train[i] if i < 4 else data.test[i - 4])


def test_sixteen_bits_of_a_depth_are_kept_beside_eight_of_a_photograph(tmp_path: Path) -> None:
    root, made = source(tmp_path / "s")
    data = opened(root, ("rgb", "depth"), depth=16)
    for i in range(8):
        assert image(data, i).dtype == np.uint16
        assert (image(data, i)[..., :3] == made["rgb"][i].astype(np.uint16) * 257).all()
        assert (image(data, i)[..., 3] == made["depth"][i]).all()


def test_with_eight_bits_a_depth_is_scaled_and_a_note_says_how_to_keep_it(tmp_path: Path) -> None:
    root, made = source(tmp_path / "s")
    data = opened(root, ("rgb", "depth"))
    assert image(data, 0).dtype == np.uint8
    assert (image(data, 0)[..., 3] == np.rint(made["depth"][0] / 257)).all()
    assert any("--set data.depth=16 keeps them" in note for note in data.notes)


@pytest.mark.parametrize("depth", [8, 16])
def test_a_label_map_has_a_channel_a_class(tmp_path: Path, depth: int) -> None:
    root, made = source(tmp_path / "s")
    data = opened(root, ("labels:classes=5", "normals", "rgb"), depth=depth)
    assert data.train[0].shape == (HEIGHT, WIDTH, 11)
    white = 255 if depth == 8 else 65535
    for i in range(8):
        found = image(data, i)
        assert (found[..., :5].sum(axis=2) == white).all()
        assert (found[..., :5].argmax(axis=2) == made["labels"][i]).all()
        assert (found[..., 5:8] == made["normals"][i].astype(np.int64) * (white // 255)).all()


def test_channels_follow_from_the_sensors() -> None:
    assert DataConfig(sensors=("rgb", "depth", "segmentation"), channels=3).channels == 9
    assert DataConfig(source="x", sensors=("labels40:classes=41",)).channels == 41
    assert DataConfig(source="x", channels=4).channels == 4
    with pytest.raises(ConfigError, match="what segmentation holds is not known"):
        DataConfig(source="x", sensors=("segmentation",))  # how many classes only the scenes say


def test_a_label_that_is_no_class_is_a_bad_file_and_255_is_none(tmp_path: Path) -> None:
    root, made = source(tmp_path / "s", 40)
    pixels = made["labels"][0].copy()
    pixels[0, 0] = 255
    save(root / "train/labels/0.png", pixels)
    pixels[0, 1] = 9
    save(root / "train/labels/1.png", pixels)
    data = opened(root, ("rgb", "labels:classes=5"))
    assert [(bad.path, bad.reason) for bad in data.bad] == [
        ("train/1", "labels: has label 9, classes are 0 to 4: classes=10")
    ]
    first = next(data.train[i] for i in range(len(data.train)) if data.train.name(i) == "train/0")
    assert (first[0, 0, 3:] == 0).all()
    assert (first[1, :, 3:].sum(axis=1) == 255).all()


def as_file(pixels: NDArray[Any], kind: str = "PNG", mode: str | None = None, **settings: Any) -> bytes:
    out = io.BytesIO()
    made = Image.fromarray(pixels)
    if mode == "P":
        made = made.copy()
        made.putpalette([7] * 768)
    made.save(out, kind, **settings)
    return out.getvalue()


def test_labels_are_read_as_they_are() -> None:
    labels = numbers(0, 200)
    for data in (as_file(labels), as_file(labels, mode="P"), as_file(labels.astype(np.uint16)), as_file(labels, "BMP")):
        assert (read_map(data, SETTINGS) == labels).all()
    out = io.BytesIO()
    np.save(out, labels.astype(np.int32)[None])
    assert (read_map(out.getvalue(), SETTINGS) == labels).all()
    small = read_map(as_file(np.repeat(np.repeat(labels, 50, 0), 50, 1)), DecodeSettings(1, WIDTH, 4, 1.0))
    assert (small == labels).all()  # of 50 equal pixels one is taken, none is made


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (as_file(numbers(0, 256, (12, 16, 3))), "has colours"),
        (as_file(numbers(0, 256), "JPEG"), "a JPEG holds no exact labels"),
        (as_file(numbers(0, 256))[:60], "corrupt PNG|truncated"),
        (b"", "empty file"),
        (b"hello", "looks like text"),
        (as_file(numbers(0, 9, (2000, 2000))), "Mpx > limit"),
        (as_file(numbers(0, 9, (2, 20))), "shorter side below 4"),
    ],
)
def test_what_is_no_label_map_has_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(BadImageError, match=reason):
        read_map(data, SETTINGS)


@pytest.mark.parametrize("values", [np.full((4, 4), 1.5), np.full((4, 4), -1), np.full((4, 4), 70_000)])
def test_numbers_that_are_no_labels_are_refused(values: NDArray[Any]) -> None:
    out = io.BytesIO()
    np.save(out, values)
    with pytest.raises(BadImageError, match=r"whole numbers|from -1|to 70000"):
        read_map(out.getvalue(), SETTINGS)


def test_one_hot_is_the_identity_of_labels() -> None:
    assert (
        one_hot(np.array([[0, 2], [1, 255]]), 3, SETTINGS) == [[[255, 0, 0], [0, 0, 255]], [[0, 255, 0], [0] * 3]]
    ).all()


def test_a_sensor_of_another_size_is_brought_to_the_first(tmp_path: Path) -> None:
    root = tmp_path / "s"
    half = numbers(0, 4, (6, 8))
    for i in range(10):
        save(root / f"rgb/{i}.png", numbers(i, 256, (HEIGHT, WIDTH, 3)))
        save(root / f"depth/{i}.png", np.full((HEIGHT * 3, WIDTH * 3), 40 + i, np.uint8))
        save(root / f"labels/{i}.png", half)
    data = opened(root, ("rgb", "depth", "labels:classes=4"), min_side=4)
    one = data.train[0]
    assert one.shape == (HEIGHT, WIDTH, 8)
    assert (one[..., 3] == 40 + int(data.train.name(0))).all()
    assert (one[..., 4:].argmax(axis=2) == np.repeat(np.repeat(half, 2, 0), 2, 1)).all()
    labels = opened(root, ("rgb", "labels:classes=4"), min_side=4)
    told = "10 of 10 images had sensors of another size than the first, brought to it"
    assert all(told in found.notes for found in (data, labels))


def test_a_sensor_of_another_shape_makes_a_scene_bad(tmp_path: Path) -> None:
    root, _ = source(tmp_path / "s", 40)
    save(root / "train/depth/2.png", numbers(0, 255, (HEIGHT, HEIGHT)))
    data = opened(root, ("rgb", "depth"))
    (bad,) = data.bad
    assert bad.path == "train/2"
    assert bad.reason == "depth: 12x12 pixels, of another shape than the first sensor's 16x12"


def test_a_sensor_that_can_not_be_decoded_is_named(tmp_path: Path) -> None:
    root, _ = source(tmp_path / "s", 40)
    (root / "train/depth/2.png").write_bytes(b"hello")
    save(root / "train/labels/3.png", numbers(0, 255, (HEIGHT, WIDTH, 3)))
    with pytest.raises(BadFilesError) as caught:
        opened(root, ("rgb", "depth", "labels:classes=5"), max_bad_fraction=0.0)
    assert [item.reason for item in caught.value.bad] == [
        "depth: not an image (looks like text)",
        "labels: has colours (RGB); a label map has one number a pixel",
    ]


def test_an_empty_sensor_beside_a_photograph_is_not_an_image_of_one_colour(tmp_path: Path) -> None:
    root = tmp_path / "s"
    for i in range(10):
        save(root / f"rgb/{i}.png", numbers(i, 256, (HEIGHT, WIDTH, 3)))
        save(root / f"edges/{i}.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert not [note for note in opened(root, ("rgb", "edges")).notes if "one colour" in note]


# --- which labels occur -----------------------------------------------------------------------------------------------


def test_labels_that_occur_are_told_of_each_scene(tmp_path: Path) -> None:
    root, made = source(tmp_path / "s")
    for i in range(8):
        part = "train" if i < 4 else "test"
        pixels = np.array([0, i, 255, 30], np.uint8)[numbers(i, 4)]
        made["labels"][i] = save(root / part / "labels" / f"{i}.png", pixels)
    data = opened(root, ("rgb", "depth"), labels="labels:ignore=0")
    assert data.occurring is not None
    assert data.occurring.names == ("1", "2", "3", "4", "5", "6", "7", "30")
    for images, found in ((data.train, data.occurring.train), (data.test, data.occurring.test)):
        for i in range(len(images)):
            number = int(images.name(i).rpartition("/")[2])
            has = {name for name, there in zip(data.occurring.names, found[i]) if there}
            assert has == ({str(number), "30"} if number else {"30"})
    assert opened(root, ("rgb",), labels="labels").occurring.names[0] == "0"  # type: ignore[union-attr]
    assert opened(root, ("rgb",)).occurring is None
    again = opened(root, ("rgb", "depth"), labels="labels:ignore=0")
    assert again.fingerprint == data.fingerprint
    assert (again.occurring.train == data.occurring.train).all()  # type: ignore[union-attr]


def test_an_image_without_labels_to_probe_with_is_an_error(tmp_path: Path) -> None:
    root, _ = source(tmp_path / "s")
    (root / "train/labels/2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 8 images have no map in labels .*first: train/2: no labels"):
        opened(root, ("rgb",), labels="labels")
    (root / "train/labels/2.png").write_bytes(b"hello")
    with pytest.raises(DataError, match=r"first: train/2: not an image"):
        opened(root, ("rgb",), labels="labels")


def test_what_is_probed_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="take it out of one of them"):
        DataConfig(source="x", sensors=("rgb", "labels:classes=5"), labels="labels:ignore=0")
    with pytest.raises(ConfigError, match=r"name what the encoder sees: --set data\.sensors=\[rgb\]"):
        DataConfig(source="x", labels="labels")
    with pytest.raises(ConfigError, match="the scenes have a class each"):
        open_data(DataConfig(sensors=("rgb",), labels="labels"), 32)


# --- the embedded scenes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [8, 16])
def test_scenes_as_sensors_are_what_was_rendered(depth: int) -> None:
    sensors = ("depth", "rgb", "normals", "segmentation", "edges")
    data = open_data(DataConfig(sensors=sensors, limit=10, depth=depth), 32)  # type: ignore[arg-type]
    white = 255 if depth == 8 else 65535
    done = scenes.render(scenes.draw(scenes.TRAIN_SEED, np.arange(10)), 32)
    found = np.stack([data.train[i] for i in range(10)])
    assert found.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert found.shape == (10, 32, 32, 13)
    assert found[..., 0] / white * 4 == pytest.approx(done.depth, abs=4 / white)
    assert (found[..., 1:4] == done.rgb.astype(np.int64) * (white // 255)).all()
    assert found[..., 4:7] / white * 2 - 1 == pytest.approx(done.normals, abs=2 / white)
    assert (found[..., 7:12].argmax(axis=3) == done.segmentation).all()
    seen = done.segmentation
    for b, y, x in ((0, 10, 10), (3, 31, 31), (5, 0, 31), (7, 20, 4), (9, 31, 0)):
        right, below = seen[b, y, min(31, x + 1)], seen[b, min(31, y + 1), x]
        assert found[b, y, x, 12] == white * (seen[b, y, x] not in (right,) or seen[b, y, x] != below)
    assert (data.train.labels == done.label).all()
    assert set(sensors) == set(SENSORS)


def test_scenes_have_those_sensors_and_no_others() -> None:
    for wrong in ("thermal", "depth:rgb", "segmentation:classes=7"):
        with pytest.raises(ConfigError, match=r"of the scenes .*they have rgb, depth, normals, segmentation, edges"):
            open_data(DataConfig(sensors=("rgb", wrong), limit=10), 32)


def test_scenes_of_other_sensors_are_another_store_and_those_of_colour_alone_are_the_old_one() -> None:
    plain = open_data(DataConfig(limit=10), 32)
    one, other = (open_data(DataConfig(limit=10, sensors=s), 32) for s in (("rgb", "depth"), ("depth", "rgb")))
    assert len({plain.fingerprint, one.fingerprint, other.fingerprint}) == 3
    assert (one.train[3][..., :3] == plain.train[3]).all()
    assert (other.train[3][..., 1:] == plain.train[3]).all()
