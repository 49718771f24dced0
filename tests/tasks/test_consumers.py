from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional

from quantbench.tasks.consumers import Divergence, NegativeLogLikelihood

T, V = 12, 31


def blocks() -> Iterator[slice]:
    """The positions in blocks of five."""
    return (slice(start, start + 5) for start in range(0, T, 5))


def random_logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(T, V, generator=torch.Generator().manual_seed(seed)).double()


def test_nll_is_cross_entropy_also_in_blocks() -> None:
    logits, targets = random_logits(0), torch.arange(T)
    consumer = NegativeLogLikelihood()
    for block in blocks():
        consumer.update(logits[block].log_softmax(1), targets[block], None)
    expected = functional.cross_entropy(logits.double(), targets).item()
    assert consumer.means() == {"nll": pytest.approx(expected, rel=1e-6)}


def test_divergence_is_torchs_kl_div_from_the_reference() -> None:
    quantized, reference = random_logits(0).log_softmax(1), random_logits(1).log_softmax(1)
    consumer = Divergence()
    for block in blocks():
        consumer.update(quantized[block], torch.zeros(0), reference[block])
    expected = functional.kl_div(quantized.double(), reference.double(), reduction="batchmean", log_target=True)
    same = (quantized.argmax(1) == reference.argmax(1)).float().mean().item()
    assert consumer.means() == {"kl": pytest.approx(expected.item(), rel=1e-5), "top1_agreement": pytest.approx(same)}


def test_divergence_of_two_coins() -> None:
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.25, 0.75]])
    consumer = Divergence()
    consumer.update(q.log(), torch.zeros(0), p.log())
    assert consumer.means() == {"kl": pytest.approx(0.5 * math.log(3)), "top1_agreement": 0.0}


def test_divergence_of_a_model_from_itself_is_exactly_zero() -> None:
    log_probs = random_logits(0).log_softmax(1)
    consumer = Divergence()
    consumer.update(log_probs, torch.zeros(0), log_probs.clone())
    assert consumer.means() == {"kl": 0.0, "top1_agreement": 1.0}
