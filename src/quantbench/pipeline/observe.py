"""What the layers of a quantized model lose on a text: for recipes that saw none while they were quantized."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from quantbench.models.handle import ModelHandle

Hook = Callable[[nn.Module, tuple[Tensor, ...]], None]


def relative_losses(handle: ModelHandle, tokens: Tensor, device: torch.device) -> dict[str, float]:
    """Layer -> ||dW X^T||^2 / ||W X^T||^2, X the inputs of the layer in the quantized model, as it is installed.

    tokens int64 [N, L]. For every linear layer whose weight was replaced, W [out, in] being the original; experts in
    3-D parameters and layers without output are left out. The same share as `quantbench.core.input_stats.output_errors`
    gives. It means nothing where a rewrite changed W and X together.
    """
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    modules = dict(handle.model.named_modules())
    replaced = {
        name: original.data
        for name, module in modules.items()
        if isinstance(module, nn.Linear | Conv1D)
        and (original := handle.originals.get(f"{name}.weight")) is not None
        and module.weight is not original
    }
    hooks = [
        modules[name].register_forward_pre_hook(_adding(sums[name], original)) for name, original in replaced.items()
    ]
    try:
        with torch.no_grad(), handle.on_device(device) as model:
            for sequence in tokens.to(device):
                model(input_ids=sequence[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: error / whole for name, (error, whole) in sums.items() if whole > 0}


def has_other_gains(handle: ModelHandle) -> bool:
    """Whether a normalization of the model as it is installed has other gains than by rounding to 16 bits."""
    gains = [(name, p) for name, p in handle.model.named_parameters() if p.dim() == 1 and name.endswith(".weight")]
    return not all(torch.allclose(p.float(), handle.originals[name].float(), rtol=2**-7) for name, p in gains)


def _adding(sums: list[float], original: Tensor) -> Hook:
    """Adds squared error and squared output of the layer to the sums, whenever it runs."""

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0].flatten(0, -2).float()
        weight, was = (_as_out_in(module, one.to(x)) for one in (module.get_parameter("weight").data, original))
        for index, matrix in enumerate((weight - was, was)):
            sums[index] += float((x @ matrix.t()).square().sum())

    return hook


def _as_out_in(module: nn.Module, weight: Tensor) -> Tensor:
    return weight.t() if isinstance(module, Conv1D) else weight
