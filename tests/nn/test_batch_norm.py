"""Statistics: put back where asked, and shared batch norm equal to torch's on one process (two: tests/distributed)."""

import pytest
import torch
from torch import nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.batch_norm import SyncBatchNorm, statistics, synchronise, untouched_statistics


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
