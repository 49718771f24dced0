"""A quantization that is interrupted goes on after its last stored block, and ends as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.models.handle import ModelHandle
from quantbench.pipeline import checkpoint as module
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import Quantized
from quantbench.pipeline.walker import quantize_model
from recipes import quickened, recipe_spec
from tiny import FAMILIES, tiny_handle

INPUTS = {"model": "m", "calib_tokens": "c"}


def quick_recipe(name: str) -> Recipe:
    return build(quickened(recipe_spec(name)), Recipe, "quantizer")


class StoppedError(Exception):
    pass


def quantize(
    handle: ModelHandle, name: str, checkpoint: Checkpoint | None = None, stop_at: int | None = None
) -> Quantized:
    recipe = quick_recipe(name)
    tokens = torch.randint(0, 64, (4, 24), generator=torch.Generator().manual_seed(0))

    def show(done: int, _total: int) -> None:
        if done == stop_at:
            raise StoppedError

    return quantize_model(handle, recipe, None if recipe.data_free else tokens, torch.device("cpu"), show, checkpoint)


def plain(found: Quantized) -> list[tuple[object, ...]]:
    return [(x.name, x.loss, x.bits_per_weight, x.fallbacks, x.notes) for x in found.layers]


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("rtn", "llama"),
        ("gptq", "llama"),
        ("gptq", "mixtral"),
        ("awq", "llama"),
        ("smoothquant", "opt"),
        ("os_plus", "llama"),
        ("quarot", "llama"),
        ("kivi2", "llama"),
        ("gptq_mixed", "llama"),
        ("signround", "llama"),
    ],
)
def test_continued_it_ends_bit_for_bit_as_undisturbed(name: str, family: str, tmp_path: Path) -> None:
    undisturbed = quantize(tiny_handle(FAMILIES[family]()), name)
    checkpoint = Checkpoint(tmp_path / "checkpoint", 1, INPUTS)
    with pytest.raises(StoppedError):
        quantize(tiny_handle(FAMILIES[family]()), name, checkpoint, stop_at=1)
    done = checkpoint.load()
    assert done is not None
    assert done.blocks == 1
    continued = quantize(tiny_handle(FAMILIES[family]()), name, checkpoint)
    assert continued.artifact.fingerprint() == undisturbed.artifact.fingerprint()
    assert plain(continued) == plain(undisturbed)
    assert len(continued.artifact.ops) == len(undisturbed.artifact.ops)
    checkpoint.remove()
    assert checkpoint.load() is None


def test_the_first_blocks_are_not_walked_again(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", 1, INPUTS)
    with pytest.raises(StoppedError):
        quantize(tiny_handle(), "gptq", checkpoint, stop_at=1)
    seen: list[int] = []
    recipe = quick_recipe("gptq")
    tokens = torch.randint(0, 64, (4, 24), generator=torch.Generator().manual_seed(0))
    quantize_model(tiny_handle(), recipe, tokens, torch.device("cpu"), lambda i, _n: seen.append(i), checkpoint)
    assert seen == [1, 2]


def test_a_step_counts_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(tmp_path / "checkpoint", 1, INPUTS)
    undisturbed = quantize(tiny_handle(), "gptq")
    with pytest.raises(StoppedError):
        quantize(tiny_handle(), "gptq", checkpoint, stop_at=1)

    def killed(*_args: object) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_json", killed)
        with pytest.raises(StoppedError):
            quantize(tiny_handle(), "gptq", checkpoint)
    done = checkpoint.load()
    assert done is not None
    assert done.blocks == 1
    assert quantize(tiny_handle(), "gptq", checkpoint).artifact.fingerprint() == undisturbed.artifact.fingerprint()
    assert [path.name for path in checkpoint.folder.glob("*.hidden")] == ["2.hidden"]
    (checkpoint.folder / "2.hidden").unlink()
    with pytest.raises(StoreError, match=r"2\.hidden"):
        checkpoint.load()


def test_a_checkpoint_of_other_inputs_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    with pytest.raises(StoppedError):
        quantize(tiny_handle(), "gptq", Checkpoint(folder, 1, INPUTS), stop_at=1)
    with pytest.raises(StoreError, match="made with another model, tokenizer or calibration text"):
        Checkpoint(folder, 1, {**INPUTS, "calib_tokens": "other"}).load()
