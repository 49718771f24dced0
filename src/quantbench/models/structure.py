"""What a decoder is made of, found without knowing its name; what is not known of it is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.models.experts import router_modules
from quantbench.models.slots import block_slots

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The decoder blocks and their dotted name: the ModuleList whose items the model declares as not to be split.

    Raises ModelError where no such list exists, or where several do.
    """
    declared = set(model._no_split_modules or [])
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) and {type(m).__name__ for m in module} <= declared
    ]
    if len(found) == 1:
        return found[0]
    problem = "no list of decoder blocks" if not found else f"{len(found)} lists of blocks"
    raise ModelError(
        f"model class {type(model).__name__}: {problem} found (looked for an nn.ModuleList of "
        f"{sorted(declared) or 'the classes in _no_split_modules, which is empty'}). "
        "quantbench quantizes decoder-only language models whose blocks are such a list."
    )


def refuse_unknown_weights(prefix: str, blocks: nn.ModuleList) -> None:
    """Raise ModelError for blocks that keep large weights in parameters of their own, of which nothing is known.

    Left alone, they would stay in full precision unnoticed. Known are linear layers, experts and their routers;
    matrices smaller than every linear layer of the block are taken for tables, not weights.
    """
    for index, block in enumerate(blocks):
        slots = list(block_slots("", block))
        smallest = min((slot.stored.numel() for slot in slots), default=0)
        passed = router_modules(block) | {slot.module for slot in slots}
        for module_name, module in block.named_modules():
            if module in passed or isinstance(module, nn.Embedding):
                continue
            for name, parameter in module.named_parameters(prefix=module_name, recurse=False):
                expert_like = parameter.dim() > 2 and not isinstance(module, nn.Conv1d)
                if expert_like or (parameter.dim() > 1 and parameter.numel() >= smallest):
                    raise ModelError(
                        f"{prefix}.{index}.{name} has shape {tuple(parameter.shape)}: {type(module).__name__} keeps "
                        "weights in a parameter of its own, in a form that is not known, and leaving them in full "
                        "precision would misreport the bits. Choose another model."
                    )


def refuse_double(model: nn.Module) -> None:
    """Raise ModelError for weights in float64: they would be read and rounded in float32, which loses theirs."""
    for name, parameter in model.named_parameters():
        if parameter.dtype == torch.float64:
            raise ModelError(
                f"{name} is float64, but weights are quantized from float32: load the model with model.dtype=float32 "
                "(or bfloat16, float16)"
            )


def refuse_not_finite(model: nn.Module) -> None:
    """Raise ModelError naming the first parameter (of experts in one parameter: the expert) with NaN or infinity.

    Found at the start, the weight itself is named, not a layer that is reached by what it gives.
    """
    for name, parameter in model.named_parameters():
        if not all_finite(parameter):
            where = name.removesuffix(".weight")
            if parameter.dim() == 3:
                where += f".{int((~parameter.isfinite()).flatten(1).any(1).nonzero()[0])}"
            raise ModelError(f"{where}: the weight holds NaN or infinite values")
