"""A model without its weights: what its configuration alone says of layers and limits."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from quantbench.core.errors import ModelError
from quantbench.models.loading import ModelSource
from quantbench.models.pretrained import quiet_transformers
from quantbench.models.slots import block_slots
from quantbench.models.structure import find_blocks, refuse_unknown_weights


def skeleton(source: ModelSource) -> PreTrainedModel:
    """The model on the meta device; no weights are read. Raises ModelError if its configuration is of no such model."""
    try:
        with quiet_transformers(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(source.config(), trust_remote_code=source.trust_remote_code)  # type: ignore[no-untyped-call]
    except ModelError:
        raise
    except Exception as error:  # code of each architecture, on a configuration that may be of none
        reason = str(error).strip().splitlines() or [""]
        raise ModelError(
            f"model {source.name}: no causal language model can be made from its configuration: "
            f"{type(error).__name__}: {reason[0]}"
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model


def embedding_rows(model: PreTrainedModel) -> int:
    """How many token ids a model takes."""
    return _embeddings(model).shape[0]


def hidden_width(model: PreTrainedModel) -> int:
    """Elements of a token's hidden state: what the configuration says, else what an embedding has."""
    return int(getattr(model.config.get_text_config(), "hidden_size", _embeddings(model).shape[1]))


def block_parameters(model: PreTrainedModel) -> int:
    """How many parameters the decoder blocks have. Raises ModelError where they are not found."""
    _, blocks = find_blocks(model)
    return sum(parameter.numel() for parameter in blocks.parameters())


def _embeddings(model: PreTrainedModel) -> torch.Tensor:
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


def layer_names(model: PreTrainedModel) -> list[str]:
    """Names of the weights that a recipe quantizes. Raises ModelError for a structure that cannot be quantized."""
    prefix, blocks = find_blocks(model)
    refuse_unknown_weights(prefix, blocks)
    return [slot.name for index, block in enumerate(blocks) for slot in block_slots(f"{prefix}.{index}", block)]
