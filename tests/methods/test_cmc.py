"""CMC against its paper written out in loops: views, banks, Z, both graphs; and what has to hold of it."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import rng
from stopgrad.contracts import Clock, ConfigError, Known, Views
from stopgrad.methods.cmc import CMCConfig, cmc
from stopgrad.methods.settings import HeadConfig
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.colour_split import LabSplit, normalised_lab
from stopgrad.recipes import cmc as presets
from stopgrad.siamese.cross_view import AmongBank, AmongDrawn, AmongDrawnByNCE, CrossView, pairs_of_graph
from tests.methods.toy import clock, gradients

HEAD = HeadConfig(layers=1, dim=3, norm="none", output_norm="none")
IMAGES, M, B, TEMPERATURE, RATE = 12, 5, 6, 0.2, 0.3
BANKS = ("bank_nce", "bank_softmax")
KNOWN = Known(crops=(2,), batch_size=B, accumulate=1, backbone="tiny", images=IMAGES, split="lab")
PREFIXES = ("backbone.luminance", "backbone.chrominance", "others.depth", "others.normals")


class Tower(nn.Module):
    """[B, C, 2, 2] -> [B, dim]"""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(4 * channels, dim)
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.flatten(1))
        return out


def towers(views: int) -> nn.Module:
    """Of 2 views one backbone that is split, of 3 and 4 sensors beside it; the same weights each time."""
    torch.manual_seed(7)
    split = LabSplit(Tower(1, 3), Tower(2, 4))
    sensors = {"depth": Tower(1, 5), "normals": Tower(3, 4)}
    if views == 2:
        return split
    return nn.ModuleDict({"rgb": split, **dict(itertools.islice(sensors.items(), views - 2))})


def small(views: int = 2, known: Known = KNOWN, **changes: Any) -> CrossView:
    settings = {"projector": HEAD, "temperature": TEMPERATURE, **changes}
    if settings.get("negatives") != "in_batch":
        settings = {"bank_negatives": M, **settings}
    config = CMCConfig(**settings)
    config.check(known)
    return cmc(towers(views), config, known).double()


def batch(step: int = 0, views: int = 2, b: int = B) -> Views:
    """A crop in colour, and as many sensors as make `views` of it."""
    generator = torch.Generator().manual_seed(100 + step)
    crops = [torch.rand(b, channels, 2, 2, generator=generator, dtype=torch.float64) for channels in (3, 1, 3)]
    return Views(tuple(crops[: views - 1]), torch.randperm(IMAGES, generator=generator)[:b])


def views_of(views: Views) -> list[Tensor]:
    """What each encoder sees: L, ab, and the sensors."""
    lab = normalised_lab(views.crops[0])
    return [lab[:, :1], lab[:, 1:], *views.crops[1:]]


def banks_of(method: CrossView) -> list[Tensor]:
    assert isinstance(method.objective, AmongBank)
    return [method.objective.bank(view).vectors for view in range(len(method.objective.banks))]


def step_of(method: CrossView, step: int, views: int = 2) -> tuple[float, dict[str, Tensor]]:
    loss = method(batch(step, views), clock(step)).loss
    found = gradients(loss, method)
    for name, gradient in found.items():
        with torch.no_grad():
            method.get_parameter(name).sub_(RATE * gradient)
    method.after_step(clock(step))
    return loss.item(), found


def steps(method: CrossView, count: int, start: int = 0, views: int = 2) -> list[float]:
    return [step_of(method, step, views)[0] for step in range(start, start + count)]


def by_loops(
    method: CrossView, views: int, count: int, graph: str, negatives: str, m: int, keep: float
) -> tuple[list[float], list[dict[str, Tensor]], list[Tensor], list[float]]:
    """The paper's, in loops; m = 0: the softmax over a whole bank. Losses, gradients of each step, banks, Z."""
    w = {name: value.detach().clone().requires_grad_() for name, value in method.named_parameters()}
    banks = [] if negatives == "in_batch" else [[row.clone() for row in bank] for bank in banks_of(method)]
    z: list[float] = []
    losses, found = [], []
    for step in range(count):
        made = batch(step, views)
        index = made.index.tolist()
        v: list[list[Tensor]] = []
        for i, seen in enumerate(views_of(made)):
            v.append([])
            for x in seen:
                h = w[f"{PREFIXES[i]}.linear.weight"] @ x.flatten() + w[f"{PREFIXES[i]}.linear.bias"]
                out = w[f"projectors.{i}.0.weight"] @ h + w[f"projectors.{i}.0.bias"]
                v[i].append(out / (out @ out) ** 0.5)
        rows = []
        words = rng.bits(rng.NEGATIVES, clock().seed, step, made.index.numpy(), m) if m else None
        for b, image in enumerate(index):
            drawn = [] if words is None else [int(word) * IMAGES // 2**32 for word in words[b].tolist()]
            rows.append([image, *drawn])
        pairs = [(i, j) for i in range(views) for j in range(i + 1, views) if graph == "full" or i == 0]
        directions = [*pairs, *((j, i) for i, j in pairs)]
        if negatives == "bank_nce" and not z:
            for anchor in range(views):
                scores = [
                    math.exp((v[anchor][b] @ banks[j][row]).item() / TEMPERATURE)
                    for a, j in directions
                    if a == anchor
                    for b in range(B)
                    for row in rows[b]
                ]
                z.append(IMAGES * sum(scores) / len(scores))
        loss: Any = 0.0
        for a, j in directions:
            for b, image in enumerate(index):
                if negatives == "in_batch":
                    e = [torch.exp(v[a][b] @ other / TEMPERATURE) for other in v[j]]
                    one = -torch.log(e[b] / sum(e))
                elif not m:
                    e = [torch.exp(v[a][b] @ row / TEMPERATURE) for row in banks[j]]
                    one = -torch.log(e[image] / sum(e))
                else:
                    e = [torch.exp(v[a][b] @ banks[j][row] / TEMPERATURE) for row in rows[b]]
                    if negatives == "bank_softmax":
                        one = -torch.log(e[0] / sum(e))
                    else:
                        h = [score / z[a] / (score / z[a] + m / IMAGES) for score in e]
                        one = -torch.log(h[0]) - sum(torch.log(1 - other) for other in h[1:])
                loss = loss + one / B
        gradient = torch.autograd.grad(loss, list(w.values()))
        found.append(dict(zip(w, gradient, strict=True)))
        losses.append(loss.item())
        with torch.no_grad():
            for value, g in zip(w.values(), gradient, strict=True):
                value -= RATE * g
            for bank, own in zip(banks, v):
                for image, vector in zip(index, own, strict=True):
                    row = keep * bank[image] + (1 - keep) * vector
                    bank[image] = row / (row @ row) ** 0.5
    return losses, found, [torch.stack(bank).detach() for bank in banks], z


@pytest.mark.parametrize(
    ("negatives", "m", "keep"),
    [("bank_nce", M, 0.5), ("bank_softmax", M, 0.5), ("bank_softmax", 0, 0.2), ("in_batch", 0, 0.0)],
)
@pytest.mark.parametrize(("views", "graph"), [(2, "core"), (4, "core"), (4, "full")])
def test_losses_gradients_banks_and_z_are_the_papers(
    negatives: str, m: int, keep: float, views: int, graph: str
) -> None:
    banked = {} if negatives == "in_batch" else {"bank_negatives": m, "bank_momentum": keep}
    method = small(views, graph=graph, negatives=negatives, **banked)
    losses, found, banks, z = by_loops(method, views, 3, graph, negatives, m, keep)
    for step in range(3):
        loss, ours = step_of(method, step, views)
        assert loss == pytest.approx(losses[step], rel=1e-9)
        assert ours.keys() == found[step].keys()
        for name, expected in found[step].items():
            torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-10)
    for bank, expected in zip(banks_of(method) if banks else [], banks, strict=True):
        torch.testing.assert_close(bank, expected, rtol=1e-9, atol=1e-12)
    if z:
        assert isinstance(method.objective, AmongDrawnByNCE)
        kept = [normaliser.log_z.exp().item() for normaliser in method.objective.normalisers]  # type: ignore[operator, union-attr]
        assert kept == pytest.approx(z, rel=1e-9)


def all_alike(method: CrossView) -> CrossView:
    """Every vector of every view and bank the same."""
    with torch.no_grad():
        for projector in method.projectors:
            layer = projector[0]  # type: ignore[index]
            layer.weight.zero_()
            layer.bias.fill_(1.0)
        if isinstance(method.objective, AmongBank):
            for bank in banks_of(method):
                bank.fill_(1 / math.sqrt(bank.shape[1]))
    return method


def nce_of_equals(m: int) -> float:
    return math.log(m + 1) + m * math.log(1 + 1 / m)


@pytest.mark.parametrize(
    ("changes", "one_direction"),
    [
        ({"bank_negatives": 1}, nce_of_equals(1)),
        ({"bank_negatives": M}, nce_of_equals(M)),
        ({"bank_negatives": 4096}, 9.318),
        ({"negatives": "bank_softmax"}, math.log(1 + M)),
        ({"negatives": "bank_softmax", "bank_negatives": 0}, math.log(IMAGES)),
        ({"negatives": "in_batch"}, math.log(B)),
    ],
    ids=str,
)
@pytest.mark.parametrize(("views", "graph", "pairs"), [(2, "core", 1), (4, "core", 3), (4, "full", 6)])
def test_equal_similarities_cost_twice_one_direction_a_pair(
    changes: dict[str, Any], one_direction: float, views: int, graph: str, pairs: int
) -> None:
    method = all_alike(small(views, graph=graph, **changes))
    loss = method(batch(views=views), clock()).loss.item()
    assert loss == pytest.approx(2 * pairs * one_direction, abs=pairs * 2e-3 if one_direction == 9.318 else 1e-6)


def test_at_the_papers_width_and_number_a_start_costs_18_64_and_what_random_rows_add() -> None:
    """18.64 is twice 9.318; 10.13 is what a direction costs with random rows (reference, sections 4 and 7)."""
    alike = all_alike(small(bank_negatives=4096))
    assert alike(batch(), clock()).loss.item() == pytest.approx(18.64, abs=5e-3)
    head = HeadConfig(layers=1, dim=128, norm="none", output_norm="none")
    known = replace(KNOWN, images=20_000)
    method = small(known=known, projector=head, bank_negatives=4096, temperature=0.07)
    assert method(batch(), clock()).loss.item() == pytest.approx(2 * 10.13, abs=1.3)  # of six images


@pytest.mark.parametrize("views", [2, 3, 5, 7])
def test_the_full_graph_has_every_pair_once_and_the_core_the_first_with_each(views: int) -> None:
    full, core = pairs_of_graph("full", views).both, pairs_of_graph("core", views).both
    assert len(set(full)) == len(full) == views * (views - 1)  # two directions of M (M - 1) / 2 pairs
    assert len(set(core)) == len(core) == 2 * (views - 1)
    assert all(0 in pair for pair in core)
    assert {(j, i) for i, j in full} == set(full)
    assert {(j, i) for i, j in core} == set(core)
    assert (full == core) == (views == 2)


@pytest.mark.parametrize("negatives", [*BANKS, "in_batch"])
def test_of_two_views_core_and_full_are_one(negatives: str) -> None:
    assert steps(small(graph="core", negatives=negatives), 3) == steps(small(graph="full", negatives=negatives), 3)


def test_the_full_graph_costs_what_its_pairs_cost() -> None:
    """Each pair alone, by a method of these two views with the same weights."""
    whole, seen = small(4, graph="full", negatives="in_batch"), batch(views=4)
    inputs = views_of(seen)
    total = 0.0
    for i, j in itertools.combinations(range(4), 2):
        pair = {str(view): whole.get_submodule(PREFIXES[view]) for view in (i, j)}
        two = cmc(
            nn.ModuleDict(pair), CMCConfig(projector=HEAD, temperature=TEMPERATURE, negatives="in_batch"), KNOWN
        ).double()
        for at, view in enumerate((i, j)):
            two.projectors[at].load_state_dict(whole.projectors[view].state_dict())
        total += two(Views((inputs[i], inputs[j]), seen.index), clock()).loss.item()
    assert whole(seen, clock()).loss.item() == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize("negatives", [*BANKS, "in_batch"])
def test_views_may_change_places_with_their_banks(negatives: str) -> None:
    """Three steps, so that the banks that are written and the Z that is kept are those of their views, too."""

    def built(*order: int) -> CrossView:
        torch.manual_seed(3)
        both = [Tower(1, 3), Tower(2, 4)]
        config = CMCConfig(projector=HEAD, temperature=TEMPERATURE, negatives=negatives)  # type: ignore[arg-type]
        return cmc(nn.ModuleDict({str(i): both[i] for i in order}), config, KNOWN).double()

    there, back = built(0, 1), built(1, 0)
    for i in range(2):
        back.projectors[1 - i].load_state_dict(there.projectors[i].state_dict())
        if negatives != "in_batch":
            banks_of(back)[1 - i].copy_(banks_of(there)[i])
    for step in range(3):
        lightness, colour = views_of(batch(step))
        index = batch(step).index
        losses = [
            method(Views(crops, index), clock(step)).loss
            for method, crops in ((there, (lightness, colour)), (back, (colour, lightness)))
        ]
        assert losses[1].item() == pytest.approx(losses[0].item(), rel=1e-10)
        for method, loss in zip((there, back), losses):
            found = gradients(loss, method)
            with torch.no_grad():
                for name, gradient in found.items():
                    method.get_parameter(name).sub_(RATE * gradient)
            method.after_step(clock(step))


@pytest.mark.parametrize(
    "changes", [{}, {"negatives": "bank_softmax"}, {"negatives": "bank_softmax", "bank_negatives": 0}], ids=str
)
def test_a_view_is_sought_in_the_other_views_bank(changes: dict[str, Any]) -> None:
    """A wrong bank is silent: with the rows of the own view the loss would fall by itself."""
    views = batch()
    right, wrong = small(**changes), small(**changes)
    for method, swap in ((right, True), (wrong, False)):
        with torch.no_grad():
            z = [F.normalize(p(h), dim=1) for p, h in zip(method.projectors, towers(2).double().halves(views.crops[0]))]  # type: ignore[operator, union-attr]
        for view, bank in enumerate(banks_of(method)):  # the others' vectors are each view's own answer
            bank.copy_(F.normalize(torch.full_like(bank, -1.0), dim=1))
            bank[views.index] = z[1 - view] if swap else z[view]
    near, far = (method(views, clock()) for method in (right, wrong))
    assert near.logs["similarity"].item() == pytest.approx(1.0)
    assert near.loss.item() < far.loss.item() - 0.5
    for anchor, other in ((0, 1), (1, 0)):  # what a view is compared with is in the one bank and not in its own
        method = small(**changes)
        before = method(views, clock()).loss
        own, others = gradients(before, method), banks_of(method)
        others[other].copy_(others[other].roll(1, dims=0))
        after = gradients(method(views, clock()).loss, method)
        name = f"projectors.{anchor}.0.weight"
        assert not torch.allclose(own[name], after[name])
        name = f"projectors.{other}.0.weight"
        assert torch.equal(own[name], after[name])


def test_both_directions_are_told_from_the_same_images() -> None:
    method = small(negatives="bank_softmax")
    objective = method.objective
    assert isinstance(objective, AmongDrawn)
    for bank in banks_of(method):  # a row says which image it is of
        bank.copy_(torch.arange(IMAGES, dtype=torch.float64)[:, None].expand(IMAGES, 3))
    index = torch.tensor([4, 9, 2])
    z = [torch.ones(3, 3, dtype=torch.float64) / 3] * 2
    scores = objective.scores(z, method.pairs, index, clock(1))
    assert torch.equal(scores[0, 1].round(), scores[1, 0].round())
    assert scores[0, 1][:, 0].round().tolist() == index.tolist()
    assert scores[0, 1].shape == (3, 1 + M)
    other = objective.scores(z, method.pairs, index, clock(2))
    assert not torch.equal(other[0, 1].round(), scores[0, 1].round())


@pytest.mark.parametrize("negatives", BANKS)
def test_only_the_rows_of_the_batch_change_and_only_after_the_step(negatives: str) -> None:
    method, views = small(negatives=negatives), batch()
    before = [bank.clone() for bank in banks_of(method)]
    assert not torch.equal(before[0], before[1])
    method(views, clock())
    assert all(torch.equal(bank, old) for bank, old in zip(banks_of(method), before))
    method.after_step(clock())
    touched = torch.zeros(IMAGES, dtype=torch.bool)
    touched[views.index] = True
    for bank, old in zip(banks_of(method), before):
        assert torch.equal(bank[~touched], old[~touched])
        assert not (bank[touched] == old[touched]).all(dim=1).any()
        torch.testing.assert_close(bank.norm(dim=1), torch.ones(IMAGES, dtype=torch.float64))
        assert not any(parameter is bank for parameter in method.parameters())


def test_z_is_the_first_taken_steps_of_each_view_and_never_moves_again() -> None:
    method = small(3)
    objective = method.objective
    assert isinstance(objective, AmongDrawnByNCE)

    def kept() -> list[tuple[bool, float]]:
        return [(bool(one.kept), one.log_z.item()) for one in objective.normalisers]  # type: ignore[arg-type, operator, union-attr]

    method(batch(0, 3), clock(0))
    method.discard()
    assert kept() == [(False, 0.0)] * 3  # the step was not taken, the next one may measure
    method(batch(1, 3), clock(1))
    method.after_step(clock(1))
    first = kept()
    assert all(is_kept for is_kept, _ in first)
    assert len({log_z for _, log_z in first}) == 3
    steps(method, 3, start=2, views=3)
    assert kept() == first
    names = {f"objective.normalisers.{view}.{buffer}" for view in range(3) for buffer in ("log_z", "kept")}
    assert names <= set(method.state_dict())


def test_z_does_not_overflow_where_its_exponentials_do() -> None:
    method = small(temperature=0.005).float()
    views = batch()
    for bank in banks_of(method):
        bank.copy_(F.normalize(torch.ones(IMAGES, 3), dim=1))
    assert method(Views((views.crops[0].float(),), views.index), clock()).loss.isfinite()


def test_the_log_has_the_cosine_of_the_views_as_they_are_compared() -> None:
    views = batch()
    method = small(negatives="in_batch")
    z = [F.normalize(p(h), dim=1) for p, h in zip(method.projectors, method.backbone.halves(views.crops[0]))]  # type: ignore[operator]
    out = method(views, clock())
    assert out.logs["similarity"].item() == pytest.approx((z[0] * z[1]).sum(dim=1).mean().item())
    assert not out.logs["similarity"].requires_grad
    assert torch.equal(out.embedding, torch.cat(z).detach())
    banked = small()
    found = banked(views, clock()).logs["similarity"].item()
    cosines = [(z[i] * banks_of(banked)[1 - i][views.index]).sum(dim=1).mean().item() for i in range(2)]
    assert found == pytest.approx(sum(cosines) / 2)


def test_what_is_kept_of_an_image_is_both_halves_side_by_side() -> None:
    method, crop = small(), batch().crops[0]
    h, z = method.embed(crop)
    assert torch.equal(h, method.backbone(crop))
    assert z.shape == (B, 6)
    torch.testing.assert_close(z[:, 3:].norm(dim=1), torch.ones(B, dtype=torch.float64))
    assert list(method.trunks()) == ["backbone"]
    assert method.trunks()["backbone"] is method.backbone


def test_two_kinds_of_view_of_a_crop_are_what_the_monitor_compares() -> None:
    method, crop = small(), batch().crops[0]
    found = method.across(crop)
    assert found is not None
    _, z = method.embed(crop)
    assert torch.equal(found[0], z[:, :3])
    torch.testing.assert_close(found[1], z[:, 3:])
    several = small(4).across(batch(views=4).crops[0])  # lightness and colour of the photograph, which is watched
    assert several is not None
    torch.manual_seed(0)
    one = cmc(nn.ModuleDict({"depth": Tower(1, 4), "edges": Tower(1, 4)}), CMCConfig(projector=HEAD), KNOWN).double()
    assert one.across(torch.rand(B, 1, 2, 2, dtype=torch.float64)) is None


def test_of_sensors_every_tower_is_kept_by_its_name_and_the_first_is_watched() -> None:
    method, views = small(4), batch(views=4)
    assert list(method.trunks()) == ["rgb", "depth", "normals"]
    assert method.trunks()["rgb"] is method.backbone
    h, z = method.embed(views.crops[0])
    assert (h.shape, z.shape) == ((B, 7), (B, 6))
    out = method(views, clock())
    assert out.embedding.shape == (4 * B, 3)
    depth = method.trunks()["depth"](views.crops[1])
    torch.testing.assert_close(F.normalize(method.projectors[2](depth), dim=1).detach(), out.embedding[2 * B : 3 * B])


def test_sensors_without_any_colour_are_views_like_others() -> None:
    torch.manual_seed(0)
    two = nn.ModuleDict({"depth": Tower(1, 4), "edges": Tower(1, 4)})
    method = cmc(two, CMCConfig(projector=HEAD, negatives="in_batch"), KNOWN).double()
    crops = torch.rand(2, B, 1, 2, 2, dtype=torch.float64)
    out = method(Views(tuple(crops), torch.arange(B)), clock())
    assert out.loss.isfinite()
    assert list(method.trunks()) == ["depth", "edges"]
    h, z = method.embed(crops[0])
    assert torch.equal(h, two["depth"](crops[0]))
    assert z.shape == (B, 3)


CHANGES: list[dict[str, Any]] = [
    {"projector": replace(HEAD, dim=2)},
    {"graph": "full"},
    {"negatives": "bank_softmax"},
    {"negatives": "in_batch"},
    {"negatives": "bank_softmax", "bank_negatives": 0},
    {"bank_negatives": M + 1},
    {"bank_momentum": 0.1},
    {"temperature": 0.5},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert not math.isclose(steps(small(3, **change), 4, views=3)[3], steps(small(3), 4, views=3)[3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "method.temperature must be above 0, got 0.0; the paper uses 0.07"),
        ({"bank_negatives": -1}, "method.bank_negatives must be at least 0, got -1; the paper uses 4096"),
        ({"bank_momentum": 1.1}, r"method.bank_momentum must be in \[0, 1\], got 1.1; the paper uses 0.5"),
        (
            {"bank_negatives": 0},
            r"bank_negatives=0 is the softmax .* got method.negatives=bank_nce; type --set method.n",
        ),
        ({"negatives": "in_batch", "bank_negatives": 8}, r"bank_negatives=8 is read by nothing .*negatives=bank_nce"),
        ({"negatives": "in_batch", "bank_momentum": 0.9}, r"bank_momentum=0.9 is read by nothing .*negatives=bank_nce"),
        ({"projector": replace(HEAD, hidden=64)}, "projector.hidden=64 is read between layers, .*projector.layers=2"),
    ],
)
def test_a_setting_out_of_range_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CMCConfig(**changes)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (replace(KNOWN, split="none"), r"one kind; split it .*--set backbone.split=lab --set views.mean=\[0,0,0\]"),
        (replace(KNOWN, crops=(2, 2)), r"views.crops: cmc makes its views of 1 crop, got 2; keep the first"),
    ],
)
def test_views_of_one_kind_or_of_two_crops_are_an_error(known: Known, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CMCConfig().check(known)


def test_a_backbone_that_makes_one_view_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"cmc compares 2 views or more, backbone has 1; split it: --set backbone.split"
    ):
        cmc(Tower(3, 4), CMCConfig(projector=HEAD), KNOWN)


def test_another_number_of_crops_than_towers_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"views.crops: 1 given, .* each of 3 \(rgb, depth, normals\); give these"):
        small(4)(batch(), clock())


@pytest.mark.parametrize("negatives", BANKS)
def test_banks_for_nobody_can_be_weighed_but_not_trained_with(negatives: str) -> None:
    method = small(known=replace(KNOWN, images=0), negatives=negatives)
    assert [bank.shape for bank in banks_of(method)] == [(1, 3)] * 2
    with pytest.raises(ConfigError, match=r"row of its banks for every image .* Known\(images=N\)"):
        method(batch(), clock())


def test_an_image_alone_has_nothing_to_be_told_from() -> None:
    with pytest.raises(ConfigError, match="batch of 1"):
        small(negatives="in_batch")(batch(b=1), clock())


def halves(views: Views) -> list[Views]:
    """The batch as two micro-batches."""
    crops = [crop.chunk(2) for crop in views.crops]
    return [Views(tuple(crop[i] for crop in crops), views.index.chunk(2)[i]) for i in range(2)]


@pytest.mark.parametrize("negatives", [*BANKS, "in_batch"])
def test_a_step_that_is_not_taken_leaves_no_trace(negatives: str) -> None:
    method = small(3, negatives=negatives)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for part in halves(batch(views=3)):
        method(part, clock())
    method.discard()
    method.after_step(clock())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


@pytest.mark.parametrize("negatives", BANKS)
def test_micro_batches_write_the_rows_and_the_z_of_the_whole_batch(negatives: str) -> None:
    method, whole, views = small(3, negatives=negatives), small(3, negatives=negatives), batch(views=3)
    for part in halves(views):
        method(part, clock())
    whole(views, clock())
    for one in (method, whole):
        one.after_step(clock())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(method.state_dict()[name], value)


@pytest.mark.parametrize("negatives", [*BANKS, "in_batch"])
def test_a_restored_method_continues_to_the_bit(negatives: str) -> None:
    method, twin = small(3, negatives=negatives), small(3, negatives=negatives)
    steps(method, 3, views=3)
    twin.load_state_dict(method.state_dict())
    assert steps(method, 3, start=3, views=3) == steps(twin, 3, start=3, views=3)


@pytest.mark.parametrize("negatives", [*BANKS, "in_batch"])
def test_half_precision_gives_a_finite_loss_in_full(negatives: str) -> None:
    method, views = small(negatives=negatives).float(), batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(Views((views.crops[0].float(),), views.index), clock()).loss
    assert loss.dtype == torch.float32
    assert loss.isfinite()


def test_the_parts_are_named_as_they_are() -> None:
    assert small().parts()["objective"] == "NCE (bank and Z a view)"
    assert small(negatives="in_batch").parts()["target"] == "shared (gradient flows)"
    assert small(3).parts()["pairs"] == "(0,1) (1,0) (0,2) (2,0)"


def test_the_presets_are_the_codes_and_leave_the_colours_as_they_are() -> None:
    for preset in (presets.scenes, presets.cifar10, presets.imagenet):
        recipe = preset()
        (crop,) = recipe.views.crops
        assert (crop.jitter, crop.grayscale, crop.blur, crop.hflip) == (0, 0, 0, 0.5)
        assert recipe.backbone.split == "lab"
        assert (recipe.views.mean, recipe.views.std) == ((0, 0, 0), (1, 1, 1))
    paper = presets.imagenet()
    assert paper.method == CMCConfig()
    assert paper.optim.peak_lr(paper.loop.batch_size) == pytest.approx(0.03)
    assert [round(share * paper.loop.epochs) for share, _ in paper.optim.steps] == [120, 160, 200]
    assert presets.cifar10().method == CMCConfig(temperature=0.1)  # the README's for small images


def test_the_small_preset_trains_a_step() -> None:
    recipe = presets.scenes()
    backbone = build_backbone(recipe.backbone, 3, recipe.views.image_size, seed=0)
    torch.manual_seed(0)
    method = cmc(backbone, recipe.method, recipe.known(100))  # type: ignore[arg-type]
    views = Views((torch.rand(8, 3, 32, 32),), torch.arange(8))
    loss = method(views, Clock(0, 10, 5)).loss
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad is not None for parameter in method.parameters())
