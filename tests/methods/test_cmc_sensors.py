"""CMC of several sensors in one crop is CMC of a crop each: the same losses, and each tower learns from its own."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.cmc import CMCConfig, cmc
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.towers import SensorTowers
from stopgrad.siamese.cross_view import CrossView
from tests.methods.toy import clock

SENSORS, SIDE, B = (3, 1, 3), 8, 6
KNOWN = Known(crops=(SIDE,), batch_size=B, accumulate=1, backbone="tiny", images=12, split="sensors_lab")
CONFIG = CMCConfig(graph="full", negatives="in_batch", temperature=0.2)


def backbone(split: str = "sensors_lab") -> SensorTowers:
    config = BackboneConfig(name="tiny", width=8 if split == "sensors" else 16, split=split)  # type: ignore[arg-type]
    found = build_backbone(config, sum(SENSORS), SIDE, 0, SENSORS)
    assert isinstance(found, SensorTowers)
    return found


def method(trunk: nn.Module, config: CMCConfig = CONFIG) -> CrossView:
    config.check(KNOWN)
    torch.manual_seed(3)
    return cmc(trunk, config, KNOWN).double()


def crop() -> Tensor:
    return torch.rand(B, sum(SENSORS), SIDE, SIDE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("graph", ["core", "full"])
def test_one_crop_of_all_sensors_is_a_crop_each(graph: str) -> None:
    config = replace(CONFIG, graph=graph)  # type: ignore[arg-type]
    index = torch.arange(B)
    together = method(backbone(), config)
    out = together(Views((crop(),), index), clock())
    towers = nn.ModuleDict(dict(zip(("rgb", "depth", "normals"), backbone().towers)))
    apart = method(towers, config)
    expected = apart(Views(tuple(crop().split(list(SENSORS), dim=1)), index), clock())
    assert out.loss.item() == pytest.approx(expected.loss.item(), rel=1e-12)
    assert torch.equal(out.embedding, expected.embedding)
    assert len(together.projectors) == 4  # L, ab, depth, normals
    assert len(together.pairs.both) == {"core": 6, "full": 12}[graph]


def test_the_first_kind_is_compared_with_the_mean_of_the_others() -> None:
    made = method(backbone())
    found = made.across(crop())
    assert found is not None
    _, z = made.embed(crop())
    parts = z.chunk(4, dim=1)
    assert torch.equal(found[0], parts[0])
    torch.testing.assert_close(found[1], torch.nn.functional.normalize((parts[1] + parts[2] + parts[3]) / 3, dim=1))


def test_every_tower_learns() -> None:
    made = method(backbone())
    made(Views((crop(),), torch.arange(B)), clock()).loss.backward()  # type: ignore[no-untyped-call]
    trunk = made.backbone
    assert isinstance(trunk, SensorTowers)
    stems = [part.stem.weight for part in (trunk.towers[0].luminance, trunk.towers[0].chrominance, *trunk.towers[1:])]  # type: ignore[union-attr]
    assert all(stem.grad is not None and float(stem.grad.abs().sum()) > 0 for stem in stems)


def test_the_kept_trunk_is_all_towers_and_the_monitor_reads_them_side_by_side() -> None:
    made = method(backbone("sensors"))
    assert list(made.trunks()) == ["backbone"]
    features, z = made.embed(crop())
    assert torch.equal(features, made.backbone(crop()))
    assert z.shape == (B, 3 * 128)


def test_two_crops_are_no_sensors() -> None:
    with pytest.raises(ConfigError, match="makes its views of 1 crop, got 2"):
        CONFIG.check(replace(KNOWN, crops=(SIDE, SIDE)))
    with pytest.raises(ConfigError, match=r"--set backbone\.split=sensors"):
        CONFIG.check(replace(KNOWN, split="none"))
