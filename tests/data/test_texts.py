"""Texts of tables, folders of them and the scenes: columns, labels, attributes, bad rows, splits, encodings."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data import BadFilesError, Data
from stopgrad.data.texts import TextDataConfig, is_text, open_texts
from stopgrad.media.texts import strings
from tests.conftest import REAL_DATA

WORDS = ["red", "green", "blue", "old", "new", "long", "short", "warm", "cold"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def sentence(i: int) -> str:
    return f"a {WORDS[i % 9]} {WORDS[i // 9 % 9]} thing number {i}"


def write(path: Path, rows: list[dict[str, Any]], **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        writer = csv.DictWriter(file, list(rows[0]), **how)
        writer.writeheader()
        writer.writerows(rows)
    return path


def rows(count: int, begin: int = 0, **columns: Any) -> list[dict[str, Any]]:
    return [
        {"file": f"{i}.jpg", "caption": sentence(i), **{name: value(i) for name, value in columns.items()}}
        for i in range(begin, begin + count)
    ]


def opened(source: Path | str, **settings: Any) -> Data:
    return open_texts(TextDataConfig(source=str(source), **settings))


def every(data: Data) -> list[str]:
    return sorted(strings(data.train) + strings(data.test))


def test_a_table_is_read_and_divided_by_content(tmp_path: Path) -> None:
    data = opened(write(tmp_path / "captions.csv", rows(100)))
    assert every(data) == sorted(map(sentence, range(100)))
    assert len(data.test) == pytest.approx(20, abs=10)
    assert data.split_rule == "80/20 by content hash"
    assert (data.name, data.classes, data.train.labels) == ("captions.csv", (), None)
    assert data.train[0].dtype == np.uint8
    assert data.train.name(0).startswith("captions.csv:")
    again = opened(tmp_path / "captions.csv")
    assert again.fingerprint == data.fingerprint
    assert strings(again.train) == strings(data.train)


@pytest.mark.parametrize(
    ("name", "how"), [("t.tsv", {"delimiter": "\t"}), ("t.csv", {"delimiter": ";"}), ("t.csv", {"encoding": "utf-16"})]
)
def test_other_ways_to_write_a_table(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    assert every(opened(write(tmp_path / name, rows(20), **how))) == sorted(map(sentence, range(20)))


def test_lines_of_json_and_of_text(tmp_path: Path) -> None:
    lines = [json.dumps({"id": i, "text": sentence(i), "label": "even" if i % 2 == 0 else "odd"}) for i in range(20)]
    (tmp_path / "t.jsonl").write_text("\n".join(lines) + "\n\n")
    data = opened(tmp_path / "t.jsonl")
    assert every(data) == sorted(map(sentence, range(20)))
    assert data.classes == ("even", "odd")
    (tmp_path / "t.txt").write_text("\ufeff" + "\r\n".join(map(sentence, range(20))) + "\n  \n", encoding="utf-8")
    assert every(opened(tmp_path / "t.txt")) == sorted(map(sentence, range(20)))


def test_train_and_test_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "set/train/captions.csv", rows(30))
    write(tmp_path / "set/test/captions.csv", rows(10, 30))
    (tmp_path / "set/train/1.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "set/readme.txt").write_text("about this set")
    data = opened(tmp_path / "set")
    assert (len(data.train), len(data.test), data.split_rule) == (30, 10, "train and test")
    assert strings(data.test) == [sentence(i) for i in range(30, 40)]
    assert data.ignored == 2
    write(tmp_path / "flat/train.csv", rows(30))
    write(tmp_path / "flat/test.csv", rows(10, 30))
    write(tmp_path / "flat/more.csv", rows(5, 50))
    flat = opened(tmp_path / "flat")
    assert (len(flat.train), len(flat.test)) == (30, 10)
    assert any("tables outside train and test are not used: more.csv" in note for note in flat.notes)


def test_labels_and_attributes(tmp_path: Path) -> None:
    table = rows(60, kind=lambda i: f"k{i % 3}", season=lambda i: ["summer", "winter"][i % 2], empty=lambda i: "")
    path = write(tmp_path / "t.csv", table)
    data = opened(path, label="kind")
    assert data.classes == ("k0", "k1", "k2")
    assert data.train.labels is not None
    for split, part in ((data.train, "train"), (data.test, "test")):
        assert split.labels is not None
        for i, said in enumerate(strings(split)):
            number = int(said.rpartition(" ")[2])
            assert split.labels[i] == number % 3
            assert data.attributes["season"].classes[getattr(data.attributes["season"], part)[i]] == (
                "winter" if number % 2 else "summer"
            )
    assert set(data.attributes) == {"season"}
    assert any("columns that are no attributes: file (60 values), empty (empty cells)" in note for note in data.notes)
    assert set(opened(path).attributes) == {"kind", "season"}


def test_labels_that_are_none(tmp_path: Path) -> None:
    some = write(tmp_path / "t.csv", rows(20, label=lambda i: "" if i == 3 else "x" * (i % 2 + 1)))
    data = opened(some)
    assert (data.classes, data.train.labels) == ((), None)
    assert any("no labels: 1 rows have none in the column label" in note for note in data.notes)


def test_the_column_of_texts_is_found_or_asked_for(tmp_path: Path) -> None:
    one = [{"id": i, "said": sentence(i)} for i in range(20)]
    assert every(opened(write(tmp_path / "one.csv", one))) == sorted(map(sentence, range(20)))
    two = [{"id": i, "said": sentence(i), "heard": sentence(99 - i)} for i in range(20)]
    path = write(tmp_path / "two.csv", two)
    with pytest.raises(DataError, match=r"more than one column of texts .* found said, heard; .*data\.column=said"):
        opened(path)
    assert every(opened(path, column="said")) == sorted(map(sentence, range(20)))
    with pytest.raises(DataError, match=r"data\.column=sayd: .* has no such column; did you mean 'said'"):
        opened(path, column="sayd")
    with pytest.raises(DataError, match=r"data\.label=kind: .* has no such column"):
        opened(path, column="said", label="kind")
    with pytest.raises(DataError, match=r"no column of texts .* found id, n; say which"):
        opened(write(tmp_path / "none.csv", [{"id": i, "n": i} for i in range(5)]))


def test_bad_rows_are_named_and_skipped(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    good = "".join(f"{i}.jpg,{sentence(i)}\n" for i in range(60))
    path.write_bytes(b"file,caption\n" + good.encode() + b"a.jpg,  \nb.jpg\nc.jpg,caf\xe9\nd.jpg," + b"x" * 300 + b"\n")
    data = opened(path, max_characters=200, max_bad_fraction=0.1)
    assert {bad.path: bad.reason for bad in data.bad} == {
        "t.csv:62": "no text in this row",
        "t.csv:63": "1 cell, the first line has 2: quote what has the separator in it",
        "t.csv:64": "not UTF-8; --set data.encoding=latin-1 reads it as another",
        "t.csv:65": "300 characters, more than data.max_characters=200",
    }
    assert len(data.train) + len(data.test) == 60
    with pytest.raises(BadFilesError, match="4 of 64 text rows are bad"):
        opened(path, max_characters=200)
    latin = opened(path, max_characters=400, max_bad_fraction=0.1, encoding="latin-1")
    assert "café" in every(latin)


def test_bad_lines_of_json(tmp_path: Path) -> None:
    lines = [json.dumps({"text": sentence(i)}) for i in range(30)]
    lines += ["{", "[1]", '{"other": 1}', '{"text": ["a"]}', "[" * 100_000]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    data = opened(tmp_path / "t.jsonl", max_bad_fraction=0.5, column="text")
    reasons = [bad.reason.partition(" (")[0] for bad in data.bad]
    assert reasons == ["no JSON", "no JSON object", "no text in this row", "no text in this row", "no JSON"]


def test_quotes_huge_cells_and_formulas_stay_what_they_are(tmp_path: Path) -> None:
    hard = ['=HYPERLINK("x")', 'a "quoted" one', "two\nlines", "a, comma", "<script>alert(1)</script>", "y" * 200_000]
    path = write(tmp_path / "t.csv", [{"file": i, "caption": text} for i, text in enumerate(hard)])
    before = csv.field_size_limit()
    assert every(opened(path, max_characters=300_000)) == sorted(hard)
    assert csv.field_size_limit() == before  # a setting of the whole process


def test_a_quote_that_does_not_end(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('file,caption\n1,good one here\n2,"no end\n3,good two here\n')
    with pytest.raises(DataError, match="the row that begins on line 3 does not end"):
        opened(path)


def test_duplicates_are_told_and_stay_on_one_side(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"caption": sentence(i // 2)} for i in range(60)])
    data = opened(path)
    assert any("30 of 60 texts are duplicates of others" in note for note in data.notes)
    assert not set(strings(data.train)) & set(strings(data.test))


def test_a_limit_takes_training_texts_by_content(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", rows(60))
    few, whole = opened(path, limit=10), opened(path)
    assert len(few.train) == 10
    assert strings(few.test) == strings(whole.test)
    assert set(strings(few.train)) < set(strings(whole.train))


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("t.csv", b"", DataError, "has no first line"),
        ("t.csv", b"caption\n", MissingInputError, "no row in"),
        ("t.csv", b"a,a\n1,2\n", DataError, "has the column 'a' twice"),
        ("t.csv", b"caption\n\0\0\0", DataError, "holds zero bytes"),
        ("t.txt", b"", MissingInputError, "no row in"),
        ("t.xlsx", b"PK", MissingInputError, "is a file of another kind"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, error: type[Exception], said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        opened(tmp_path / name)


def test_sources_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="no such file"):
        opened(tmp_path / "captions.csv")
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(MissingInputError, match=r"no table of texts .* found 1 \.jpg"):
        opened(tmp_path / "images")
    with pytest.raises(ConfigError, match=r"data\.source: empty"):
        opened("")
    write(tmp_path / "bad.csv", rows(3))
    with pytest.raises(DataError, match="can't be read as klingon"):
        opened(tmp_path / "bad.csv", encoding="klingon")


@pytest.mark.parametrize(
    "settings",
    [{"limit": -1}, {"max_characters": 0}, {"max_bad_fraction": 1.5}, {"column": "a", "label": "a"}, {"kind": "image"}],
)
def test_settings_that_can_not_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"data\."):
        TextDataConfig(**settings)


def test_the_captions_of_the_scenes_are_those_of_their_pictures() -> None:
    from stopgrad.data import scenes

    data = opened("scenes", limit=40)
    assert (len(data.train), len(data.test), data.synthetic, data.name) == (40, 8, True, "scenes-v1")
    rendered = scenes.render(scenes.draw(scenes.TRAIN_SEED, np.arange(40)), 32)
    assert strings(data.train) == rendered.caption
    assert data.train.labels is not None
    assert data.train.labels.tolist() == rendered.label.tolist()
    assert data.classes == tuple(scenes.CLASSES)


def test_what_can_only_be_texts() -> None:
    assert [is_text(name) for name in ("a.csv", "b.TSV", "c.jsonl", "d.txt", "e.zip", "folder", "scenes")] == [
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]


@pytest.mark.real_data
def test_a_real_set_of_titles_opens_whole(tmp_path: Path) -> None:
    """fashion_text, 3,682 titles of a shop, from the data sets that stand beside a checkout."""
    archive = REAL_DATA / "fashion_text.tar.gz"
    if not archive.is_file():
        pytest.skip(f"{archive} is not there: this test uses a real data set that is not part of the project")
    shutil.unpack_archive(archive, tmp_path / "fashion_text", filter="data")
    data = opened(tmp_path / "fashion_text", label="articleType")
    assert (len(data.train), len(data.test), len(data.classes), data.bad) == (3077, 605, 30, ())
    assert {"gender", "baseColour", "season", "usage"} <= set(data.attributes)
