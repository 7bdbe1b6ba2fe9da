"""Folders beside each other: which files are of one scene, what is refused, and what must never be taken for it."""

import tarfile
import zipfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data import BadFilesError, Data, DataConfig, open_data
from stopgrad.data.beside import Beside, check_one_kind, framed, unframed
from stopgrad.data.probe import probe
from stopgrad.data.sources import list_source


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


def picture(path: Path, value: int, mode: str = "RGB", size: tuple[int, int] = (16, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(value).integers(0, 256, shape, np.uint8)
    Image.fromarray(pixels).save(path)


def opened(source: Path, sensors: tuple[str, ...] = (), **settings: object) -> Data:
    return open_data(DataConfig(source=str(source), sensors=sensors, **settings), image_size=16)  # type: ignore[arg-type]


def two(root: Path, count: int = 10, parts: tuple[str, ...] = ("train/", "test/")) -> Path:
    """rgb and depth of some scenes."""
    for part in parts:
        for i in range(count):
            picture(root / f"{part}rgb/{i:02}.png", i + 100 * len(part))
            picture(root / f"{part}depth/{i:02}.png", i + 50 + 100 * len(part), "L")
    return root


# --- ordinary runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "first"),
    [
        (["rgb/1.jpg", "rgb/2.jpg", "depth/1.png", "depth/2.png", "labels40/1.png", "labels40/2.png"], "rgb"),
        (["train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg", "test/masks/b.png"], "images"),
        (["set/train/depth_16/x/a.png", "set/train/color/x/a.png"], "color"),
        ([f"masks/{i}.png" for i in range(10)] + [f"img/{i}.jpg" for i in range(30)], "img"),  # some have no mask
        ([f"rgb/{i}.jpg" for i in range(20)] + [f"depth/{i}.png" for i in range(1, 21)], "rgb"),  # one astray
    ],
)
def test_several_pictures_of_each_scene_are_no_source_by_themselves(names: list[str], first: str) -> None:
    with pytest.raises(DataError, match=f"several pictures of each scene.*data.sensors=\\[{first}\\]"):
        check_one_kind((name.encode() for name in names), "/data")


@pytest.mark.parametrize(
    "names",
    [
        [f"train/{c}/{i:04}.jpg" for c in ("airplane", "cat") for i in range(9)],  # CIFAR-10 as a folder
        [f"{c}/{i:04}.jpg" for c in ("normal", "pneumonia", "edge_case") for i in range(9)],
        [f"images/{c}/{i}.jpg" for c in ("cat", "dog") for i in range(9)],
        [f"cam{c}/{i}.jpg" for c in (0, 1) for i in range(9)],
        ["images/1.jpg", "images/2.jpg", "masks/3.jpg", "masks/4.jpg"],  # other scenes
        ["images/1.jpg", "test_images/1.jpg"],
        [f"images/{i}.jpg" for i in range(10)] + [f"masks/{i}.png" for i in range(5, 15)],  # half of them
        ["rgb/1.jpg", "1.jpg"],
        [],
    ],
)
def test_classes_and_folders_of_other_names_are_never_taken_for_sensors(names: list[str]) -> None:
    check_one_kind((name.encode() for name in names), "/data")


def test_a_run_on_such_a_folder_is_told_what_to_type(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu")
    with pytest.raises(DataError, match=r"test/rgb, test/depth; say which.*--set data\.sensors=\[rgb,depth\]"):
        opened(source)
    for kind in ("zip", "tar.gz"):
        archive = tmp_path / f"a.{kind}"
        pack(source, archive)
        with pytest.raises(DataError, match=r"--set data\.sensors=\[rgb\]"):
            opened(archive)
    data = opened(source / "train" / "rgb")
    assert len(data.train) + len(data.test) == 10


def pack(source: Path, archive: Path) -> None:
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, str(path.relative_to(source)))
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as tar:
            for path in files:
                tar.add(path, str(path.relative_to(source)))


# --- scenes -----------------------------------------------------------------------------------------------------------


def test_one_of_the_folders_is_read_where_it_is_named(tmp_path: Path) -> None:
    data = opened(two(tmp_path / "nyu"), ("rgb",))
    assert (len(data.train), len(data.test), data.train[0].shape) == (10, 10, (12, 16, 3))
    assert data.train.name(3) == "train/03"
    assert "images in folders that data.sensors does not name, not read: 20" in data.notes


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "list"])
def test_files_of_a_scene_are_found_wherever_they_are_kept(tmp_path: Path, kind: str) -> None:
    source = two(tmp_path / "nyu")
    place = source
    if kind == "list":
        place = source / "all.txt"
        place.write_text("\n".join(str(path.relative_to(source)) for path in source.rglob("*.png")))
    elif kind != "folder":
        place = tmp_path / f"nyu.{kind}"
        pack(source, place)
    data = opened(place, ("rgb", "depth"))
    for images, part in ((data.train, "train"), (data.test, "test")):
        for i in range(10):
            rgb, depth = (np.asarray(Image.open(source / part / name / f"{i:02}.png")) for name in ("rgb", "depth"))
            assert (images[i] == np.dstack([rgb, depth])).all()
    assert data.split_rule == "folders train/ and test/"
    assert data.fingerprint == opened(source, ("rgb", "depth")).fingerprint


def test_order_and_choice_of_sensors_are_another_store(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu")
    one, other = opened(source, ("rgb", "depth")), opened(source, ("depth", "rgb"))
    assert (one.train[0][..., :3] == other.train[0][..., 1:]).all()
    assert one.fingerprint != other.fingerprint


def test_a_compressed_tar_can_not_be_read_together(tmp_path: Path) -> None:
    pack(two(tmp_path / "nyu"), tmp_path / "nyu.tar.gz")
    with pytest.raises(ConfigError, match=r"unpack it, or make a \.zip"):
        opened(tmp_path / "nyu.tar.gz", ("rgb", "depth"))


def test_a_scene_that_lacks_a_view_is_a_bad_file_and_says_which(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu", 30)
    (source / "train/depth/04.png").unlink()
    (source / "test/rgb/07.png").unlink()
    picture(source / "train/rgb/09.jpg", 3)
    with closing(list_source(str(source))) as listing:
        left = Beside(listing, ["rgb", "depth"]).left_out
    assert left is not None
    assert [(bad.path, bad.reason) for bad in left.bad] == [
        ("test/07", "no rgb"),
        ("train/04", "no depth"),
        ("train/09", "train/rgb/09.jpg and train/rgb/09.png are of one scene; keep one"),
    ]
    data = opened(source, ("rgb", "depth"))
    assert (len(data.train), len(data.test), len(data.bad)) == (28, 29, 3)
    with pytest.raises(BadFilesError, match=r"5.0 % where data.max_bad_fraction allows 1 %"):
        opened(source, ("rgb", "depth"), max_bad_fraction=0.01)


def test_a_view_of_a_part_that_is_not_used_is_not_missed(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu")
    picture(source / "val/rgb/00.png", 1)
    assert opened(source, ("rgb", "depth")).bad == ()


def test_a_folder_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu")
    with pytest.raises(MissingInputError, match=r"no image in a folder normals .*depth, rgb, test, train"):
        opened(source, ("rgb", "normals"))


def test_classes_may_stand_above_or_below_the_sensors(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(6):
            picture(tmp_path / f"below/rgb/{name}/{i}.png", i)
            picture(tmp_path / f"below/depth/{name}/{i}.png", i, "L")
            picture(tmp_path / f"above/{name}/rgb/{i}.png", i)
            picture(tmp_path / f"above/{name}/depth/{i}.png", i, "L")
    for where in ("below", "above"):
        data = opened(tmp_path / where, ("rgb", "depth"))
        assert data.classes == ("a", "b")
        assert data.train.name(0).count("/") == 1


def test_bytes_of_several_files_come_back() -> None:
    files = [(b"abc", b".jpg"), (b"", b".png"), (b"x" * 300, b"")]
    assert unframed(framed(files)) == files


def test_a_look_at_such_a_source_sees_scenes(tmp_path: Path) -> None:
    source = two(tmp_path / "nyu")
    (source / "train/depth/04.png").unlink()
    deep = np.arange(12 * 16, dtype=np.uint16).reshape(12, 16) * 300
    for path in source.rglob("depth/*.png"):
        Image.fromarray(deep).save(path)
    seen = probe(str(source), DataConfig(source=str(source), sensors=("rgb", "depth")))
    assert (seen.images, seen.train, seen.channels, seen.deep, seen.short) == (19, 10, 4, 1.0, 12)
