"""CLIP against its paper written out in loops, softmax and SigLIP's sigmoid; and what has to hold of it."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.clip import CLIPConfig, _with_projection, clip
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.text import TextTransformer
from stopgrad.nn.with_kept import WithKept
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import build_optimiser
from stopgrad.recipes import clip as presets
from stopgrad.siamese.two_towers import LARGEST, Matching, Sigmoid, Softmax, TwoTowers
from tests.methods.toy import clock, gradients, trunk

B, LENGTH, VOCABULARY, DIM, RATE = 5, 6, 9, 3, 0.5
TEXT = BackboneConfig(name="text_transformer", width=8, layers=1, heads=2, pool="end", causal=True)
KNOWN = Known(
    crops=(2, 2), batch_size=B, accumulate=1, backbone="tiny", kind="captioned", text=(VOCABULARY, LENGTH), seed=1
)


class Words(nn.Module):
    """Token ids [B, L] -> [B, 4], the mean of what stands for each; 0 is none."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 4)
        self.dim = 4

    def forward(self, ids: Tensor) -> Tensor:
        there = (ids != 0).unsqueeze(2)
        out: Tensor = (self.embedding(ids) * there).sum(dim=1) / there.sum(dim=1)
        return out


def toy(objective: Matching) -> TwoTowers:
    torch.manual_seed(3)
    method = TwoTowers(_with_projection(trunk(), DIM), _with_projection(Words(), DIM), objective)
    return method.double()


def small(**changes: Any) -> TwoTowers:
    torch.manual_seed(5)
    config = CLIPConfig(**{"dim": DIM, "text": TEXT, **changes})
    config.check(KNOWN)
    return clip(trunk(), config, KNOWN)


def batch(step: int = 0, b: int = B, dtype: torch.dtype = torch.float64) -> Views:
    generator = torch.Generator().manual_seed(100 + step)
    crop = torch.randn(b, 1, 2, 2, generator=generator, dtype=dtype)
    ids = torch.randint(1, VOCABULARY, (b, LENGTH), generator=generator)
    ends = torch.randint(2, LENGTH + 1, (b, 1), generator=generator)
    return Views((crop, torch.where(torch.arange(LENGTH) < ends, ids, 0)), torch.arange(b))


def by_loops(method: TwoTowers, steps: int) -> tuple[list[float], list[dict[str, Tensor]], list[float]]:
    """The paper's figure 3, and SigLIP's Algorithm 1, pair by pair: losses, gradients of each step, t after each."""
    w = {name: value.detach().clone().requires_grad_() for name, value in method.named_parameters()}
    losses, found, scales = [], [], []
    for step in range(steps):
        crops, tokens = batch(step).crops
        u, v = [], []
        for x, ids in zip(crops, tokens.tolist()):
            h = w["backbone.trunk.linear.weight"] @ x.flatten() + w["backbone.trunk.linear.bias"]
            z = w["backbone.kept.0.weight"] @ h
            u.append(z / (z @ z) ** 0.5)
            rows = [w["text.trunk.embedding.weight"][i] for i in ids if i]
            z = w["text.kept.0.weight"] @ (sum(rows) / len(rows))
            v.append(z / (z @ z) ** 0.5)
        t = w["objective.log_scale"]
        score = [[torch.exp(t) * (one @ other) for other in v] for one in u]
        loss: Any = 0.0
        for i in range(B):
            if "objective.bias" in w:
                for j in range(B):
                    y = 1 if i == j else -1
                    loss = loss + torch.log(1 + torch.exp(-y * (score[i][j] + w["objective.bias"]))) / B
            else:
                row, column = sum(map(torch.exp, score[i])), sum(torch.exp(score[j][i]) for j in range(B))
                own = torch.exp(score[i][i])
                loss = loss - (torch.log(own / row) + torch.log(own / column)) / 2 / B
        gradient = torch.autograd.grad(loss, list(w.values()))
        losses.append(loss.item())
        found.append(dict(zip(w, gradient, strict=True)))
        with torch.no_grad():
            for value, g in zip(w.values(), gradient, strict=True):
                value -= RATE * g
            t.fill_(min(max(t.item(), 0.0), math.log(100)))
        scales.append(t.item())
    return losses, found, scales


@pytest.mark.parametrize("temperature", [0.07, 0.0101, 0.999])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_losses_gradients_and_the_temperature_are_the_papers(kind: str, temperature: float) -> None:
    method = toy(Softmax(temperature) if kind == "softmax" else Sigmoid(temperature, -1.0))
    losses, found, scales = by_loops(method, 3)
    for step in range(3):
        loss = method(batch(step), clock(step)).loss
        ours = gradients(loss, method)
        assert loss.item() == pytest.approx(losses[step], rel=1e-9)
        assert ours.keys() == found[step].keys()
        for name, expected in found[step].items():
            torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-10)
            with torch.no_grad():
                method.get_parameter(name).sub_(RATE * ours[name])
        method.after_step(clock(step))
        assert method.objective.log_scale.item() == pytest.approx(scales[step], abs=1e-9)


@pytest.mark.parametrize(("there", "held"), [(5.0, LARGEST), (-0.5, 0.0), (2.0, 2.0)])
def test_the_scale_is_held_between_1_and_100_after_a_step(there: float, held: float) -> None:
    method = small()
    with torch.no_grad():
        method.objective.log_scale.fill_(there)
    assert method(batch(dtype=torch.float32), clock()).logs["scale"].item() == pytest.approx(math.exp(there), rel=1e-5)
    assert method.objective.log_scale.item() == there  # a forward moves nothing
    method.after_step(clock())
    assert method.objective.log_scale.item() == pytest.approx(held)
    assert math.exp(method.objective.log_scale.item()) <= 100 * (1 + 1e-6)


def test_the_scale_begins_at_the_papers() -> None:
    assert small().objective.log_scale.exp().item() == pytest.approx(1 / 0.07)  # 14.2857
    sigmoid = small(loss="sigmoid").objective
    assert isinstance(sigmoid, Sigmoid)
    assert (sigmoid.log_scale.exp().item(), sigmoid.bias.item()) == pytest.approx((10.0, -10.0))
    assert small(temperature=0.2).objective.log_scale.exp().item() == pytest.approx(5.0)


def alike(method: TwoTowers) -> TwoTowers:
    """All similarities 0."""
    with torch.no_grad():
        for tower in method.trunks().values():
            assert isinstance(tower, WithKept)
            tower.kept[0].weight.zero_()  # type: ignore[operator]
    return method


@pytest.mark.parametrize("n", [2, 5, 64])
def test_equal_similarities_cost_log_n(n: int) -> None:
    loss = alike(small())(batch(b=n, dtype=torch.float32), clock()).loss
    assert loss.item() == pytest.approx(math.log(n), rel=1e-5)


def test_the_sigmoid_begins_at_its_bias() -> None:
    n = 256
    loss = alike(small(loss="sigmoid"))(batch(b=n, dtype=torch.float32), clock()).loss
    expected = math.log1p(math.exp(10)) + (n - 1) * math.log1p(math.exp(-10))
    assert loss.item() == pytest.approx(expected, rel=1e-5)  # 10.01


@pytest.mark.parametrize("objective", [Softmax(0.07), Sigmoid(0.1, -10.0)], ids=["softmax", "sigmoid"])
def test_images_and_captions_may_change_places_and_pairs_their_order(objective: Matching) -> None:
    generator = torch.Generator().manual_seed(0)
    u, v = (
        nn.functional.normalize(torch.randn(7, 4, generator=generator, dtype=torch.float64), dim=1) for _ in range(2)
    )
    loss = objective.double()(u, v)[0].item()
    order = torch.randperm(7, generator=generator)
    assert objective(v, u)[0].item() == pytest.approx(loss, rel=1e-9)
    assert objective(u[order], v[order])[0].item() == pytest.approx(loss, rel=1e-9)
    assert objective(u[order], v)[0].item() != pytest.approx(loss, rel=1e-3)


def test_a_caption_that_is_there_twice_is_a_wrong_answer_of_its_own_image() -> None:
    """As in the reference: with a perfect encoder, two equal captions of four cost half of the rows log 2."""
    u = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 2]]
    objective = Softmax(0.01).double()
    assert objective(u, u)[0].item() == pytest.approx(math.log(2) / 2, abs=1e-9)
    assert objective(u[:3], u[:3])[0].item() == pytest.approx(0, abs=1e-9)


def test_the_length_of_what_a_tower_gives_has_no_say() -> None:
    method = toy(Softmax(0.07))
    raw = [tower(crop) for tower, crop in zip(method.trunks().values(), batch().crops)]
    vectors = [one.detach().requires_grad_() for one in raw]
    units = [nn.functional.normalize(one, dim=1) for one in vectors]
    method.objective(*units)[0].backward()
    for one in vectors:
        assert one.grad is not None
        torch.testing.assert_close((one.grad * one).sum(dim=1), torch.zeros(B, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("exclude_1d", [False, True])
def test_temperature_and_bias_are_never_decayed(exclude_1d: bool) -> None:
    method = small(loss="sigmoid")
    config = OptimConfig(name="adamw", weight_decay=0.2, exclude_1d=exclude_1d)
    groups = build_optimiser(method, config, 8, method.constant_lr(), method.undecayed()).param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    named = dict(method.named_parameters())
    assert len(decay) == len(named)
    assert decay[id(named["objective.log_scale"])] == decay[id(named["objective.bias"])] == 0.0
    assert decay[id(named["text.kept.0.weight"])] == 0.2
    assert decay[id(named["backbone.trunk.linear.bias"])] == (0.0 if exclude_1d else 0.2)


def test_towers_end_in_projections_without_bias_that_begin_as_the_papers() -> None:
    config = CLIPConfig(dim=300, text=replace(TEXT, width=400))
    torch.manual_seed(0)
    method = clip(trunk(), config, KNOWN)
    for name, width in (("backbone", 4), ("text", 400)):
        tower = method.trunks()[name]
        assert isinstance(tower, WithKept)
        (linear,) = tower.kept
        assert isinstance(linear, nn.Linear)
        assert linear.bias is None
        assert linear.weight.shape == (300, width)
        assert linear.weight.std().item() == pytest.approx(width**-0.5, rel=0.1)
    # what stands in a tower's file builds the same: names and shapes
    assert [layer.width for layer in config.trunk(BackboneConfig()).kept] == [300]
    assert config.towers()["text"].kept[-1].bias is False


def test_the_text_tower_reads_from_the_left_and_stops_at_its_last_token() -> None:
    method = small().eval()
    tower = method.text
    assert isinstance(tower, WithKept)
    assert isinstance(tower.trunk, TextTransformer)
    ids = torch.tensor([[2, 8, 5, 3, 0, 0]])
    states = tower.trunk.states(ids)
    for place, other in itertools.product(range(1, 4), (1, 4, 7)):
        changed = ids.clone()
        changed[0, place] = other
        assert torch.equal(tower.trunk.states(changed)[0, :place], states[0, :place])  # nothing after it has a say
    # the largest id, 8, is not the end: what stands at the last token is
    torch.testing.assert_close(tower.trunk(ids)[0], states[0, 3])
    torch.testing.assert_close(method.text(ids[:, :4]), method.text(ids))  # filling up changes nothing


def test_both_kinds_of_crop_end_in_one_space() -> None:
    method = small()
    crop, ids = batch(dtype=torch.float32).crops
    for one, tower in ((crop, method.backbone), (ids, method.text)):
        h, z = method.embed(one)
        assert h.shape == z.shape == (B, DIM)
        assert torch.equal(h, tower(one))
        torch.testing.assert_close(z.norm(dim=1), torch.ones(B))
    assert list(method.trunks()) == ["backbone", "text"]
    out = method(batch(dtype=torch.float32), clock())
    assert out.embedding.shape == (2 * B, DIM)
    assert not out.embedding.requires_grad
    assert -1 <= out.logs["similarity"] <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 4},
        {"loss": "sigmoid"},
        {"temperature": 0.1},
        {"loss": "sigmoid", "bias": -3.0},
        {"text": replace(TEXT, width=16)},
        {"text": replace(TEXT, layers=2)},
        {"text": replace(TEXT, pool="mean")},
        {"text": replace(TEXT, layers=2, causal=False)},  # in one layer the last token sees all either way
        {"text": BackboneConfig(name="text_gru", width=8, layers=1)},
    ],
    ids=str,
)
def test_every_setting_changes_what_is_computed(changes: dict[str, Any]) -> None:
    others: dict[str, Any] = {"loss": "sigmoid"} if "bias" in changes else {}
    if "text" in changes and not changes["text"].causal:
        others = {"text": replace(TEXT, layers=2)} if changes["text"].layers == 2 else {}
    views = batch(dtype=torch.float32)
    assert small(**changes)(views, clock()).loss.item() != small(**others)(views, clock()).loss.item()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 0}, r"method\.dim must be at least 1, got 0"),
        ({"temperature": -1.0}, r"method\.temperature must be above 0, got -1"),
        ({"temperature": 0.001}, r"method\.temperature must be from 0\.01 to 1"),
        ({"temperature": 3.0}, r"method\.temperature must be from 0\.01 to 1"),
        ({"bias": -5.0}, r"method\.bias=-5\.0 is read by nothing here.*loss=sigmoid"),
        ({"text": BackboneConfig()}, r"method\.text\.name must be text_transformer or text_gru, got 'tiny'"),
        ({"text": replace(TEXT, init="x.safetensors")}, r"method\.text\.init is read by nothing"),
    ],
    ids=str,
)
def test_settings_that_can_not_be_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CLIPConfig(**changes)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"kind": "image"}, r"clip learns from images with captions, and views\.kind is image; .*--data captions\.csv"),
        ({"batch_size": 1}, r"loop\.batch_size=1: without another pair .* use 2 or more"),
        ({"batch_size": 4, "accumulate": 4}, r"loop\.batch_size=4 in 4 parts: .* use 8 or more"),
    ],
)
def test_what_the_recipe_can_not_give_is_told_before_anything_is_built(known: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CLIPConfig().check(replace(KNOWN, **known))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_a_pair_alone_is_refused(loss: str) -> None:
    with pytest.raises(ConfigError, match="batch of 1"):
        small(loss=loss)(batch(b=1, dtype=torch.float32), clock())


def test_two_images_are_no_pair() -> None:
    crop = batch(dtype=torch.float32).crops[0]
    with pytest.raises(ConfigError, match=r"clip takes an image and its caption.*got float32.*views\.kind=captioned"):
        small()(Views((crop, crop), torch.arange(B)), clock())


@pytest.mark.parametrize("preset", [presets.scenes, presets.captions, presets.vit_l14])
def test_presets_are_whole_recipes(preset: Any) -> None:
    recipe = preset()
    assert recipe.views.kind == recipe.data.kind == "captioned"
    assert recipe.optim.exclude_1d
    assert recipe.method.text.width % recipe.method.text.heads == 0
    assert "Expected" in preset.__doc__ or "first guess" in preset.__doc__
