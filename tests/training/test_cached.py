"""A large batch in parts: the gradient of the whole where images are encoded one by one, refused where they are not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Views
from stopgrad.method import Method
from stopgrad.training import cached
from stopgrad.training.loop import micro_batches
from tests.methods import small as made
from tests.methods.small import batch, small

NO_NORM = {"projector": {"layers": 2, "hidden": 12, "dim": 12, "norm": "none", "output_norm": "none"}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "simclr": ("simclr", NO_NORM),
    "simclr, a predictor with batch norm": ("simclr", {**NO_NORM, "predictor": "mlp", "predictor_hidden": 5}),
    "simclr, a slow copy": ("simclr", {**NO_NORM, "target": "momentum"}),
    "simclr by yes and no": ("simclr", {**NO_NORM, "loss": "nt_logistic", "semi_hard": True}),
    "invaspread": ("invaspread", {}),
    "moco_v3": ("moco_v3", NO_NORM),
    "clip": ("clip", {}),
}


def without_norms(name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Method:
    """The method on a trunk that sees each image by itself."""
    monkeypatch.setitem(made.TRUNKS, name, {"norm": "layer"})
    return small(name, **changes).double()


def gradients(method: Method) -> list[Tensor | None]:
    found = [None if p.grad is None else p.grad.clone() for p in method.parameters()]
    method.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("case", CASES)
def test_parts_have_the_loss_and_gradient_of_the_whole(case: str, parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    name, changes = CASES[case]
    method = without_norms(name, monkeypatch, **changes)
    assert method.compares_images
    cached.check(method, parts)
    views, now = batch(name, dtype=torch.float64), Clock(1, 10, 5)
    whole = method(views, now)
    whole.loss.backward()  # type: ignore[no-untyped-call]
    expected = gradients(method)
    method.discard()
    out = cached.backward(method, micro_batches(views, parts), views, now, bf16=False)
    assert out.loss.item() == pytest.approx(whole.loss.item(), rel=1e-9)
    assert len(out.embedding) == len(whole.embedding)
    for found, wanted in zip(gradients(method), expected, strict=True):
        assert (found is None) == (wanted is None)
        if found is not None and wanted is not None:
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-10)
    alone = [method(part, now).loss.item() for part in micro_batches(views, parts)]
    assert sum(alone) / parts != pytest.approx(whole.loss.item(), rel=1e-3), "parts by themselves are another loss"


def test_dropout_leaves_out_the_same_units_both_times_and_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    method = without_norms("simclr", monkeypatch, **NO_NORM)
    method.projector = nn.Sequential(nn.Dropout(0.5), method.projector)  # type: ignore[assignment]
    views, now = batch("simclr", dtype=torch.float64), Clock(1, 10, 5)
    seen: list[Tensor] = []
    method.projector.register_forward_hook(lambda module, given, out: seen.append(out.detach()))  # type: ignore[union-attr,operator]
    torch.manual_seed(3)
    cached.backward(method, micro_batches(views, 3), views, now, bf16=False)
    assert len(seen) == 6
    assert all(torch.equal(first, again) for first, again in zip(seen[:3], seen[3:]))
    ended = torch.get_rng_state()
    torch.manual_seed(3)
    with torch.no_grad():
        for part in micro_batches(views, 3):
            method.encoded(part)
    assert torch.equal(torch.get_rng_state(), ended)  # as after one pass


def test_a_batch_norm_is_refused_with_what_to_do() -> None:
    method = small("simclr")
    cached.check(method, 1)
    with pytest.raises(ConfigError, match=r"loop.accumulate=4: .* a batch norm \(bn\) sees .*moco_v2"):
        cached.check(method, 4)
    cached.check(small("simsiam"), 4)  # compares no images; its batch norm is the user's to weigh


def test_a_method_in_one_piece_says_so() -> None:
    method = small("cpc")
    for half in (lambda: method.encoded(Views((), torch.zeros(0))), lambda: method.loss_of((), None, None)):  # type: ignore[arg-type]
        with pytest.raises(NotImplementedError, match="has its forward in one piece"):
            half()
