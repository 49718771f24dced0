"""The algebra of rotations in double precision: nothing but rounding is left. Whole models: tests/pipeline."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from helpers_math import random
from quantbench.transforms.rotation import Rotation

close = partial(torch.testing.assert_close, rtol=0, atol=1e-13)


def norm(x: Tensor) -> Tensor:
    return x / x.square().mean(-1, keepdim=True).sqrt()


def drawn(*shape: int, seed: int) -> Tensor:
    return random(*shape, seed=seed).double()


@pytest.mark.parametrize("width", [8, 12, 36])
def test_the_stream_is_rotated_once_gains_are_folded(width: int) -> None:
    R = Rotation().matrix(width, "residual").matrix()
    x, gain = drawn(5, width, seed=0), drawn(width, seed=1)
    reader, writer = drawn(7, width, seed=2) / width, drawn(width, 7, seed=3) / width
    wanted = x + (norm(x) * gain @ reader.T).relu() @ writer.T
    inner = (norm(x @ R) @ (reader * gain @ R).T).relu()
    close((x @ R + inner @ (R.T @ writer).T) @ R.T, wanted)
    unfolded = (norm(x @ R) * gain @ (reader @ R).T).relu()
    assert float((unfolded - inner).abs().max()) > 0.01
    centred = norm((x - x.mean(-1, keepdim=True)) @ R) @ (reader * gain @ R).T  # as QuaRot's authors do
    assert float((centred.relu() - inner).abs().max()) > 0.01


def test_each_heads_values_are_rotated_through_the_mixing_of_tokens() -> None:
    R = Rotation().matrix(6, "value").matrix()
    mixing, values, output = drawn(5, 5, seed=4).softmax(-1), drawn(5, 6, seed=5), drawn(7, 6, seed=6)
    close(mixing @ (values @ R) @ (output @ R).T, mixing @ values @ output.T)


def test_what_is_rotated_as_the_model_runs_is_undone_by_the_weight() -> None:
    heads, width = 3, 4
    x, weight = drawn(5, heads * width, seed=7), drawn(7, heads * width, seed=8)
    down, across = Rotation().matrix(heads * width, "down"), Rotation().matrix(heads, "heads")
    close(down.apply(x) @ down.apply(weight).T, x @ weight.T)
    close(across.apply(x, stride=width) @ across.apply(weight, stride=width).T, x @ weight.T)
