"""What reaches an embedding, as pull and push: the parts are the closed forms where there are any, their sum is what
autograd finds, and nothing is left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad.assemble import api
from stopgrad.cli.app import app
from stopgrad.contracts import ConfigError
from stopgrad.losses import gradients as forms
from stopgrad.methods import METHODS
from stopgrad.rundir import RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.reaching import measured, reaching, turning
from stopgrad.study.reached import gradients
from stopgrad.training.progress import Progress
from tests.methods.small import batch, small
from tests.methods.toy import clock

FAMILY = [name for name in METHODS if name not in ("cpc", "cmc", "clip")]
QUIET = Progress(quiet=True)


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=1)


def caught(method: Siamese, name: str) -> tuple[Any, ...]:
    """What the objective is called with in a forward on `batch`."""
    given: list[Any] = []
    handle = method.objective.register_forward_pre_hook(lambda _, args: given.append(args))
    out = method(batch(name, dtype=torch.float64), clock())
    handle.remove()
    return (*given[0], out.loss)


@pytest.mark.parametrize("name", FAMILY)
def test_the_parts_are_all_of_what_turns_an_embedding(name: str) -> None:
    method = small(name).double()
    assert isinstance(method, Siamese)
    found = reaching(method, batch(name, dtype=torch.float64), clock())
    twin = small(name).double()
    assert isinstance(twin, Siamese)
    _, z, _, pairs, _, _, loss = caught(twin, name)
    assert set(found) == set(pairs.online)
    for view, parts in found.items():
        (gradient,) = torch.autograd.grad(loss, z[view], retain_graph=True)
        vector = z[view].detach()
        assert parts.positive.abs().sum() > 0
        assert parts.negative.abs().sum() > 0
        torch.testing.assert_close(parts.whole, turning(gradient, vector), rtol=1e-6, atol=1e-9)
        sideways = (parts.whole * unit(vector)).sum(dim=1)
        torch.testing.assert_close(sideways, torch.zeros_like(sideways), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", FAMILY)
def test_measuring_leaves_the_method_as_it_was(name: str) -> None:
    method = small(name)
    views = batch(name)
    before = {
        key: value.clone() for key, value in method.state_dict().items() if "running" not in key and "num_b" not in key
    }
    said = measured(method, views, clock())
    assert set(said) == {"gradient_positive", "gradient_negative", "gradient_balance"}
    assert all(value > 0 for value in said.values())
    method.after_step(clock()) if name not in ("byol", "directpred") else None
    after = method.state_dict()
    moved = [key for key, value in before.items() if not torch.equal(value, after[key])]
    # a slow copy may follow and prototypes be made unit vectors; nothing was remembered
    assert [key for key in moved if "target" not in key and "prototypes" not in key] == []
    assert all(parameter.grad is None for parameter in method.parameters())


def turned(vector: Tensor, gradient: Tensor) -> Tensor:
    """Of a gradient by unit vectors what turns them."""
    u = unit(vector)
    return gradient - (gradient * u).sum(dim=1, keepdim=True) * u


def test_unigrad_s_parts_are_its_closed_form() -> None:
    method = small("unigrad").double()
    assert isinstance(method, Siamese)
    found = reaching(method, batch("unigrad", dtype=torch.float64), clock())
    p, z, t, *_ = caught(method, "unigrad")
    f = method.objective.correlation.with_batch(  # type: ignore[union-attr]
        torch.stack([forms.correlation(t[view]) for view in (0, 1)]).mean(dim=0)
    )
    for view, other in ((0, 1), (1, 0)):
        u = unit(p[view].detach())
        parts = forms.correlation_gradient(u, unit(t[other]), f, 100.0)
        for ours, theirs in zip(found[view], parts):
            torch.testing.assert_close(2 * ours, turned(z[view].detach(), theirs), rtol=1e-6, atol=1e-9)


def test_moco_s_parts_are_the_contrastive_closed_form() -> None:
    method = small("moco_v2").double()
    assert isinstance(method, Siamese)
    found = reaching(method, batch("moco_v2", dtype=torch.float64), clock())
    _, z, t, pairs, _, _, _ = caught(method, "moco_v2")
    ((online, target),) = pairs.both
    u, key, queue = unit(z[online].detach()), unit(t[target]), method.objective.queue.keys  # type: ignore[union-attr]
    rows = []
    for i in range(len(u)):
        keys = torch.cat([key[i : i + 1], queue])
        parts = forms.contrastive_gradient(u[i : i + 1], key[i : i + 1], keys, 0.2)
        rows.append((parts.positive, parts.negative))
    for ours, theirs in zip(found[online], (torch.cat(each) for each in zip(*rows))):
        torch.testing.assert_close(ours, turned(z[online].detach(), theirs), rtol=1e-6, atol=1e-9)


def test_a_cosine_s_pull_lies_along_its_target() -> None:
    method = small("simsiam").double()
    assert isinstance(method, Siamese)
    found = reaching(method, batch("simsiam", dtype=torch.float64), clock())
    _, z, t, *_ = caught(method, "simsiam")
    for view, other in ((0, 1), (1, 0)):
        towards = unit(turned(z[view].detach(), unit(t[other])))
        torch.testing.assert_close(
            (found[view].negative * towards).sum(dim=1),
            torch.zeros(len(towards), dtype=torch.float64),
            rtol=0,
            atol=1e-9,
        )


@pytest.mark.parametrize("name", ["cpc", "cmc", "clip"])
def test_methods_of_another_kind_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="none of that family"):
        reaching(small(name), batch(name), clock())


SMALL = (
    "backbone.width=8",
    "data.limit=80",
    "loop.batch_size=16",
    "loop.threads=1",
    "loop.view_threads=1",
    "watch={every_steps: 2, images: 16, knn_every_steps: 100, knn_bank: 20}",
    "eval={random_seeds: 1, k: [3], retrieval_images: 8, linear: none}",
)


def test_a_run_logs_them_and_the_command_draws_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for method in ("simclr", "simsiam"):
        settings = (*SMALL, "watch.gradients=true")
        api.train(method, out=tmp_path, name=method, epochs=1, settings=settings, progress=QUIET)
        runs.append(str(tmp_path / method))
    log = RunDir(tmp_path / "simclr").read_log()
    assert sum("gradient_balance" in line for line in log) >= 3
    drawing = tmp_path / "both.svg"
    app(["gradients", *runs, "-o", str(drawing)], result_action="return_value")
    said = capsys.readouterr().out
    assert "simclr" in said
    assert "pull, first" in said
    assert drawing.read_text().count(">simsiam<") == 1
    api.train("simclr", out=tmp_path, name="without", epochs=1, settings=SMALL, progress=QUIET)
    plain, measured_run = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("without", "simclr"))
    assert [row for row in plain if row["name"] == "knn_top1"] == [
        row for row in measured_run if row["name"] == "knn_top1"
    ], "measuring changed what was learnt"
    with pytest.raises(ConfigError, match=r"has not measured what reaches its embeddings; .*watch.gradients=true"):
        gradients([tmp_path / "without"], drawing)


def test_what_can_not_be_measured_is_told_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"watch\.gradients takes apart"):
        api.train("cpc", out=tmp_path, epochs=1, settings=(*SMALL, "watch.gradients=true"), progress=QUIET)
