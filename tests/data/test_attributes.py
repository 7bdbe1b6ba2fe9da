"""What is known of samples beside their class: by a pattern over their names, from a table, and all that goes wrong."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.attributes import check_pattern, read_attributes

SPEECH = r"(?P<digit>\d)_(?P<speaker>\w+)_"


class Named:
    """A split of which only the names are asked."""

    labels = None

    def __init__(self, *names: str) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> NDArray[np.int16]:
        raise AssertionError("read")

    def take(self, index: NDArray[np.int64]) -> list[NDArray[np.int16]]:
        raise AssertionError("read")

    def name(self, index: int) -> str:
        return self.names[index]


TRAIN = Named("train/7/7_jackson_32.wav", "train/0/0_theo_1.wav", "train/7/7_theo_8.wav")
TEST = Named("test/7/7_jackson_0.wav", "test/0/0_theo_0.wav")


def table(folder: Path, text: str | bytes) -> str:
    (folder / "table.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return str(folder / "table.csv")


def test_named_groups_become_attributes_of_both_splits() -> None:
    found, notes = read_attributes(TRAIN, TEST, SPEECH)
    assert notes == ()
    assert list(found) == ["digit", "speaker"]
    assert found["digit"].classes == ("0", "7")
    assert (found["digit"].train.tolist(), found["digit"].test.tolist()) == ([1, 0, 1], [1, 0])
    assert found["speaker"].classes == ("jackson", "theo")
    assert (found["speaker"].train.tolist(), found["speaker"].test.tolist()) == ([0, 1, 1], [0, 1])
    assert found["speaker"].train.dtype == np.int64


def test_a_folder_can_say_it_too() -> None:
    found, _ = read_attributes(Named("84/121/a.flac", "174/50/b.flac"), Named("84/9/c.flac"), r"^(?P<speaker>\d+)/")
    assert found["speaker"].classes == ("174", "84")
    assert found["speaker"].train.tolist() == [1, 0]


def test_nothing_asked_is_nothing_found() -> None:
    assert read_attributes(TRAIN, TEST) == ({}, ())


def test_names_that_are_no_text_keep_their_bytes() -> None:
    found, _ = read_attributes(Named(r"\xff_1.wav", "a_1.wav"), Named("a_2.wav"), r"(?P<who>[^/]+)_")
    assert found["who"].classes == ("a", r"\xff")


def test_a_pattern_that_does_not_fit_names_the_first_file() -> None:
    with pytest.raises(DataError, match=r"does not fit 1 of 3 files \(first: b\.wav\)") as error:
        read_attributes(Named("7_theo_1.wav", "b.wav"), Named("7_x_1.wav"), SPEECH)
    assert "searched in the path below the source" in str(error.value)
    with pytest.raises(DataError, match="does not fit 1 of 2 files"):  # a group that took no part says nothing
        read_attributes(Named("a1.wav", "a.wav"), Named(), r"a(?P<number>\d)?")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        (r"(?P<digit>\d", "is no regular expression"),
        (r"(\d)_(\w+)", "has no group with a name"),
        (r"(?P<1x>\d)", "is no regular expression"),
        (r"\d{99999999999}", "is no regular expression"),
    ],
)
def test_what_is_no_pattern_says_what_one_is(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        check_pattern(pattern)
    assert "(?P<speaker>" in str(error.value)


def test_an_attribute_that_all_share_is_left_out_and_said_to_be() -> None:
    found, notes = read_attributes(Named("7_theo_1", "7_jackson_2"), Named("7_theo_3"), SPEECH)
    assert list(found) == ["speaker"]
    assert notes == ("digit is left out: all samples have the same, 7",)


def test_what_only_the_test_has_is_told() -> None:
    found, notes = read_attributes(Named("7_theo_1", "8_jackson_2"), Named("7_lucas_3"), SPEECH)
    assert found["speaker"].classes == ("jackson", "lucas", "theo")
    assert notes == ("speaker: 1 of 3 are only in the test part (first: lucas), which no probe can learn",)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_says_it_by_path_or_by_name(tmp_path: Path) -> None:
    text = (
        "\ufeffspeaker,file,age\nJ,7_jackson_32.wav,30\nT,train/0/0_theo_1.wav,20\nT,7_theo_8.wav,20\n"
        'J,7_jackson_0.wav,30\n"T",test/0/0_theo_0.wav,20\n'
    )
    found, notes = read_attributes(TRAIN, TEST, table=table(tmp_path, text))
    assert notes == ()
    assert list(found) == ["speaker", "age"]
    assert found["speaker"].classes == ("J", "T")
    assert (found["speaker"].train.tolist(), found["speaker"].test.tolist()) == ([0, 1, 1], [0, 1])
    assert found["age"].train.tolist() == [1, 0, 0]


def test_a_path_stands_above_a_name(tmp_path: Path) -> None:
    place = table(tmp_path, "file,who\na.wav,top\nx/a.wav,below\n")
    found, _ = read_attributes(Named("a.wav"), Named("x/a.wav"), table=place)
    assert [found["who"].classes[i] for i in (*found["who"].train, *found["who"].test)] == ["top", "below"]


def test_a_pattern_and_a_table_together(tmp_path: Path) -> None:
    place = table(tmp_path, "file,age\n7_theo_1.wav,3\n8_x_2.wav,4\n7_x_3.wav,4\n")
    splits = Named("7_theo_1.wav", "8_x_2.wav"), Named("7_x_3.wav")
    assert list(read_attributes(*splits, SPEECH, place)[0]) == ["digit", "speaker", "age"]
    place = table(tmp_path, "file,speaker\n7_theo_1.wav,3\n8_x_2.wav,4\n7_x_3.wav,4\n")
    with pytest.raises(ConfigError, match=r"data\.pattern and data\.table both say speaker"):
        read_attributes(*splits, SPEECH, place)


def test_rows_that_name_no_file_are_told(tmp_path: Path) -> None:
    place = table(tmp_path, "file,who\na.wav,1\nb.wav,2\nc.wav,3\n")
    _, notes = read_attributes(Named("a.wav", "b.wav"), Named("b.wav"), table=place)
    assert notes == (f"{place}: 1 of 3 rows name no file that is used (first: c.wav)",)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,who\na.wav,1\n", r"has no row for 1 of 2 files \(first: b\.wav\)"),
        ("file,who\na.wav,1\nb.wav,\n", "line 3: no who; every file needs every attribute"),
        ("file,who\na.wav,1\nb.wav\n", "line 3: 1 fields, the first line has 2"),
        ("file,who\na.wav,1\na.wav,2\n", "line 3: a.wav has a row already"),
        ("name,who\na.wav,1\n", "begins with name, who; needed are a column 'file'"),
        ("file\na.wav\n", "begins with file; needed are a column 'file' and one for each attribute"),
        ("", "begins with nothing; needed are a column 'file'"),
        ("file,my name\na.wav,1\n", "has a column 'my name'; a name is letters, digits and _"),
        ("file,who,who\na.wav,1,1\n", "has a column 'who'"),
        ("file,file\na.wav,1\n", "needed are a column 'file'"),
        (f"file,who\na.wav,{'x' * 200_000}\n", "line 2: field larger than field limit"),
    ],
)
def test_a_table_that_is_wrong_says_where(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_attributes(Named("a.wav"), Named("b.wav"), table=table(tmp_path, text))


def test_a_name_that_several_files_have_needs_their_paths(tmp_path: Path) -> None:
    place = table(tmp_path, "file,who\na.wav,1\n")
    with pytest.raises(DataError, match=r"2 files are called a\.wav, so their paths are needed"):
        read_attributes(Named("x/a.wav"), Named("y/a.wav"), table=place)


def test_a_table_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"data\.table: .*nothing\.csv can't be read"):
        read_attributes(TRAIN, TEST, table=str(tmp_path / "nothing.csv"))
    with pytest.raises(MissingInputError, match=r"data\.table: .* can't be read \(is a directory\)"):
        read_attributes(TRAIN, TEST, table=str(tmp_path))
