"""Statistics: put back where asked, and shared batch norm equal to torch's on one process (two: tests/distributed),
and split batch norm to torch's of each group by itself."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.batch_norm import SplitBatchNorm, SyncBatchNorm, split, statistics, synchronise, untouched_statistics
from stopgrad.nn.heads import BatchNorm


def test_a_forward_inside_leaves_every_statistic_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False))
    before = [buffer.clone() for buffer in statistics(model)]
    with untouched_statistics(model):
        model(torch.randn(8, 3))
        assert not torch.equal(statistics(model)[0], before[0])
    assert all(torch.equal(a, b) for a, b in zip(statistics(model), before))
    model(torch.randn(8, 3))
    assert not torch.equal(statistics(model)[0], before[0])


def test_shared_batch_norm_is_torchs_definition_forward_backward_and_running() -> None:
    torch.manual_seed(0)
    theirs = nn.BatchNorm2d(5).double()
    nn.init.normal_(theirs.weight)
    ours = synchronise(nn.Sequential(theirs))[0]  # type: ignore[index]
    assert isinstance(ours, SyncBatchNorm)
    theirs = nn.Sequential(nn.BatchNorm2d(5).double())[0]
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(6, 5, 3, 3, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    out_a, out_b = ours.double()(a), theirs(b)
    torch.testing.assert_close(out_a, out_b)
    weights = torch.randn_like(x)
    (out_a * weights).sum().backward()
    (out_b * weights).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.num_batches_tracked, theirs.num_batches_tracked)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_a_norm_that_does_more_than_normalise_is_refused_and_a_frozen_one_stays_frozen() -> None:
    from timm.layers import BatchNormAct2d

    with pytest.raises(ConfigError, match="BatchNormAct2d does more than normalise"):
        synchronise(nn.Sequential(BatchNormAct2d(4)))
    frozen = nn.Sequential(nn.BatchNorm2d(4)).requires_grad_(False)
    assert not any(parameter.requires_grad for parameter in synchronise(frozen).parameters())


def split_and_groups(norm: nn.Module, splits: int) -> tuple[SplitBatchNorm, list[nn.Module]]:
    """A norm in groups, and as many ordinary ones with the same parameters and statistics."""
    nn.init.normal_(norm.weight)  # type: ignore[arg-type]
    nn.init.normal_(norm.running_mean)  # type: ignore[arg-type]
    groups = [copy.deepcopy(norm) for _ in range(splits)]
    made = split(nn.Sequential(norm), splits)[0]  # type: ignore[index]
    assert isinstance(made, SplitBatchNorm)
    return made, groups


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last, None], ids=str)
def test_each_group_is_normalised_as_by_a_batch_norm_of_its_own(form: torch.memory_format | None) -> None:
    torch.manual_seed(0)
    shape = (6, 5) if form is None else (6, 5, 4, 4)
    ours, theirs = split_and_groups(BatchNorm(5) if form is None else nn.BatchNorm2d(5), 3)
    x = torch.randn(shape)
    x = x if form is None else x.contiguous(memory_format=form)
    weights = torch.randn(shape)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    out = ours(a)
    expected = torch.cat([norm(part) for norm, part in zip(theirs, b.chunk(3))])
    assert torch.equal(out, expected)
    assert form is None or out.is_contiguous(memory_format=form)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(a.grad, b.grad)
    for name in ("weight", "bias"):
        together = torch.stack([getattr(norm, name).grad for norm in theirs]).sum(0)
        torch.testing.assert_close(getattr(ours, name).grad, together)
    for name in ("running_mean", "running_var"):
        mean = torch.stack([getattr(norm, name) for norm in theirs]).mean(0)
        torch.testing.assert_close(getattr(ours, name), mean)
    assert int(ours.num_batches_tracked) == 1  # type: ignore[arg-type]
    ordinary = nn.BatchNorm1d(5) if form is None else nn.BatchNorm2d(5)
    ordinary.load_state_dict(ours.state_dict())
    assert torch.equal(ours.eval()(x), ordinary.eval()(x))


@pytest.mark.parametrize("settings", [{"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str)
def test_a_split_norm_keeps_the_settings_of_the_one_it_replaces(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm1d(4, **settings)
    ours = split(nn.Sequential(copy.deepcopy(plain)), 2)[0]  # type: ignore[index]
    for _ in range(2):
        half = torch.randn(5, 4)
        torch.testing.assert_close(ours(half.repeat(2, 1)), plain(half).repeat(2, 1))
    assert str(ours) == str(plain).replace("BatchNorm1d", "SplitBatchNorm")
    assert ours.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
    torch.testing.assert_close(ours.eval()(half), plain.eval()(half))


def test_a_heads_norm_stays_in_float32_when_it_is_split() -> None:
    ours = split(nn.Sequential(BatchNorm(4)), 2)
    x = torch.randn(6, 4).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(ours(x), torch.cat([BatchNorm(4)(part) for part in x.float().chunk(2)]))


def test_splitting_keeps_the_tensors_and_leaves_alone_what_it_can_not_split() -> None:
    from timm.layers import BatchNormAct2d

    with pytest.raises(ConfigError, match="BatchNormAct2d does more than normalise, so it can't be split"):
        split(nn.Sequential(BatchNormAct2d(4)), 2)
    with pytest.raises(ConfigError, match="SplitBatchNorm does more than normalise"):
        split(split(nn.Sequential(nn.BatchNorm2d(4)), 2), 4)
    with pytest.raises(ConfigError, match="into 0 groups; use 1 or more"):
        split(nn.Sequential(nn.BatchNorm2d(4)), 0)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4))).requires_grad_(False).eval()
    before = model.state_dict(keep_vars=True)
    split(model, 2)
    assert isinstance(model[1][0], SplitBatchNorm)  # type: ignore[index]
    assert not model[1][0].training  # type: ignore[index]
    assert all(value is before[name] for name, value in model.state_dict(keep_vars=True).items())
    assert len(statistics(model)) == 3
    synchronise(model)
    assert isinstance(model[1][0], SplitBatchNorm)  # type: ignore[index]


@pytest.mark.parametrize(("batch", "fits"), [(10, 8), (3, 8), (4, 8)])
def test_a_batch_that_makes_no_groups_says_which_does(batch: int, fits: int) -> None:
    norm = split(nn.Sequential(nn.BatchNorm1d(3)), 4)
    with pytest.raises(ConfigError, match=f"in 4 groups.*has {batch}: use {fits} "):
        norm(torch.randn(batch, 3))
    assert norm(torch.randn(fits, 3)).shape == (fits, 3)


def test_what_is_measured_is_not_split_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    plain = nn.BatchNorm1d(3)
    norm = split(nn.Sequential(copy.deepcopy(plain)), 4)
    x, before = torch.randn(7, 3), [buffer.clone() for buffer in statistics(norm)]
    with untouched_statistics(norm):
        assert torch.equal(norm(x), plain(x))
    assert all(torch.equal(a, b) for a, b in zip(statistics(norm), before))
    with pytest.raises(ConfigError, match="in 4 groups"):
        norm(x)
