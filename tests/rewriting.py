"""For tests of rewrites: what a model computes before and after a recipe."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.walker import quantize_model
from tiny import VOCABULARY

CPU = torch.device("cpu")


def uneven(model: PreTrainedModel) -> PreTrainedModel:
    """Normalizations with gains, and layers with biases, that are not what they are initialized to."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
            else:
                parameter.mul_(3)
    model.requires_grad_(False)
    model.train(False)
    return model


def tokens(n: int = 2, length: int = 24) -> Tensor:
    return torch.randint(0, VOCABULARY, (n, length), generator=torch.Generator().manual_seed(1))


def quantized(handle: ModelHandle, recipe: Recipe) -> Artifact:
    """What a recipe makes of a model, installed in it."""
    data = None if recipe.data_free else tokens(4)
    artifact = quantize_model(handle, recipe, data, CPU, lambda _done, _total: None).artifact
    artifact.install(handle)
    return artifact


@torch.no_grad()
def logits(model: PreTrainedModel) -> Tensor:
    result: Tensor = model(input_ids=tokens()).logits
    return result


def relative(after: Tensor, before: Tensor) -> float:
    return float((after - before).abs().amax() / before.abs().amax())
