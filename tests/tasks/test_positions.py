"""What is measured at positions: against torch, by hand, and in blocks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from quantbench.tasks import logits as logits_module
from quantbench.tasks.positions import distributions, outcomes

T, V = 12, 31


def measured(ours: Tensor, theirs: Tensor | None, targets: Tensor) -> dict[str, Tensor]:
    """Of logits [T, V], block by block."""
    parts = []
    references = None if theirs is None else distributions(theirs)
    for block, q in distributions(ours):
        parts.append(outcomes(q, targets[block], None if references is None else next(references)[1]))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def random_logits(seed: int) -> Tensor:
    return 3 * torch.randn(T, V, generator=torch.Generator().manual_seed(seed))


def test_outcomes_in_blocks_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logits_module, "BLOCK_BYTES", 5 * 8 * V)
    ours, theirs, targets = random_logits(0), random_logits(1), torch.arange(T)
    q, p = (logits.double().log_softmax(1) for logits in (ours, theirs))
    found = measured(ours, theirs, targets)
    kl, reverse = (
        functional.kl_div(one, other, reduction="none", log_target=True).sum(1) for one, other in ((q, p), (p, q))
    )
    picked = targets[:, None]
    expected = {
        "nll": functional.cross_entropy(ours.double(), targets, reduction="none"),
        "kl": kl,
        "reverse_kl": reverse,
        "delta_p": (q.exp() - p.exp()).gather(1, picked)[:, 0],
        "same_top1": (q.argmax(1) == p.argmax(1)).double(),
        "entropy": -(p.exp() * p).sum(1),
    }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert found[name].dtype == torch.float64
        torch.testing.assert_close(found[name], values, rtol=1e-12, atol=1e-12, msg=name)
    assert list(measured(ours, None, targets)) == ["nll"]


def test_two_coins() -> None:
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    found = measured(q.log(), p.log(), torch.tensor([1]))
    assert found["kl"].item() == found["reverse_kl"].item() == pytest.approx(0.5 * math.log(3))
    assert found["delta_p"].item() == pytest.approx(0.5)
    assert found["entropy"].item() == pytest.approx(math.log(4) - 0.75 * math.log(3))
    assert found["same_top1"].item() == 0


def test_a_model_does_not_diverge_from_itself_at_all() -> None:
    logits = random_logits(0)
    found = measured(logits, logits.clone(), torch.zeros(T, dtype=torch.int64))
    assert not any(found[name].any() for name in ("kl", "reverse_kl", "delta_p"))
    assert found["same_top1"].all()
