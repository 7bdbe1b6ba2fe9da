"""Backbones of text: what fills up has no say, pooling, causality, settings, seeds, and a Hugging Face encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError, MissingInputError
from stopgrad.nn import text
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text import TextTransformer, pooled, tokens_there
from stopgrad.nn.text_config import architecture_of, heads_for

KINDS, LENGTH = 12, 6
OWN = ("text_transformer", "text_gru")


def backbone(seed: int = 0, **settings: Any) -> torch.nn.Module:
    return build_backbone(BackboneConfig(width=16, **settings), KINDS, LENGTH, seed).eval()


def ids(*rows: list[int]) -> Tensor:
    return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("pool", ["mean", "end"])
def test_what_fills_up_changes_nothing(name: str, pool: str) -> None:
    model = backbone(name=name, pool=pool)
    whole = ids([2, 5, 7, 3], [2, 9, 3])
    short = whole[:, :4]
    assert torch.allclose(model(whole), model(short), atol=1e-6)
    assert model(whole).shape == (2, 16)
    alone = model(whole[1:])
    assert torch.allclose(model(whole)[1:], alone, atol=1e-6)


@pytest.mark.parametrize("name", OWN)
def test_every_token_that_is_there_counts(name: str) -> None:
    model = backbone(name=name)
    assert not torch.allclose(model(ids([2, 5, 7, 3])), model(ids([2, 5, 8, 3])))
    assert not torch.allclose(model(ids([2, 5, 7, 3])), model(ids([2, 7, 5, 3])))  # and their order


def test_a_causal_transformer_looks_back_alone() -> None:
    model = backbone(name="text_transformer", causal=True)
    assert isinstance(model, TextTransformer)
    one, other = model.states(ids([2, 5, 7, 3])), model.states(ids([2, 5, 8, 3]))
    assert torch.equal(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])
    full = backbone(name="text_transformer")
    assert isinstance(full, TextTransformer)
    assert not torch.allclose(full.states(ids([2, 5, 7, 3]))[:, 0], full.states(ids([2, 5, 8, 3]))[:, 0])


def test_pooling_by_hand() -> None:
    states = torch.arange(24.0).reshape(2, 6, 2)
    there = tokens_there(ids([2, 5, 3], []))
    assert there.tolist() == [[True, True, True, False, False, False], [True, False, False, False, False, False]]
    assert pooled(states, there, "mean").tolist() == [[2.0, 3.0], [12.0, 13.0]]
    assert pooled(states, there, "end").tolist() == [[4.0, 5.0], [12.0, 13.0]]


@pytest.mark.parametrize("name", OWN)
def test_a_text_of_nothing_is_finite(name: str) -> None:
    assert bool(torch.isfinite(backbone(name=name)(ids([]))).all())


@pytest.mark.parametrize("name", OWN)
def test_the_same_seed_gives_the_same_weights_and_no_global_state_moves(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (backbone(seed, name=name).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["embedding.weight"], other["embedding.weight"])
    assert not one["embedding.weight"][0].any()  # what fills up


def test_the_transformer_begins_as_clips_text_tower() -> None:
    """Standard deviations of openai/CLIP: embedding .02, positions .01, attention w**-.5, MLP (2w)**-.5, out small."""
    model = TextTransformer(5000, 200, 128, 3, 4, "end")
    block = model.blocks[0]
    small = 128**-0.5 * 6**-0.5
    found = {
        0.02: model.embedding.weight[1:],
        0.01: model.positions,
        128**-0.5: block.qkv.weight,
        small: torch.cat([block.out.weight.flatten(), block.down.weight.flatten()]),
        256**-0.5: block.up.weight,
    }
    for std, weights in found.items():
        assert weights.std().item() == pytest.approx(std, rel=0.03)


def test_settings_that_are_described_come_back() -> None:
    for config in (
        BackboneConfig(name="text_transformer", width=64, layers=3, heads=4, pool="end", causal=True),
        BackboneConfig(name="text_gru", width=24, layers=1),
    ):
        assert BackboneConfig.from_description(json.loads(json.dumps(config.described()))) == config
    assert "layers" not in BackboneConfig().described()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"layers": 3}, "backbone.layers=3 is read by text_transformer, text_gru, the backbone is tiny"),
        ({"name": "resnet18", "pool": "end"}, "backbone.pool='end' is read by"),
        ({"name": "text_gru", "causal": True}, "backbone.causal=True is read by text_transformer"),
        ({"name": "text_gru", "heads": 2}, "backbone.heads is read by"),
        ({"name": "text_gru", "layers": 0}, "backbone.layers must be 1 to 64"),
        ({"name": "text_gru", "stem": "small"}, "backbone.stem=small is not read by text_gru"),
        ({"name": "text_gru", "norm": "layer"}, "backbone.norm=layer is not read by text_gru"),
        ({"name": "text_gru", "pool": "max"}, "backbone.pool must be mean or end"),
        ({"name": "text_transformer", "width": 32, "heads": 3}, "backbone.heads=3 must divide backbone.width=32"),
        ({"name": "hf"}, "type --backbone hf:/folder"),
        ({"name": "hf", "architecture": "[]"}, "is no config.json"),
        ({"name": "hf", "architecture": '{"model_type": "bert", "auto_map": {}}'}, "code of its own"),
        ({"name": "hf", "architecture": '{"model_type": "bert", "hidden_size": 99999999}'}, "hidden_size must be"),
        ({"name": "hf", "architecture": '{"model_type": "bert", "num_hidden_layers": 9999}'}, "num_hidden_layers must"),
    ],
)
def test_settings_that_nothing_reads(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        BackboneConfig(**settings)


def test_a_transformer_of_other_lengths_says_so() -> None:
    with pytest.raises(ConfigError, match="was built for 6 tokens, got 7"):
        backbone(name="text_transformer")(torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ConfigError, match="it is for text"):
        build_backbone(BackboneConfig(name="text_gru", width=16), 1, 6, 0)


def test_heads_divide_the_width() -> None:
    assert [heads_for(width) for width in (8, 32, 64, 104, 128, 256)] == [1, 1, 2, 2, 4, 8]


# --- Hugging Face -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT as save_pretrained leaves it; its padding token is 3."""
    transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
    folder = tmp_path_factory.mktemp("bert")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=10,
        pad_token_id=3,
    )
    torch.manual_seed(7)  # not the seed that the test builds with
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_hugging_face_encoder_gives_what_transformers_gives(bert: Path) -> None:
    import transformers

    from stopgrad.nn.hugging_face import load_weights

    config = BackboneConfig(name="hf", architecture=architecture_of(bert))
    model = build_backbone(config, KINDS, LENGTH, 0).eval()
    load_weights(model, bert)  # type: ignore[arg-type]
    theirs = transformers.BertModel.from_pretrained(bert).eval()
    mine = ids([2, 5, 3, 4])  # 3 here is their 0
    with torch.no_grad():
        out = theirs(
            input_ids=torch.tensor([[2, 5, 0, 4, 3, 3]]), attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]])
        ).last_hidden_state
        assert torch.allclose(model(mine), out[:, :4].mean(dim=1), atol=1e-6)
    assert BackboneConfig.from_description(json.loads(json.dumps(config.described()))) == config
    assert str(bert) not in json.dumps(config.described())  # no path stands in a file


def test_a_hugging_face_encoder_is_random_without_weights_and_the_same_for_a_seed(bert: Path) -> None:
    config = BackboneConfig(name="hf", architecture=architecture_of(bert))
    one, same, other = (build_backbone(config, KINDS, LENGTH, seed).state_dict() for seed in (1, 1, 2))
    name = "model.embeddings.word_embeddings.weight"
    assert torch.equal(one[name], same[name])
    assert not torch.equal(one[name], other[name])


def test_what_does_not_fit_a_hugging_face_encoder(bert: Path, tmp_path: Path) -> None:
    from stopgrad.nn.hugging_face import load_weights

    config = BackboneConfig(name="hf", architecture=architecture_of(bert))
    with pytest.raises(ConfigError, match="knows 20 tokens, the tokenizer makes 21"):
        build_backbone(config, 21, LENGTH, 0)
    with pytest.raises(ConfigError, match=r"takes 10 tokens, views\.length is 11"):
        build_backbone(config, KINDS, 11, 0)
    with pytest.raises(ConfigError, match="can't build it"):
        build_backbone(BackboneConfig(name="hf", architecture='{"model_type": "nobody"}'), KINDS, LENGTH, 0)
    t5 = {"model_type": "t5", "d_model": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1, "d_kv": 8, "vocab_size": 20}
    with pytest.raises(ConfigError, match="an encoder alone"):
        build_backbone(BackboneConfig(name="hf", architecture=json.dumps(t5)), KINDS, LENGTH, 0)
    model = build_backbone(config, KINDS, LENGTH, 0)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(MissingInputError, match=r"pytorch_model\.bin is a pickle"):
        load_weights(model, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(MissingInputError, match=r"no config\.json that can be read"):
        architecture_of(tmp_path)


@pytest.mark.parametrize("name", OWN)
def test_what_fills_up_behind_the_longest_text_costs_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk = build_backbone(BackboneConfig(name=name, width=16), 30, 32, seed=0)
    ids = torch.zeros(4, 32, dtype=torch.long)
    ids[:, :5] = torch.randint(4, 30, (4, 5))
    ids[0, 5:9] = 7
    looked_up: list[int] = []
    real = trunk.embedding.forward  # type: ignore[union-attr]
    monkeypatch.setattr(trunk.embedding, "forward", lambda x: looked_up.append(x.shape[1]) or real(x))
    found = trunk(ids)
    assert looked_up == [9]
    monkeypatch.setattr(text, "without_padding", lambda ids: ids)
    torch.testing.assert_close(found, trunk(ids))
    assert looked_up == [9, 32]
    monkeypatch.undo()
    assert trunk(torch.zeros(2, 32, dtype=torch.long)).isfinite().all()
