"""Measuring one piece of work, not what came before it."""

from __future__ import annotations

import sys

import pytest
import torch

from quantbench.core.meter import Meter

CPU = torch.device("cpu")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a part can be had on Linux only")
def test_the_peak_is_that_of_the_work_alone() -> None:
    first = Meter(CPU)
    large = torch.ones(64 << 20)
    found = first.read()
    if not found["peak_memory_alone"]:
        pytest.skip("this system does not let a process reset its peak")
    del large
    second = Meter(CPU).read()
    assert second["peak_memory_bytes"] < found["peak_memory_bytes"] - (128 << 20)


def test_processor_time_is_measured() -> None:
    meter = Meter(CPU)
    matrix = torch.ones(600, 600)
    for _ in range(20):
        matrix @ matrix
    found = meter.read()
    assert found["cpu_seconds"] > 0
    assert found["seconds"] > 0
