"""What layers lose on a text, beside an independent computation from their inputs and outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from quantbench.pipeline.observe import relative_losses
from quantbench.pipeline.walker import quantize_model
from recipes import make_recipe
from tiny import FAMILIES, tiny_handle

CPU = torch.device("cpu")
TOKENS = torch.arange(2, 50).reshape(2, 24)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_losses_are_those_of_the_outputs(family: str) -> None:
    handle = tiny_handle(FAMILIES[family]())
    quantized = quantize_model(handle, make_recipe("rtn"), None, CPU, lambda _done, _all: None)
    originals = {name: value.data.clone() for name, value in handle.originals.items()}
    quantized.artifact.install(handle)
    found = relative_losses(handle, TOKENS, CPU)
    assert found.keys() == quantized.artifact.weights.keys()
    modules = dict(handle.model.named_modules())
    for name in (next(iter(found)), list(found)[-1]):
        seen: list[Tensor] = []
        module = modules[name]
        hook = module.register_forward_hook(lambda _module, args, _output, seen=seen: seen.append(args[0].detach()))
        with torch.no_grad():
            handle.model(input_ids=TOKENS)
        hook.remove()
        now, was = (apply(module, weight, seen[0]) for weight in (module.weight.data, originals[f"{name}.weight"]))
        assert found[name] == pytest.approx(float((now - was).square().sum() / was.square().sum()), rel=1e-4)


def apply(module: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    return x @ (weight.t() if isinstance(module, nn.Linear) else weight)


def test_a_model_in_full_precision_loses_nothing_and_no_hook_stays() -> None:
    handle = tiny_handle()
    assert relative_losses(handle, TOKENS, CPU) == {}
    assert not any(module._forward_pre_hooks for module in handle.model.modules())
