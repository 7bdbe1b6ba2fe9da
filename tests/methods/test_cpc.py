"""CPC against its papers, written out in loops: contexts, directions, where negatives come from; what it refuses."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import rng
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.cpc import ON_PATCHES, CPCConfig, Whence, cpc
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipes import cpc as presets
from stopgrad.siamese.candidates import Candidates
from stopgrad.siamese.patch_views import PatchViews
from stopgrad.siamese.predictive import OverRows, Predictive
from tests.methods.predictive_loops import Frames, PaddedFrames, grid_trunk, oracle
from tests.methods.toy import clock, gradients

B, T, IMAGES = 3, 6, 12
GROUPS = [4, 7, 4, 7, 7, 4, 4, 7, 4, 7, 7, 4]  # of the 12 samples
WHENCE: tuple[Whence, ...] = ("batch", "other_sequences", "own_sequence", "same_group", "same_group_others")
ROWS = {"patch_less": 0, "context": 5, "context_layers": 2}


def known(size: int = 2 * T, **changes: Any) -> Known:
    return Known(
        **{"crops": (size,), "batch_size": B, "accumulate": 1, "backbone": "tiny", "images": IMAGES, **changes}
    )


def over_time(**changes: Any) -> Predictive:
    config = CPCConfig(**{"steps": 2, **changes})
    torch.manual_seed(5)
    return told(cpc(Frames(), config, known()), config).double()


def over_rows(size: int = 10, **changes: Any) -> Predictive:
    """4 x 4 patches of 4 pixels."""
    config = CPCConfig(**{"steps": 2, **ROWS, **changes})
    torch.manual_seed(5)
    return told(cpc(grid_trunk(size), config, known(size)), config).double()


def told(method: Predictive, config: CPCConfig) -> Predictive:
    config.check(known())
    if config.grouped:
        method.set_groups(torch.tensor(GROUPS))
    with torch.no_grad():  # products large enough to tell one from another
        for weight in method.predictors.parameters():
            weight.normal_()
    return method


def batch(method: Predictive, step: int = 0, b: int = B) -> Views:
    generator = torch.Generator().manual_seed(100 + step)
    shape = (b, 1, 10, 10) if isinstance(method, OverRows) else (b, 2 * T)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return Views((x,), torch.randperm(IMAGES, generator=generator)[:b])


def groups_of(views: Views) -> list[int]:
    return [GROUPS[i] for i in views.index.tolist()]


def agrees(method: Predictive, step: int = 0) -> None:
    views = batch(method, step)
    out = method(views, clock(step))
    loss, found = oracle(method, views.crops[0], views.index, clock(step), groups_of(views))
    assert out.loss.item() == pytest.approx(loss.item(), rel=1e-9)
    assert out.logs["accuracy"].item() == pytest.approx(found)
    ours, theirs = gradients(out.loss, method), gradients(loss, method)
    assert ours.keys() == theirs.keys() == {name for name, _ in method.named_parameters()}
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("drawn", [0, 5])
@pytest.mark.parametrize("negatives", WHENCE)
def test_loss_and_gradients_over_time_are_the_papers(negatives: Whence, drawn: int) -> None:
    agrees(over_time(negatives=negatives, drawn=drawn))


@pytest.mark.parametrize("drawn", [0, 7])
@pytest.mark.parametrize("settings", [{}, {"skip": 1}, {"directions": 4}, {"directions": 4, "steps": 1, "skip": 1}])
def test_loss_and_gradients_over_rows_are_the_papers(settings: dict[str, Any], drawn: int) -> None:
    agrees(over_rows(drawn=drawn, **settings))


@pytest.mark.parametrize("negatives", ["other_sequences", "own_sequence", "same_group"])
def test_negatives_over_rows_come_from_where_they_should(negatives: Whence) -> None:
    agrees(over_rows(negatives=negatives, drawn=4))


@pytest.mark.parametrize("drawn", [0, 5])
@pytest.mark.parametrize("negatives", WHENCE)
def test_padding_is_predicted_by_nobody_and_is_no_negative(negatives: Whence, drawn: int) -> None:
    config = CPCConfig(steps=2, negatives=negatives, drawn=drawn)
    torch.manual_seed(5)
    method = told(cpc(PaddedFrames(), config, known()), config).double()
    views, lengths = batch(method), [6, 2, 4]
    x = views.crops[0].clone()
    for row, length in zip(x, lengths):
        row[2 * length :] = 0
    padded = Views((x,), views.index)
    out = method(padded, clock())
    loss, _ = oracle(method, x, views.index, clock(), groups_of(views), lengths)
    assert out.loss.item() == pytest.approx(loss.item(), rel=1e-9)
    ours, theirs = gradients(out.loss, method), gradients(loss, method)
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}")
    _, z = method.embed(x)
    mean = torch.stack([of[:length, 0].mean(dim=0) for of, length in zip(method.latents(x), lengths)])
    torch.testing.assert_close(z, mean - mean.mean(dim=0))


def test_a_batch_of_padding_alone_costs_nothing() -> None:
    config = CPCConfig(steps=2, drawn=5)
    method = told(cpc(PaddedFrames(), config, known()), config).double()
    out = method(Views((torch.zeros(B, 2 * T, dtype=torch.float64),), torch.arange(B)), clock())
    assert out.loss.item() == 0


def test_over_time_frames_can_be_left_out_too() -> None:
    agrees(over_time(skip=2, steps=1))


def test_three_steps_of_the_optimiser_are_the_loops() -> None:
    ours, theirs = (over_time(drawn=4) for _ in range(2))
    for step in range(3):
        views = batch(ours, step)
        found = ours(views, clock(step)).loss
        expected, _ = oracle(theirs, views.crops[0], views.index, clock(step))
        assert found.item() == pytest.approx(expected.item(), rel=1e-9)
        for method, loss in ((ours, found), (theirs, expected)):
            for name, gradient in gradients(loss, method).items():
                with torch.no_grad():
                    method.get_parameter(name).sub_(0.3 * gradient)
        ours.after_step(clock(step))


def test_the_loss_is_a_mean_over_the_steps_ahead() -> None:
    """With predictions of nothing every step costs ln N: three of them no more than one."""
    for steps in (1, 3):
        method = over_time(steps=steps)
        for weight in method.predictors.parameters():
            nn.init.zeros_(weight)
        out = method(batch(method), clock())
        assert out.loss.item() == pytest.approx(math.log(B * T))  # all latents of the batch, the target among them
        assert out.logs["accuracy"].item() == 0.0


@pytest.mark.parametrize(
    ("config", "settings", "shape", "candidates"),
    [
        (BackboneConfig(width=8, norm="layer", patches=8), {"steps": 3}, (8, 3, 32, 32), 8 * 49),
        (BackboneConfig(name="cpc_audio", width=64, context=32, norm="layer"), {"steps": 6}, (8, 4000), 8 * 25),
        (BackboneConfig(name="cpc_audio", width=512, norm="none"), {"steps": 12}, (2, 4000), 2 * 25),
    ],
)
def test_a_new_network_costs_about_the_logarithm_of_its_candidates(
    config: BackboneConfig, settings: dict[str, Any], shape: tuple[int, ...], candidates: int
) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(config, shape[1] if len(shape) == 4 else 1, shape[-1], seed=0)
    method = cpc(backbone, CPCConfig(**settings), known(shape[-1], backbone=config.name))
    widest = max(max(weight.shape) for weight in method.predictors.parameters())
    assert all(weight.std() <= 1.1 / widest for weight in method.predictors.parameters())
    with torch.no_grad():
        loss = method(Views((torch.randn(shape),), torch.arange(shape[0])), clock()).loss
    assert loss.item() == pytest.approx(math.log(candidates), abs=0.3)


# --- where negatives come from ----------------------------------------------------------------------------------------


def test_draws_are_even_with_replacement_and_alike_in_any_batch() -> None:
    among = Candidates("other_sequences", 4000, IMAGES)
    z, index = torch.randn(4, 5, 3), torch.tensor([4, 9, 2, 7])
    sequence, place = among.draws(among.pool(z, index), clock(1), 0)
    for b in range(4):
        counts = torch.bincount(sequence[b] * 5 + place[b], minlength=20)
        assert counts[5 * b : 5 * b + 5].tolist() == [0] * 5
        others = torch.cat([counts[: 5 * b], counts[5 * b + 5 :]])
        assert (others - 4000 / 15).abs().max() < 5 * math.sqrt(4000 / 15)
    # one image among three others sees the same wherever it stands: order aside, so places are
    again = among.draws(among.pool(z.flip(0), index.flip(0)), clock(1), 0)[1]
    assert torch.equal(again.flip(0), place)
    for other in (clock(2), replace(clock(1), seed=9)):
        assert not torch.equal(among.draws(among.pool(z, index), other, 0)[1], place)
    assert not torch.equal(among.draws(among.pool(z, index), clock(1), 1)[1], place)


def test_a_sequence_alone_in_its_group_has_nothing_to_be_told_from() -> None:
    for drawn in (0, 5):
        method = over_time(negatives="same_group_others", drawn=drawn)
        method.set_groups(torch.arange(IMAGES))
        out = method(batch(method), clock())
        assert out.loss.item() == 0.0
        assert all(gradient.count_nonzero() == 0 for gradient in gradients(out.loss, method).values())


def test_groups_are_kept_with_the_weights() -> None:
    method, twin = over_time(negatives="same_group"), over_time(negatives="same_group")
    method.set_groups(torch.arange(IMAGES) % 5)
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin.candidates.groups, torch.arange(IMAGES) % 5)
    assert "candidates.groups" not in over_time().state_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: over_time().set_groups(torch.arange(IMAGES)), "negatives=batch asks for no groups; use same_group"),
        (
            lambda: over_time(negatives="same_group").set_groups(torch.arange(3)),
            r"for each of the 12 samples, got torch.int64 \[3\]",
        ),
        (lambda: over_time(negatives="same_group").set_groups(torch.arange(IMAGES) - 1), "whole number of 0 or more"),
        (lambda: over_time(negatives="same_group").set_groups(torch.zeros(IMAGES)), "whole number of 0 or more"),
    ],
)
def test_a_grouping_that_is_none_is_refused(call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_without_a_grouping_the_same_group_is_nobodys() -> None:
    config = CPCConfig(steps=2, negatives="same_group")
    method = cpc(Frames(), config, known()).double()
    with pytest.raises(ConfigError, match=r"same_group needs to know which samples .* method.negatives=batch"):
        method(batch(method), clock())


@pytest.mark.parametrize("negatives", ["other_sequences", "same_group_others"])
def test_one_sequence_has_no_others(negatives: Whence) -> None:
    method = over_time(negatives=negatives)
    with pytest.raises(ConfigError, match=rf"{negatives} needs 2 sequences a batch, got 1; type --set loop.batch_size"):
        method(batch(method, b=1), clock())
    for own in ("batch", "own_sequence"):
        assert over_time(negatives=own)(batch(method, b=1), clock()).loss > 0


# --- patches ----------------------------------------------------------------------------------------------------------


def patches(b: int = 4, channels: int = 3, side: int = 8) -> Tensor:
    return torch.randn(b, 5, 5, channels, side, side, generator=torch.Generator().manual_seed(1))


INDEX = torch.tensor([3, 8, 1, 6])


def test_a_patch_has_the_same_view_in_any_batch_and_another_each_step() -> None:
    view, x = PatchViews(2, 0.5, 0.5), patches()
    made = view(x, INDEX, clock(1))
    assert made.shape == x.shape
    assert torch.equal(view(x.flip(0), INDEX.flip(0), clock(1)), made.flip(0))
    assert torch.equal(view(x[:2], INDEX[:2], clock(1)), made[:2])
    assert not torch.equal(view(x, INDEX, clock(2)), made)
    assert not torch.equal(view(x, INDEX, replace(clock(1), seed=9)), made)
    same = x[:1].expand(4, -1, -1, -1, -1, -1)
    assert not torch.equal(view(same, INDEX, clock(1))[0], view(same, INDEX, clock(1))[1])
    assert torch.equal(PatchViews(0, 0.0, 0.0)(x, INDEX, clock(1)), x)


def test_a_part_of_a_patch_is_padded_back_and_comes_from_anywhere() -> None:
    x = patches()
    made = PatchViews(3, 0.0, 0.0)(x, INDEX, clock(1)).flatten(0, 2)
    corners = []
    for before, after in zip(x.flatten(0, 2), made):
        parts = {(r, c): F.pad(before[:, r : r + 5, c : c + 5], (1, 2, 1, 2)) for r in range(4) for c in range(4)}
        corners += [corner for corner, part in parts.items() if torch.equal(part, after)]
    assert len(corners) == len(made)
    assert {r for r, _ in corners} == {c for _, c in corners} == {0, 1, 2, 3}
    assert len(set(corners)) == 16


def test_a_share_of_the_patches_is_flipped_and_of_a_share_one_channel_is_left() -> None:
    x = patches(b=40)
    index = torch.arange(40)
    flipped = PatchViews(0, 0.3, 0.0)(x, index, clock(1)).flatten(0, 2)
    was = x.flatten(0, 2)
    turned = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(flipped, was)])
    assert all(torch.equal(a, b) for a, b, t in zip(flipped, was, turned) if not t)
    assert turned.float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / 1000))
    dropped = PatchViews(0, 0.0, 0.4)(x, index, clock(1)).flatten(0, 2)
    there = dropped.abs().amax(dim=(2, 3)) > 0  # [N, C]
    one = there.sum(dim=1) == 1
    assert torch.equal(dropped[there], was[there])
    assert there[~one].all()
    assert one.float().mean().item() == pytest.approx(0.4, abs=5 * math.sqrt(0.24 / 1000))
    assert there[one].float().mean(dim=0).tolist() == pytest.approx([1 / 3] * 3, abs=5 * math.sqrt(2 / 9 / 400))
    gray = patches(channels=1)
    assert torch.equal(PatchViews(0, 0.0, 1.0)(gray, INDEX, clock(1)), gray)


def test_patches_are_drawn_for_themselves() -> None:
    """Not with the numbers of the views or of the negatives."""
    assert rng.PATCHES not in (rng.ORDER, rng.VIEWS, rng.SCENES, rng.WATCH, rng.NEGATIVES, rng.EVAL, rng.SHUFFLE)
    a = rng.uniform(rng.PATCHES, 0, 0, np.arange(4), 5)
    assert not np.allclose(a, rng.uniform(rng.NEGATIVES, 0, 0, np.arange(4), 5))


def test_what_is_watched_is_not_augmented() -> None:
    method = over_rows(patch_less=1, patch_flip=0.5)
    x = batch(method).crops[0]
    plain, z = method.embed(x)
    torch.testing.assert_close(plain, method.backbone(x))
    assert torch.equal(method.embed(x)[1], z)
    assert not torch.equal(method(batch(method), clock(0)).loss, over_rows()(batch(method), clock(0)).loss)


# --- the method -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [over_time, over_rows])
def test_what_is_kept_and_what_is_watched(build: Any) -> None:
    method = build()
    views = batch(method)
    out = method(views, clock())
    h, z = method.embed(views.crops[0])
    torch.testing.assert_close(h, method.backbone(views.crops[0]))
    assert h.shape == (B, method.backbone.dim)
    assert z.shape == out.embedding.shape == (B, 3)
    torch.testing.assert_close(z.mean(dim=0), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(out.embedding, z)
    assert not out.embedding.requires_grad
    assert not out.logs["accuracy"].requires_grad
    assert list(method.trunks()) == ["backbone"]
    parts = method.parts()
    assert parts["objective"] == "InfoNCE (batch)"
    assert parts["pairs"] == "(now, +1..2)"


def test_parts_say_what_was_chosen() -> None:
    parts = over_rows(directions=4, skip=1, drawn=16, negatives="own_sequence").parts()
    assert parts["objective"] == "InfoNCE (own sequence, 16 drawn)"
    assert parts["pairs"] == "(now, +2..3, from 4 sides)"


def test_text_is_predicted_sentence_by_sentence() -> None:
    torch.manual_seed(0)
    trunk = build_backbone(BackboneConfig(name="cpc_text", width=8, context=6), 20, 5, seed=0)
    method = cpc(trunk, CPCConfig(steps=3), known(5, backbone="cpc_text"))
    ids = torch.randint(1, 20, (4, 6, 5))
    out = method(Views((ids,), torch.arange(4)), clock())
    out.loss.backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    h, _ = method.embed(ids)
    torch.testing.assert_close(h, trunk(ids))
    with pytest.raises(
        ConfigError, match=r"needs 4 tokens or sentences at least, a view has 3; type --set method.steps=2, or --set"
    ):
        method(Views((ids[:, :3],), torch.arange(4)), clock())


def test_one_sentence_is_predicted_token_by_token() -> None:
    trunk = build_backbone(BackboneConfig(name="cpc_text", width=8, context=6), 20, 9, seed=0)
    of_text = known(9, backbone="cpc_text", kind="text")
    method = cpc(trunk, CPCConfig(steps=3), of_text)
    ids = torch.randint(1, 20, (4, 9))
    for row, length in zip(ids, (9, 5, 3, 7)):
        row[length:] = 0
    views = Views((ids,), torch.arange(4))
    loss = method(views, clock()).loss
    longer = Views((torch.cat([ids, torch.zeros(4, 5, dtype=torch.long)], dim=1),), views.index)
    torch.testing.assert_close(method(longer, clock()).loss, loss)
    later = ids.clone()
    later[0, 5:] = 19  # a token is in no latent but its own, and in no context before it
    before, after = trunk.context(ids), trunk.context(later)
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.equal(before[0, 5], after[0, 5])
    with pytest.raises(
        ConfigError, match=r"steps=9 needs 10 tokens or .*, a view has 9; .*steps=8, or --set views.len"
    ):
        cpc(trunk, CPCConfig(steps=9), of_text)


@pytest.mark.parametrize("build", [over_time, over_rows])
def test_a_restored_method_continues_to_the_bit_and_a_forward_leaves_no_trace(build: Any) -> None:
    method, twin = build(drawn=4), build(drawn=4)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.01
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for i in range(2):  # micro-batches
        method(batch(method, i), clock(3)).loss.backward()
    method.discard()
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    twin.load_state_dict(method.state_dict())
    assert torch.equal(method(batch(method, 2), clock(4)).loss, twin(batch(method, 2), clock(4)).loss)


CHANGES: list[dict[str, Any]] = [
    {"steps": 1},
    *({"negatives": whence} for whence in WHENCE[1:]),
    {"drawn": 3},
    {"skip": 1},
    {"directions": 4},
    {"context": 4},
    {"context_layers": 1},
    {"patch_less": 1},
    {"patch_flip": 1.0},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    plain, changed = over_rows(), over_rows(**change)
    # the weights that both have are equal: what differs is the setting, not the draw
    shared = {k: v for k, v in plain.state_dict().items() if v.shape == changed.state_dict().get(k, v[:0]).shape}
    changed.load_state_dict({**changed.state_dict(), **shared})
    views = batch(plain)
    assert changed(views, clock()).loss.item() != pytest.approx(plain(views, clock()).loss.item(), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "method.steps must be at least 1, got 0; the paper uses 5"),
        ({"drawn": -1}, "method.drawn must be at least 0, got -1"),
        ({"skip": -1}, "method.skip must be at least 0"),
        ({"context": 0}, "method.context must be at least 1, got 0; the paper uses 256"),
        ({"context_layers": 0}, "method.context_layers must be at least 1"),
        ({"patch_less": -1}, "method.patch_less must be at least 0"),
        ({"patch_flip": 1.5}, r"method.patch_flip must be in \[0, 1\], got 1.5"),
        ({"patch_drop_colours": -0.1}, r"method.patch_drop_colours must be in \[0, 1\]"),
        ({"directions": 2}, "method.directions must be 1 or 4, got 2; version 2 uses 4"),
    ],
)
def test_a_setting_out_of_range_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CPCConfig(**changes)


def test_more_views_than_one_are_refused_and_so_are_settings_of_patches_without_any() -> None:
    with pytest.raises(ConfigError, match=r"views.crops: cpc predicts 1 view from itself, got 2; keep the first"):
        CPCConfig().check(known(crops=(32, 32)))
    values = {"directions": 4, "context": 64, "context_layers": 2, "patch_less": 0, "patch_flip": 0.5}
    assert {*values, "patch_drop_colours"} == set(ON_PATCHES)
    for name, value in values.items():
        with pytest.raises(ConfigError, match=rf"method.{name}={value} is read on patches of images, .* is cpc_audio"):
            CPCConfig(**{name: value}).check(known(backbone="cpc_audio"))
    CPCConfig(steps=12).check(known(backbone="cpc_audio"))


def built(config: BackboneConfig, size: int, **settings: Any) -> Predictive:
    return cpc(build_backbone(config, 1, size, 0), CPCConfig(**settings), known(size, backbone=config.name))


PATCHES = BackboneConfig(width=8, norm="layer", patches=8)
AUDIO = BackboneConfig(name="cpc_audio", width=8)


@pytest.mark.parametrize(
    ("config", "size", "settings", "message"),
    [
        (BackboneConfig(), 32, {}, "backbone.name=tiny sees the whole image at once; type --set backbone.patches=8"),
        (
            PATCHES,
            32,
            {"steps": 7},
            "steps=7 needs 8 rows of patches at least, a view has 7; type --set method.steps=6",
        ),
        (
            PATCHES,
            32,
            {"steps": 6, "skip": 1},
            "steps=6 with method.skip=1 needs 8 rows .* --set method.steps=5, or use",
        ),
        (PATCHES, 8, {"steps": 1, "patch_less": 1}, "a view has 1; use smaller backbone.patches than 8, or larger"),
        (
            PATCHES,
            32,
            {"patch_less": 8},
            "patch_less=8 leaves nothing of patches of 8 pixels; use --set method.patch_l",
        ),
        (AUDIO, 1920, {"steps": 12}, "needs 13 frames at least, a view has 12; .*steps=11, or use windows of 2079 sam"),
        (AUDIO, 160, {"steps": 1}, "needs 2 frames at least, a view has 1; use windows of 319 samples or more"),
    ],
)
def test_what_can_not_be_predicted_is_told_before_the_first_step(
    config: BackboneConfig, size: int, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        built(config, size, **settings)


def test_a_clip_that_came_out_shorter_is_told_too() -> None:
    method = built(AUDIO, 4000, steps=6)
    with pytest.raises(ConfigError, match=r"needs 7 frames at least, a view has 5"):
        method(Views((torch.randn(2, 800),), torch.arange(2)), clock())


def test_the_presets_are_the_papers() -> None:
    one, two = presets.imagenet(), presets.imagenet_v2()
    for recipe in (one, two):
        assert recipe.views.image_size == 256
        assert recipe.backbone.described() == {
            "name": recipe.backbone.name,
            "stem": "standard",
            "norm": "layer",
            "patches": 64,
            "stages": 3,
        }
        assert recipe.optim.peak_lr(recipe.loop.batch_size) == pytest.approx(2e-4)
    assert one.method.directions == 1  # type: ignore[attr-defined]
    assert two.method.directions == 4  # type: ignore[attr-defined]
    assert one.views.crops[0].grayscale == 1.0
    assert two.views.crops[0].grayscale == 0.0
    cifar = presets.cifar10()
    assert (cifar.views.image_size, cifar.backbone.patches) == (30, 10)
    assert cifar.optim.peak_lr(16) == pytest.approx(2e-4)


@pytest.mark.parametrize("preset", [presets.scenes, presets.cifar10])
def test_a_preset_can_be_built_and_predicts(preset: Any) -> None:
    recipe = preset()
    size = recipe.views.image_size
    backbone = build_backbone(recipe.backbone, 3, size, 0)
    method = cpc(backbone, recipe.method, recipe.known(100))
    assert method(Views((torch.randn(2, 3, size, size),), torch.arange(2)), clock()).loss.isfinite()


@pytest.mark.parametrize("preset", [presets.audio, presets.audio_small])
def test_audio_looks_as_far_ahead_at_any_rate(preset: Any) -> None:
    recipe = preset()
    (window,) = recipe.known().crops
    assert recipe.method.steps * 160 / recipe.views.sample_rate == pytest.approx(0.12)
    assert recipe.backbone.name == "cpc_audio"
    assert recipe.optim.end == 1.0
    method = built(replace(recipe.backbone, width=8), window, steps=recipe.method.steps)
    assert method(Views((torch.randn(2, window),), torch.arange(2)), clock()).loss.isfinite()
