"""A model that memory does not hold gives windows the scores that any other gives, with each block read once."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from made_windows import some_windows
from quantbench.core.memory import Memory
from quantbench.models.handle import ModelHandle
from quantbench.models.head import head_on
from quantbench.models.structure import find_blocks
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks import blockwise as blockwise_module
from quantbench.tasks.reference import Reference
from quantbench.tasks.task import Outcome
from recipes import make_recipe
from tiny import FAMILIES, VOCABULARY, tiny_deepseek_v3, tiny_handle, tiny_llama_tied

CPU = torch.device("cpu")


def scores(handle: ModelHandle, folder: Path) -> list[Outcome]:
    """Those of full precision, which is captured, and of what a recipe makes of it."""
    path, windows = folder / f"{handle.large}.safetensors", some_windows(5)
    found = [windows.score(handle, "t", Reference.capture(path), CPU, lambda _done, _total: None)]
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))
    recipe = make_recipe("w8a8", "quantizer.policy.lm_head=true")
    quantize_model(handle, recipe, tokens, CPU, lambda _done, _all: None).artifact.install(handle)
    return [*found, windows.score(handle, "t", Reference.load(path), CPU, lambda _done, _total: None)]


@pytest.mark.parametrize("family", [*FAMILIES, "deepseek_v3", "tied"])
@pytest.mark.parametrize("together", [2, 100])
def test_scores_are_the_same_to_the_bit(
    family: str, together: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = {**FAMILIES, "deepseek_v3": tiny_deepseek_v3, "tied": tiny_llama_tied}[family]
    usual, large = tiny_handle(make()), tiny_handle(make())
    large.memory = Memory(1000, tmp_path / "spill")
    monkeypatch.setattr(blockwise_module, "STATES_BYTES", together * 24 * 32 * 4)
    for one, other in zip(scores(usual, tmp_path), scores(large, tmp_path), strict=True):
        pd.testing.assert_frame_equal(one.items, other.items, check_exact=True)
        assert one.positions is not None
        assert other.positions is not None
        pd.testing.assert_frame_equal(one.positions, other.positions, check_exact=True)


def test_a_block_is_done_with_before_the_next_one_begins(tmp_path: Path) -> None:
    handle = tiny_handle()
    handle.memory = Memory(1000, tmp_path)
    order: list[int] = []
    _, blocks = find_blocks(handle.model)
    for index, block in enumerate(blocks):
        inner = next(module for module in block.modules() if isinstance(module, nn.Linear))
        inner.register_forward_hook(lambda *_args, index=index: order.append(index))
    some_windows(5).score(handle, "t", None, CPU, lambda _done, _total: None)
    assert order[-10:] == [0] * 5 + [1] * 5


def test_a_head_on_another_device_leaves_the_embedding_it_shares_weights_with() -> None:
    model, meta = tiny_llama_tied(), torch.device("meta")
    moved = head_on(model.lm_head, meta)
    assert moved.weight.device == meta
    assert isinstance(model.lm_head.weight, Tensor)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.lm_head.weight.device == CPU
    assert head_on(model.lm_head, CPU) is model.lm_head
