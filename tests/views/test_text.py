"""Views of texts: settings, tokens, each thing that is done by a law, and the same view in any batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stopgrad.contracts import Batch, ConfigError, DataError, MissingInputError
from stopgrad.media.texts import MEDIUM
from stopgrad.own_code import digest
from stopgrad.views.synonyms import embedded, read_table
from stopgrad.views.text import TextViewMaker, changed, read_texts
from stopgrad.views.text_config import TextPreprocess, TextViewsConfig, words_in
from stopgrad.views.tokens import Tokens, checksum, tokenizer_of, tokenizer_text, words_of

TEXTS = ["a small red ball", "a large red cube before two things", "the BALL, and the ball"]
WORDS = words_of(TEXTS, 100, 1)
NOTHING = {"synonyms": 0.0, "deletion": 0.0, "swap": 0.0, "shuffle": 0.0, "dropout": 0.0}


def stored(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), np.uint8)


def preprocess(length: int = 12) -> TextPreprocess:
    return TextPreprocess(length=length, tokenizer=tokenizer_of(WORDS))


def maker(length: int = 12, seed: int = 0, **settings: Any) -> TextViewMaker:
    config = TextViewsConfig(length=length, **{**NOTHING, **settings})
    return TextViewMaker(config, preprocess(length), seed, torch.device("cpu"), 1)


def batch(texts: list[str], index: list[int] | None = None, epoch: int = 0) -> Batch:
    return Batch([stored(text) for text in texts], np.array(index or range(len(texts)), np.int64), epoch)


def words_seen(text: str, epoch: int = 0, view: int = 0, **settings: Any) -> list[str]:
    return maker(**settings).texts([text], batch([text], epoch=epoch), view)[0].split()


# --- tokens -----------------------------------------------------------------------------------------------------------


def test_words_are_counted_and_ordered() -> None:
    assert WORDS[:4] == ("ball", "a", "red", "the")  # three, then two each by the alphabet; lower case
    assert "," in WORDS
    assert words_of(TEXTS, 100, 2) == ("ball", "a", "red", "the")
    assert words_of(TEXTS, 6, 1) == WORDS[:2]
    assert words_of(TEXTS, 100, 4) == ()


def test_ids_have_a_start_and_an_end_and_are_filled_up() -> None:
    tokens = Tokens(tokenizer_of(WORDS), 8)
    at = {word: 4 + i for i, word in enumerate(WORDS)}
    assert tokens(["A red zebra"]).tolist() == [[2, at["a"], at["red"], 1, 3, 0, 0, 0]]
    assert tokens(["a a a a a a a a a"]).tolist() == [[2, *[at["a"]] * 6, 3]]  # cut, and it still ends
    assert tokens([""]).tolist() == [[2, 3, 0, 0, 0, 0, 0, 0]]
    assert tokens.size == 4 + len(WORDS)
    assert tokens.text(tokens(["A red zebra"])[0].tolist()) == "a red [UNK]"
    assert (tokens.unknown, tokens.start_and_end) == (1, (2, 3))


def test_the_same_words_are_the_same_tokenizer_and_come_out_of_it() -> None:
    assert tokenizer_of(WORDS) == tokenizer_of(WORDS)
    assert tuple(words_in(tokenizer_of(WORDS)) or ()) == WORDS
    assert preprocess().as_settings() == ("views.length=12", f"views.words={json.dumps(list(WORDS))}")


def own_tokenizer(pad: str | None = "<pad>") -> Any:
    """Byte pairs of somebody else's, whose padding token is not 0."""
    import tokenizers

    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = ["<s>", "<unk>", *([pad] if pad else []), "</s>"]
    trainer = tokenizers.trainers.BpeTrainer(special_tokens=special, vocab_size=60, show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    ids = [made.token_to_id(name) for name in ("<s>", "</s>")]
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=list(zip(("<s>", "</s>"), ids))
    )
    return made


def test_another_tokenizers_padding_changes_places_with_0(tmp_path: Path) -> None:
    made = own_tokenizer()
    made.save(str(tmp_path / "tokenizer.json"))
    theirs = made.encode("a red ball").ids
    config = TextViewsConfig(tokenizer=str(tmp_path / "tokenizer.json"))
    mine = Tokens(tokenizer_text(config), 20)
    pad = made.token_to_id("<pad>")
    assert pad == 2
    expected = [{0: pad, pad: 0}.get(i, i) for i in theirs]
    assert mine(["a red ball"])[0].tolist() == expected + [0] * (20 - len(theirs))
    assert mine.unknown == 1
    assert mine.text(mine(["a red ball"])[0].tolist()).replace(" ", "") == "aredball"
    assert words_in(made.to_str()) is None


def test_a_tokenizer_that_can_not_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no padding token"):
        Tokens(own_tokenizer(pad=None).to_str(), 8)
    with pytest.raises(ConfigError, match=r"no tokenizer\.json that tokenizers can read"):
        Tokens('{"model": 3}', 8)
    (tmp_path / "t.json").write_text("not JSON")
    with pytest.raises(ConfigError, match=r"is no tokenizer\.json"):
        tokenizer_text(TextViewsConfig(tokenizer=str(tmp_path / "t.json")))
    with pytest.raises(MissingInputError, match="no such file"):
        tokenizer_text(TextViewsConfig(tokenizer=str(tmp_path / "gone.json")))
    with pytest.raises(ConfigError, match=r"views\.words: none yet"):
        tokenizer_text(TextViewsConfig())


def test_a_tokenizer_that_has_changed_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer_of(WORDS))
    config = TextViewsConfig(tokenizer=str(path), tokenizer_sha256=checksum(path))
    assert tokenizer_text(config) == tokenizer_of(WORDS)
    path.write_text(tokenizer_of(WORDS[:3]))
    changed_config = TextViewsConfig(tokenizer=str(path), tokenizer_sha256="0" * 64)
    with pytest.raises(ConfigError, match="is not the file this recipe was made with"):
        tokenizer_text(changed_config)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"length": 2}, r"views\.length must be 3 to 4,096, got 2"),
        ({"views": 0}, r"views\.views must be 1 to 64"),
        ({"synonyms": 1.5}, r"views\.synonyms must be a probability"),
        ({"deletion": -0.1}, r"views\.deletion must be a probability"),
        ({"dropout": float("nan")}, r"views\.dropout must be a probability"),
        ({"function": "my_views"}, r"views\.function must be FILE\.py:FUNCTION"),
        ({"table": "words.xlsx"}, r"views\.table must be a \.csv or \.json"),
        ({"words": ("a",), "tokenizer": "t.json"}, "leave one of them out"),
        ({"words": ("a", "a")}, "different words"),
        ({"vocabulary": 4}, r"views\.vocabulary must be 8"),
        ({"min_count": 0}, r"views\.min_count must be 1"),
    ],
)
def test_settings_that_can_not_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TextViewsConfig(**settings)


def test_a_preprocessing_comes_back_and_a_strangers_is_checked() -> None:
    own = preprocess()
    assert TextPreprocess.from_dict(json.loads(json.dumps(own.as_dict()))) == own
    for wrong, said in (
        ({"length": 10**9}, "length must be"),
        ({"length": True}, "length must be"),
        ({"tokenizer": "[]"}, r"must be the text of a tokenizer\.json"),
        ({"tokenizer": 3}, r"must be the text of a tokenizer\.json"),
        ({"kind": "image"}, "kind must be text"),
        ({"code": "x"}, "'code' is unknown"),
    ):
        with pytest.raises(ConfigError, match=said):
            TextPreprocess.from_dict({**own.as_dict(), **wrong})


# --- what is done -----------------------------------------------------------------------------------------------------

LONG = "one two three four five six seven eight nine ten " * 40


def test_nothing_is_done_where_nothing_is_asked_for() -> None:
    assert words_seen(LONG) == LONG.split()
    ids = maker()(batch(TEXTS)).crops
    clean = read_texts([stored(text) for text in TEXTS], preprocess())
    assert len(ids) == 2
    assert all(torch.equal(view, clean) for view in ids)
    assert clean.dtype == torch.int64
    assert clean.shape == (3, 12)


def test_words_are_left_out_as_often_as_asked() -> None:
    kept = words_seen(LONG, deletion=0.3)
    assert len(kept) == pytest.approx(0.7 * 400, abs=40)
    rest = iter(LONG.split())
    assert all(word in rest for word in kept)  # in their order
    assert len(words_seen("one two three", deletion=1.0)) == 1


def test_words_are_exchanged_and_none_is_lost() -> None:
    found = words_seen(LONG, swap=0.2)
    assert sorted(found) == sorted(LONG.split())
    moved = sum(a != b for a, b in zip(found, LONG.split()))
    assert 60 < moved < 200  # each exchange moves two, a tenth of them to the same word


def test_the_order_is_shuffled_as_often_as_asked() -> None:
    text = " ".join(f"w{i}" for i in range(30))
    views = [words_seen(text, epoch=epoch, shuffle=0.5) for epoch in range(60)]
    assert all(sorted(view) == sorted(text.split()) for view in views)
    assert 15 < sum(view == text.split() for view in views) < 45
    assert len({tuple(view) for view in views}) > 15


def test_synonyms_stand_for_words_of_the_table_alone() -> None:
    text = "a photo of a striped thing " * 50
    found = words_seen(text, synonyms=0.5)
    table = embedded()
    assert sum(word == "striped" for word in found) == pytest.approx(25, abs=14)
    allowed = {"a", "of", *(w for key in ("photo", "striped", "thing") for o in (key, *table[key]) for w in o.split())}
    assert set(found) <= allowed
    assert len(set(found) & set(table["photo"])) == len(table["photo"])  # each of them is used
    assert words_seen("a photo", synonyms=1.0)[1] in table["photo"]


def test_tokens_become_unknown_but_for_start_and_end() -> None:
    ids = maker(length=402, dropout=0.25)(batch([LONG.replace("one", "red").replace("two", "ball")])).crops[0]
    clean = maker(length=402)(batch([LONG.replace("one", "red").replace("two", "ball")])).crops[0]
    red = clean == 4 + WORDS.index("red")
    assert ids[0, 0] == 2
    assert ids[0, -1] == 3
    assert float((ids[red] == 1).float().mean()) == pytest.approx(0.25, abs=0.2)
    every = maker(length=20, dropout=1.0)(batch(["red ball"])).crops[0]
    assert every[0].tolist() == [2, 1, 1, 3, *[0] * 16]


def test_a_view_depends_on_seed_epoch_index_and_view_alone() -> None:
    law: dict[str, Any] = {"deletion": 0.3, "swap": 0.3, "synonyms": 0.5, "dropout": 0.2, "length": 40}
    text = LONG[:150]
    alone = maker(**law)(batch([text], [7], epoch=2)).crops
    among = maker(**law)(batch(["red", LONG, text], [1, 3, 7], epoch=2)).crops
    assert all(torch.equal(a[0], b[2]) for a, b in zip(alone, among))
    assert not torch.equal(alone[0], alone[1])
    for other in (
        maker(**law)(batch([text], [8], epoch=2)),
        maker(**law)(batch([text], [7], epoch=3)),
        maker(**law, seed=1)(batch([text], [7], epoch=2)),
    ):
        assert not torch.equal(alone[0], other.crops[0])


def test_changed_by_hand() -> None:
    """A view from draws that are written down: the second word goes, the first changes places with the last."""
    u = np.full((4, 8), 0.99)
    u[2, 2] = 0.0  # word 1 is left out
    u[1, 3], u[1, 4] = 0.0, 0.99  # word 0 changes places with the last that is left
    config = TextViewsConfig(**{**NOTHING, "deletion": 0.1, "swap": 0.1})
    assert changed(["a", "b", "c"], u, config, {}) == ["c", "a"]


def test_samples_that_are_no_texts() -> None:
    with pytest.raises(DataError, match="sample 1 of the batch is float32 of shape"):
        maker()(Batch([stored("a"), np.zeros(3, np.float32)], np.arange(2), 0))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_the_embedded_table_goes_both_ways() -> None:
    table = embedded()
    assert all(word in table[other.lower()] for word, others in table.items() for other in others)
    assert "small" not in table["small"]


def test_tables_of_the_users(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('\ufeffRed, crimson , scarlet\n\n"two words",pair\n', encoding="utf-8")
    assert read_table(str(tmp_path / "t.csv"), "") == {"red": ("crimson", "scarlet"), "two words": ("pair",)}
    (tmp_path / "t.json").write_text('{"Red": ["crimson"]}')
    assert read_table(str(tmp_path / "t.json"), "") == {"red": ("crimson",)}
    seen = words_seen("Red red blue", synonyms=1.0, table=str(tmp_path / "t.json"))
    assert seen == ["crimson", "crimson", "blue"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.csv", b"red\n", "has no synonym"),
        ("t.csv", b"", "has no synonym"),
        ("t.csv", b"red,crimson\nRED,scarlet\n", "has a line already"),
        ("t.csv", b"\xff\xfe\n", "is not UTF-8"),
        ("t.json", b"[1]", "must be an object"),
        ("t.json", b'{"red": "crimson"}', "needs a list of words"),
        ("t.json", b"{", "is no JSON"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_table(str(tmp_path / name), "")


# --- a function of the user's -----------------------------------------------------------------------------------------

OWN = """
def views(texts, generators):
    return [f"{text} {'red' if g.random() < 0.5 else 'ball'}" for text, g in zip(texts, generators)]

def short(texts, generators):
    return texts[:1]

def broken(texts, generators):
    return [1 / 0]
"""


def own(tmp_path: Path, function: str) -> dict[str, Any]:
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    return {"function": f"{file}:{function}", "function_sha256": digest(file, "function", "views")}


def test_a_function_of_the_users_gets_texts_and_a_generator_each(tmp_path: Path) -> None:
    made = maker(**own(tmp_path, "views"))
    together = [made.texts(TEXTS, batch(TEXTS, epoch=epoch), 0) for epoch in range(20)]
    alone = [made.texts(TEXTS[1:2], batch(TEXTS[1:2], [1], epoch), 0)[0] for epoch in range(20)]
    assert [texts[1] for texts in together] == alone
    assert {text.rpartition(" ")[2] for text in alone} == {"red", "ball"}
    assert [made.texts(TEXTS, batch(TEXTS, epoch=epoch), 1) for epoch in range(20)] != together  # another view


def test_a_function_that_does_not_keep_its_promise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="short must return a list of 3 texts, one for each it was given, got 1"):
        maker(**own(tmp_path, "short"))(batch(TEXTS))
    with pytest.raises(ConfigError, match=r"mine\.py, line 9: ZeroDivisionError"):
        maker(**own(tmp_path, "broken"))(batch(TEXTS))
    with pytest.raises(ConfigError, match="has no function 'nothing'"):
        maker(**own(tmp_path, "nothing"))
    settings = own(tmp_path, "views")
    (tmp_path / "mine.py").write_text(OWN + "\n# changed")
    with pytest.raises(ConfigError, match="is not the file this recipe was made with"):
        maker(**settings)


def test_what_is_left_open_is_settled_once(tmp_path: Path) -> None:
    """Words, checksums and absolute places; what is settled stays as it is."""
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    (tmp_path / "t.json").write_text('{"Red": ["crimson"]}')
    views = TextViewsConfig(function=f"{file}:views", table=str(tmp_path / "t.json"), min_count=1)

    class Opened:
        train = _Split(TEXTS)

    said: list[str] = []
    settled = MEDIUM.settled(None, views, Opened(), said.append)  # type: ignore[arg-type]
    assert settled.words == WORDS
    assert settled.function_sha256 == digest(file, "function", "views")
    assert settled.table_sha256 == checksum(tmp_path / "t.json")
    assert "words found in 3 training texts" in said[0]
    assert MEDIUM.settled(None, settled, Opened(), said.append) is settled  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no word of the training texts is there so often"):
        MEDIUM.settled(None, TextViewsConfig(min_count=9), Opened(), said.append)  # type: ignore[arg-type]


class _Split:
    labels = None

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: NDArray[np.int64]) -> list[NDArray[np.uint8]]:
        return [stored(self.texts[int(i)]) for i in index]
