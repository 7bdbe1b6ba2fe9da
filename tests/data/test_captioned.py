"""Images with captions from tables, shards and scenes: which belong together, what is left out and named, bad use."""

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.captioned import (
    CAPTION,
    IMAGE,
    CaptionedDataConfig,
    CaptionedImages,
    Part,
    distinct_images,
    has_captions,
    images_of,
    open_captioned,
    texts_of,
)
from stopgrad.data.folder import BadFilesError
from stopgrad.data.loader import Subset
from stopgrad.data.sources import Data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))


def picture(value: int, size: tuple[int, int] = (12, 10)) -> bytes:
    """A PNG of one gray value, 12 pixels wide."""
    out = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), value, np.uint8)).save(out, "PNG")
    return out.getvalue()


def table(folder: Path, rows: list[dict[str, Any]], name: str = "captions.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


def pictures(folder: Path, count: int, begin: int = 0) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for i in range(begin, begin + count):
        (folder / "images" / f"{i}.png").write_bytes(picture(i))


def rows(count: int, begin: int = 0) -> list[dict[str, Any]]:
    return [
        {"file": f"images/{i}.png", "caption": f"a thing of shade {i}, é", "kind": ("dark", "light")[i % 2]}
        for i in range(begin, begin + count)
    ]


def opened(source: Path | str, **settings: Any) -> Data:
    return open_captioned(CaptionedDataConfig(source=str(source), **settings), 8)


def said(data: Data, split: str = "train") -> dict[str, list[str]]:
    """{name: captions}; every image has the gray value of its caption."""
    part = getattr(data, split)
    found: dict[str, list[str]] = {}
    for i in range(len(part)):
        image, caption = part[i]
        text = caption.tobytes().decode()
        if "shade" in text:
            assert f"shade {image[0, 0, 0]}" in text
        found.setdefault(part.name(i), []).append(text)
    return found


@pytest.mark.parametrize("name", ["captions.csv", "captions.tsv", "captions.jsonl"])
def test_rows_of_a_table_are_pairs(tmp_path: Path, name: str) -> None:
    pictures(tmp_path, 10)
    path = table(tmp_path, rows(10), name)
    for source in (path, tmp_path):
        data = opened(source)
        both = {**said(data), **said(data, "test")}
        assert both == {f"images/{i}.png": [f"a thing of shade {i}, é"] for i in range(10)}
        assert data.split_rule == "80/20 by content hash"
        assert data.train.labels is None
        assert data.classes == ()
        assert not data.bad


def test_train_and_test_have_a_table_each_and_a_column_has_the_classes(tmp_path: Path) -> None:
    for part, count, begin in (("train", 8, 0), ("test", 4, 8)):
        pictures(tmp_path / part, count, begin)
        table(tmp_path / part, rows(count, begin))
    data = opened(tmp_path, label="kind")
    assert said(data) == {f"train/images/{i}.png": [f"a thing of shade {i}, é"] for i in range(8)}
    assert said(data, "test") == {f"test/images/{i}.png": [f"a thing of shade {i}, é"] for i in range(8, 12)}
    assert data.classes == ("dark", "light")
    for part in (data.train, data.test):
        assert part.labels is not None
        shades = [int(part[i][IMAGE][0, 0, 0]) for i in range(len(part))]
        assert part.labels.tolist() == [shade % 2 for shade in shades]


def test_an_image_may_have_several_captions_and_each_is_a_sample(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    more = [{**row, "caption": f"{row['caption']} again"} for row in rows(10)[:5]]
    data = opened(table(tmp_path, [*rows(10), *more]), label="kind")
    for split in (data.train, data.test):
        assert split.labels is not None
        assert split.labels.tolist() == [int(split[i][IMAGE][0, 0, 0]) % 2 for i in range(len(split))]
    assert isinstance(data.train, CaptionedImages)
    assert len(data.train) + len(data.test) == 15
    assert len(distinct_images(data).train) + len(distinct_images(data).test) == 10
    both = {**said(data), **said(data, "test")}
    assert both["images/3.png"] == ["a thing of shade 3, é", "a thing of shade 3, é again"]
    assert any("each is a sample" in note for note in data.notes)


def test_paths_begin_at_the_table_or_where_the_settings_say(tmp_path: Path) -> None:
    pictures(tmp_path / "elsewhere", 6)
    path = table(tmp_path / "tables", rows(6))
    with pytest.raises(BadFilesError, match=r"images/0\.png: no such file"):
        opened(path)
    data = opened(path, root=str(tmp_path / "elsewhere"))
    assert len(data.train) + len(data.test) == 6


def test_columns_are_found_by_their_names_or_named(tmp_path: Path) -> None:
    pictures(tmp_path, 6)
    renamed = [{"img": row["file"], "description": row["caption"], "n": "1"} for row in rows(6)]
    assert sum(map(len, said(opened(table(tmp_path, renamed))).values())) > 0  # the only column of sentences
    strange = [{"where": row["file"], "words": row["caption"], "more": row["caption"] + "!"} for row in rows(6)]
    path = table(tmp_path, strange, "other.csv")
    with pytest.raises(DataError, match=r"--set data\.column=words"):
        opened(path)
    with pytest.raises(DataError, match=r"no column of paths \(looked for file, path.*--set data\.file=NAME"):
        opened(path, column="words")
    with pytest.raises(DataError, match=r"data\.file=wher: .*did you mean 'where'\?"):
        opened(path, column="words", file="wher")
    assert len(opened(path, column="words", file="where").train) > 0


def test_what_is_no_pair_is_named_and_left_out(tmp_path: Path) -> None:
    pictures(tmp_path, 12)
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    (tmp_path / "images" / "4.png").unlink()
    made = rows(12)
    made[5]["caption"] = "   "
    made[6]["file"] = ""
    made[7]["caption"] = "x" * 10_001
    data = opened(table(tmp_path, made), max_bad_fraction=0.5)
    assert {item.path: item.reason.partition(" (")[0] for item in data.bad} == {
        "captions.csv:7": "empty caption",
        "captions.csv:8": "no path in the column file",
        "captions.csv:9": "caption of 10,001 characters, at most 10,000 are read",
        "images/3.png": "not an image",
        "images/4.png": "no such file",
    }
    assert {**said(data), **said(data, "test")}.keys() == {f"images/{i}.png" for i in (0, 1, 2, 8, 9, 10, 11)}
    with pytest.raises(
        BadFilesError, match=r"3 of 12 are no image with a caption, 25\.0 %.*max_bad_fraction=0\.25"
    ) as e:
        opened(tmp_path / "captions.csv")
    assert len(e.value.bad) == 3


def test_captions_that_are_all_empty_leave_nothing(tmp_path: Path) -> None:
    pictures(tmp_path, 3)
    path = table(tmp_path, [{**row, "caption": ""} for row in rows(3)])
    with pytest.raises(
        DataError, match=r"no row .* has an image and a caption \(first: captions\.csv:2: empty caption"
    ):
        opened(path, column="caption", max_bad_fraction=1.0)


@pytest.mark.parametrize("test", ["test", "val"])  # before and behind train, by the alphabet
def test_an_image_of_both_parts_is_for_the_test_alone(tmp_path: Path, test: str) -> None:
    pictures(tmp_path, 8)
    for part, chosen in (("train", rows(8)), (test, rows(2))):
        table(tmp_path / part, [{**row, "file": f"../{row['file']}"} for row in chosen])
    data = opened(tmp_path)
    assert len(said(data)) == 6
    assert said(data, "test") == {f"images/{i}.png": [f"a thing of shade {i}, é"] * 2 for i in range(2)}
    assert any("2 rows name an image that both parts have" in note for note in data.notes)


def test_captions_that_several_images_have_are_told(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    data = opened(table(tmp_path, [{**row, "caption": "the same"} for row in rows(10)]), column="caption")
    assert any("are those of another image too" in note for note in data.notes)


def test_the_fingerprint_follows_the_captions_and_not_the_place(tmp_path: Path) -> None:
    prints = []
    for name, change in (("a", ""), ("b", ""), ("c", "!")):
        pictures(tmp_path / name, 6)
        made = rows(6)
        made[2]["caption"] += change
        prints.append(opened(table(tmp_path / name, made)).fingerprint)
    assert prints[0] == prints[1] != prints[2]


def test_a_limit_takes_whole_images(tmp_path: Path) -> None:
    pictures(tmp_path, 20)
    data = opened(table(tmp_path, [*rows(20), *rows(20)]), limit=5)
    assert len(distinct_images(data).train) == 5
    assert len(data.train) == 10


def test_parts_of_pairs_are_splits_of_their_own(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    data = opened(table(tmp_path, rows(10)), label="kind")
    some = Subset(data.train, np.array([2, 0]))
    assert [pair[CAPTION].tobytes() for pair in some.take(np.arange(2))] == [
        data.train[i][CAPTION].tobytes() for i in (2, 0)
    ]
    images, texts = Part(some, IMAGE), Part(some, CAPTION)
    assert images[1].shape == (10, 12, 3)
    assert texts[1].dtype == np.uint8
    assert images.labels is not None
    assert data.train.labels is not None
    assert images.labels.tolist() == data.train.labels[[2, 0]].tolist()
    assert images.name(0) == data.train.name(2)
    assert len(images_of(data).train) == len(texts_of(data).train) == len(data.train)


# --- shards -----------------------------------------------------------------------------------------------------------


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def members(count: int, begin: int = 0) -> dict[str, bytes]:
    """Half of the captions in .txt, half in .json; a class each."""
    out = {}
    for i in range(begin, begin + count):
        text = f"a thing of shade {i}"
        out[f"{i:04}.png"] = picture(i)
        out |= {f"{i:04}.json": json.dumps({"caption": text}).encode()} if i % 2 else {f"{i:04}.txt": text.encode()}
        out[f"{i:04}.cls"] = str(i % 3).encode()
    return out


def test_members_of_shards_belong_together_by_their_names(tmp_path: Path) -> None:
    for number in range(2):
        shard(tmp_path / f"shard-{number}.tar", members(6, 6 * number))
    data = opened(tmp_path)
    both = {**said(data), **said(data, "test")}
    assert both == {f"shard-{i // 6}.tar/{i:04}.png": [f"a thing of shade {i}"] for i in range(12)}
    assert data.classes == ("0", "1", "2")
    assert data.train.labels is not None
    one = opened(shard(tmp_path / "one" / "alone.tar", members(6)))
    assert len(one.train) + len(one.test) == 6


def test_folders_of_shards_are_the_parts(tmp_path: Path) -> None:
    shard(tmp_path / "train" / "a.tar", members(6))
    shard(tmp_path / "val" / "a.tar", members(3, 6))
    shard(tmp_path / "more" / "a.tar", members(3, 9))
    data = opened(tmp_path)
    assert any("tars outside folders train/ and val/ are not used: 1" in note for note in data.notes)
    assert (len(data.train), len(data.test)) == (6, 3)
    assert data.split_rule == "folders train/ and val/"


def test_members_without_the_other_half_are_named_and_left_out(tmp_path: Path) -> None:
    made = members(10)
    del made["0002.txt"], made["0004.png"]
    made["0006.txt"] = b" \n"
    made["0007.json"] = b"{not json"
    data = opened(shard(tmp_path / "a.tar", made), max_bad_fraction=0.5)
    assert {item.path: item.reason for item in data.bad} == {
        "a.tar/0002.png": "no caption: no .txt and no .json of this name",
        "a.tar/0004": "no image of this name",
        "a.tar/0006.png": "empty caption",
        "a.tar/0007.png": "empty caption",
    }
    assert len(data.train) + len(data.test) == 6


def test_a_compressed_shard_is_refused_with_what_to_type(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match=r"a\.tar\.gz is compressed.*unpack it to a plain tar: gunzip"):
        opened(tmp_path / "a.tar.gz")


def test_shards_without_captions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image with a caption in .*first: a\.tar/1\.png: no caption.*KEY\.txt"):
        opened(shard(tmp_path / "a.tar", {"1.png": picture(1)}))


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_scenes_come_with_their_captions() -> None:
    data = opened("scenes", limit=20)
    assert data.synthetic
    assert (len(data.train), len(data.test)) == (20, 4)
    assert data.train.labels is not None
    for i in range(20):
        image, caption = data.train[i]
        assert image.shape == (32, 32, 3)
        assert f" {data.classes[int(data.train.labels[i])]} " in f" {caption.tobytes().decode()} "


def test_sources_that_can_have_captions_are_told_from_others(tmp_path: Path) -> None:
    pictures(tmp_path / "plain", 2)
    shard(tmp_path / "shards" / "a.tar", members(2))
    path = table(tmp_path / "table", rows(2))
    assert not has_captions(str(tmp_path / "plain"))
    assert all(map(has_captions, ("scenes", str(path), str(path.parent), str(tmp_path / "shards"))))


def test_a_source_that_is_not_there_or_has_no_captions_says_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        opened(tmp_path / "nowhere.csv")
    pictures(tmp_path, 2)
    with pytest.raises(MissingInputError, match=r"no captions in .*; needed is a captions\.csv \(file,caption\)"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": ""}, r"data\.source: empty; needed is a table of paths and captions"),
        ({"kind": "image"}, r"data\.kind: must be captioned"),
        ({"max_bad_fraction": 2.0}, r"data\.max_bad_fraction"),
        ({"channels": 0}, r"data\.channels"),
    ],
    ids=str,
)
def test_settings_that_can_not_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CaptionedDataConfig(**settings)
