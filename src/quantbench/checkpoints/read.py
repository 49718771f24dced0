"""A checkpoint read into a base model: checked, compared, and made an artifact as quantizing makes one."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from quantbench.checkpoints.configuration import check_configuration, check_tokens
from quantbench.checkpoints.files import Folder
from quantbench.checkpoints.folder_reader import FolderReader
from quantbench.checkpoints.gguf_reader import GgufReader
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.checkpoints.same_base import SameBase
from quantbench.checkpoints.tensors import Reader, ReadTensor
from quantbench.core.errors import ModelError
from quantbench.core.memory import Keep
from quantbench.core.progress import ProgressCallback
from quantbench.models.folder import max_length
from quantbench.models.handle import ModelHandle
from quantbench.models.structure import find_blocks
from quantbench.pipeline.artifact import Artifact, StoredBits
from quantbench.pipeline.runtime import QuantizeInput
from quantbench.pipeline.state import LayerResult, Quantized


def reader_of(recipe: CheckpointRecipe) -> Reader:
    """What reads the checkpoint of a recipe. Raises ModelError for one that cannot be read; reads headers only."""
    files = recipe.files()
    return FolderReader(files) if isinstance(files, Folder) else GgufReader(files)


def check_checkpoint(recipe: CheckpointRecipe, model: PreTrainedModel, tokens: Mapping[str, int]) -> int | None:
    """Compare the headers of a checkpoint with a base model, which may be without weights, and with its tokenizer.

    tokens: ids of the base model's tokens. Returns how many positions the checkpoint says that it takes, None if it
    does not say. Raises ModelError saying what differs.
    """
    reader = reader_of(recipe)
    check_configuration(reader, model.config.to_dict())
    reader.check(model)
    check_tokens(reader, tokens)
    return max_length(PreTrainedConfig.from_dict(dict(reader.config())))


def read_checkpoint(handle: ModelHandle, recipe: CheckpointRecipe, progress: ProgressCallback) -> Quantized:
    """The checkpoint as an artifact of the handle's model, which is put back to full precision and left so.

    Weights are what the format says they stand for, in float32, rounded to the model's dtype. Raises ModelError for a
    checkpoint that cannot be read, or is not of this model.
    """
    model, reader = handle.restore(), reader_of(recipe)
    check_configuration(reader, model.config.to_dict())
    prefix, _ = find_blocks(model)
    same, result = SameBase(prefix), Quantized(Artifact())
    keep = handle.weight_keeper()
    total, started = len(handle.originals), time.perf_counter()
    with torch.no_grad():
        for count, read in enumerate(reader.read(model)):
            progress(count, total)
            base = handle.originals[read.name]
            same.add(read, base)
            _add(read, base, result, keep, time.perf_counter() - started)
            started = time.perf_counter()
        same.finish()
        _tie(handle, result.artifact)
    progress(total, total)
    if not result.layers:
        raise ModelError(f"{recipe.path}: no weight of the checkpoint is quantized")
    result.notes += [f"read from a checkpoint: {reader.name}", *reader.notes, *same.notes]
    return result


def _add(read: ReadTensor, base: torch.Tensor, result: Quantized, keep: Keep, seconds: float) -> None:
    artifact, values = result.artifact, read.values.to(base.dtype)
    artifact.stored[read.name] = StoredBits(bits=read.bits, quantized=read.quantized)
    if read.quantized or not torch.equal(values, base):
        artifact.changed[read.name] = keep(values.contiguous())
    if read.quantized:
        name = read.name.removesuffix(".weight")
        result.layers.append(LayerResult(name, None, read.bits / values.numel(), seconds))
    if read.inputs is not None and read.layer is not None:
        params = dict(read.inputs.params)
        artifact.ops.append(QuantizeInput(module=read.layer.name, format=read.inputs.format, params=params))


def _tie(handle: ModelHandle, artifact: Artifact) -> None:
    """Give parameters that the base model has in common the values that the file stores once."""
    by_parameter = {id(handle.originals[name]): name for name in artifact.stored}
    for name, parameter in handle.originals.items():
        source = by_parameter.get(id(parameter))
        if name not in artifact.stored and source is not None:
            artifact.stored[name] = StoredBits(bits=0, quantized=False)
            if source in artifact.changed:
                artifact.changed[name] = artifact.changed[source]
