from __future__ import annotations

import pytest
import torch

from quantbench.calibration.base import CalibSet
from quantbench.calibration.replicates import reordered


def drawn(n: int = 6) -> CalibSet:
    tokens = torch.arange(4 * n).reshape(n, 4)
    return CalibSet(tokens, "text", "train", "r1", "f" * 64, ("a", "b"), seed=0, draw=2)


def rows(calib: CalibSet) -> list[tuple[int, ...]]:
    return [tuple(row.tolist()) for row in calib.tokens]


def test_replicate_0_is_the_set_as_it_was_drawn() -> None:
    assert reordered(drawn(), 0).fingerprint == drawn().fingerprint


@pytest.mark.parametrize("replicate", [1, 2, 3])
def test_a_replicate_has_the_same_sequences_in_another_order(replicate: int) -> None:
    found = reordered(drawn(), replicate)
    assert rows(found) != rows(drawn())
    assert sorted(rows(found)) == sorted(rows(drawn()))
    assert found.fingerprint != drawn().fingerprint
    assert found.provenance() == drawn().provenance()


def test_a_replicate_is_the_same_every_time_and_no_other() -> None:
    orders = [rows(reordered(drawn(), replicate)) for replicate in (1, 2, 3)]
    assert orders == [rows(reordered(drawn(), replicate)) for replicate in (1, 2, 3)]
    assert len(set(map(tuple, orders))) == 3


def test_a_single_sequence_has_one_order() -> None:
    assert rows(reordered(drawn(1), 5)) == rows(drawn(1))
