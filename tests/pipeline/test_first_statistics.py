"""Statistics before a block is changed: only those that something reads, at no cost but theirs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quantbench.core.input_stats import LinearStats
from quantbench.models.groups import InputGroup
from quantbench.pipeline.capture import START
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.replay import BlockReplay
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import FAMILIES, tiny_handle, tiny_llama

CPU = torch.device("cpu")
TOKENS = torch.randint(2, 60, (3, START + 8), generator=torch.Generator().manual_seed(0))


def fingerprint(family: str, recipe: Recipe) -> str:
    return quantize_model(tiny_handle(FAMILIES[family]()), recipe, TOKENS, CPU, lambda *_: None).artifact.fingerprint()


def observed(monkeypatch: pytest.MonkeyPatch, *recipe: str) -> list[str]:
    """The last parts of the names of the weights whose inputs are looked at first in the first block."""
    seen: list[list[str]] = []
    stats = BlockReplay.stats

    def looked(self: BlockReplay, groups: list[InputGroup], needs: frozenset[str]) -> list[LinearStats]:
        seen.append([slot.name.rpartition(".")[2] for group in groups for slot in group.slots])
        return stats(self, groups, needs)

    monkeypatch.setattr(BlockReplay, "stats", looked)
    quantize_model(tiny_handle(tiny_llama()), make_recipe(*recipe), TOKENS, CPU, lambda *_: None)
    return seen[0]


FIRST, SECOND = ["q_proj", "k_proj", "v_proj"], ["gate_proj", "up_proj"]
ALL = [*FIRST, "o_proj", *SECOND, "down_proj"]


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (["smoothquant"], [*FIRST, *SECOND]),
        (["gptq_smoothquant"], [*FIRST, *SECOND]),
        (["smoothquant", "activation@quantizer.activation=int8_tensor_static"], ALL),
        (["smoothquant", "quantizer.policy.outlier_columns=1"], ALL),
        (["smoothquant", "+clip@quantizer.clip=awq"], ALL),
        (["os_plus"], ALL),
        (["awq", "quantizer.weight.group_size=16"], ALL),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_only_inputs_whose_statistics_are_read_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, recipe: list[str], expected: list[str]
) -> None:
    assert observed(monkeypatch, *recipe) == expected


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gpt_neox", "falcon", "gemma2", "phi", "mixtral"])
@pytest.mark.parametrize("name", ["smoothquant", "gptq_smoothquant"])
def test_what_is_not_looked_at_changes_nothing(family: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = make_recipe(name)
    found = fingerprint(family, recipe)
    monkeypatch.setattr(Recipe, "observes_norms_alone", False)
    assert fingerprint(family, recipe) == found


@pytest.mark.parametrize("name", ["smoothquant", "gptq", "awq"])
def test_full_precision_inputs_take_one_run_of_each_block(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written by the run that statistics are of: the same as in two."""
    recipe = make_recipe(name, "quantizer.propagate=full", "quantizer.true_sequential=false")
    runs: list[int] = []
    handle = tiny_handle(tiny_llama())
    handle.model.model.layers[1].mlp.register_forward_pre_hook(lambda _module, args: runs.append(args[0].shape[1]))
    found = quantize_model(handle, recipe, TOKENS, CPU, lambda *_: None).artifact.fingerprint()
    assert runs.count(TOKENS.shape[1]) == len(TOKENS)

    def apart(
        self: BlockReplay, groups: list[InputGroup], needs: frozenset[str]
    ) -> tuple[list[Tensor], list[LinearStats]]:
        return self.outputs(), self.stats(groups, needs)

    monkeypatch.setattr(BlockReplay, "outputs_and_stats", apart)
    assert fingerprint("llama", recipe) == found


@pytest.mark.parametrize(("head", "expected"), [(False, 1), (True, 2)])
def test_what_the_last_block_writes_is_made_if_the_head_reads_it(head: bool, expected: int) -> None:
    handle = tiny_handle(tiny_llama())
    lengths: list[int] = []
    last = handle.model.model.layers[-1].mlp.down_proj
    last.register_forward_pre_hook(lambda _module, args: lengths.append(args[0].shape[1]))
    recipe = make_recipe("awq", "quantizer.weight.group_size=16", f"quantizer.policy.lm_head={head}")
    quantize_model(handle, recipe, TOKENS, CPU, lambda *_: None)
    assert lengths.count(TOKENS.shape[1]) == expected * len(TOKENS)
