"""The public Python API: results as a frame, a stored model, a recipe applied in memory.

These names are stable: they change only with a line in CHANGELOG.md. All errors are QuantbenchError and say what is
missing. Everything else can be imported as well, but may move between releases.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from quantbench.core.errors import ConfigError, DataError, ModelError
from quantbench.core.mixing import Mixing
from quantbench.core.paths import outputs_folder
from quantbench.core.progress import progress
from quantbench.report.frame import read_comparisons, read_sweep
from quantbench.store.records import LayerRecord
from quantbench.store.store import Store

# torch and transformers take seconds to import: reading a sweep does not wait for them.
if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from quantbench.models.handle import ModelHandle
    from quantbench.pipeline.artifact import Artifact

__all__ = ["LoadedModel", "QuantizationReport", "load_run", "quantize", "read_comparisons", "read_sweep"]

DEFAULT_LENGTH = 2048

QUANTIZED = "_quantized_by_quantbench"
"""Attribute of models that hold quantized weights: they are not quantized again by mistake."""


class LoadedModel(NamedTuple):
    """A transformers model on the CPU, in evaluation mode and without gradients, and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize` did.

    layers              one record per quantized weight, in the order they were quantized
    effective_bits      bits per quantized weight, everything stored counted; None if no weight is quantized
    kv_bits             bits per quantized element of the key-value cache; None if it is in full precision
    calibration_tokens  tokens calibrated on, 0 for a recipe that reads none
    fallbacks           what gave way, and how often, summed over layers
    notes               what to know when using the model
    """

    layers: tuple[LayerRecord, ...]
    effective_bits: float | None
    kv_bits: float | None
    calibration_tokens: int
    fallbacks: Mapping[str, int]
    notes: tuple[str, ...]


def load_run(run_id: str, output_dir: str | Path | None = None, model_path: str | Path | None = None) -> LoadedModel:
    """The quantized model of a stored run, as it was evaluated: weights dequantized in the model's dtype.

    run_id: the id, or its first characters. model_path: the folder of a model=local, if it is not where the run found
    it. What a recipe does while the model runs (quantized activations or key-value cache, rotations) is installed as
    hooks. Raises StoreError if the run is unknown, failed, or kept no weights, and if model or weights are not those of
    the record; ModelError if the full-precision model cannot be loaded.
    """
    from quantbench.cells.stored_run import check_same, find_run, model_of, stored_artifact

    store = _store(output_dir)
    record = find_run(store, run_id)
    source = model_of(store, record, model_path)
    artifact = stored_artifact(store, record)
    check_same(record, "model", source.fingerprint())
    handle = source.load()
    _install(handle, artifact)
    return LoadedModel(handle.model, handle.tokenizer)


def quantize(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: str = "gptq",
    texts: Sequence[str] | Tensor | None = None,
    overrides: Sequence[str] = (),
    *,
    sequences: int = 128,
    length: int | None = None,
    config_dir: str | Path | None = None,
) -> QuantizationReport:
    """Quantize a loaded transformers model in place, by the name of a recipe.

    recipe      what `quantizer=` takes; overrides are those of the command line: "quantizer.weight.bits=3",
                "format@quantizer.weight=nvfp4"
    texts       what to calibrate on: documents, of which up to `sequences` windows of `length` tokens are drawn (None:
                2048, or as many as the model takes); or token ids int64 [N, L]. Data-free recipes need none
    config_dir  a folder with recipes of your own, as --config-dir names it

    The model must be in full precision and on one device, where it is quantized block by block, and where it stays. It
    is left in evaluation mode without gradients; if quantizing fails, with its original weights, which are let go one
    by one when the quantized ones are put in. Raises ConfigError for a recipe that does not exist or reads texts and
    gets none, DataError for texts that are too short, ModelError for a model that cannot be quantized.
    """
    import torch

    from quantbench.config.named import named_recipe
    from quantbench.core.out_of_memory import memory_explained
    from quantbench.models.handle import ModelHandle
    from quantbench.pipeline.walker import quantize_model

    chosen = named_recipe(recipe, overrides, None if config_dir is None else Path(config_dir))
    device = _only_device(model)
    tokens, notes = None, []
    if not chosen.data_free:
        tokens = _calibration(model, tokenizer, recipe, texts, sequences, length)
    elif texts is not None:
        notes.append(f"{recipe} reads no calibration data: the texts given were not used")
    model.train(False)
    model.requires_grad_(False)
    torch.nn.Module.to(model, torch.device("cpu"))
    handle = ModelHandle(model, tokenizer, "in memory")
    try:
        fits = "a smaller model" if tokens is None else f"sequences shorter than {tokens.shape[1]} tokens (length)"
        with progress("quantizing", "block") as show, memory_explained("quantizing", device, fits):
            quantized = quantize_model(handle, chosen, tokens, device, show)
    except BaseException:
        handle.restore()
        torch.nn.Module.to(model, device)
        raise
    try:
        handle.restore()
        handle.forget_originals()
        notes += _install(handle, quantized.artifact)
    except BaseException as error:
        error.add_note("The model holds some of the quantized weights already: load it again.")
        raise
    finally:
        torch.nn.Module.to(model, device)
    notes += sorted({note for layer in quantized.layers for note in layer.notes})
    fallbacks: dict[str, int] = {}
    for layer in quantized.layers:
        fallbacks |= {kind: fallbacks.get(kind, 0) + count for kind, count in layer.fallbacks.items()}
    return QuantizationReport(
        layers=tuple(LayerRecord(**dataclasses.asdict(layer)) for layer in quantized.layers),
        effective_bits=quantized.artifact.effective_bits,
        kv_bits=quantized.artifact.kv_bits,
        calibration_tokens=0 if tokens is None else tokens.numel(),
        fallbacks=fallbacks,
        notes=(*notes, *quantized.artifact.notes),
    )


def _store(output_dir: str | Path | None) -> Store:
    return Store(outputs_folder() if output_dir is None else Path(output_dir).expanduser())


def _install(handle: ModelHandle, artifact: Artifact) -> list[str]:
    """Put quantized weights and operations into the model; what they ask of those who use it, in words."""
    setattr(handle.model, QUANTIZED, True)  # also if it is interrupted half-way
    artifact.install(handle)
    notes = []
    if handle.mixing > Mixing.NONE:
        notes.append("tokens of one batch act on each other: give sequences one by one, without padding")
    if handle.whole_sequences:
        # A cache of transformers holds keys and values that the operation has not seen.
        handle.model.config.use_cache = False
        if handle.model.generation_config is not None:
            handle.model.generation_config.use_cache = False
        notes.append("text is generated without transformers' key-value cache (use_cache=False), which takes longer")
    return notes


def _only_device(model: PreTrainedModel) -> torch.device:
    if getattr(model.config, "quantization_config", None) is not None or hasattr(model, QUANTIZED):
        raise ModelError("the model is quantized already: load it in full precision")
    devices = {parameter.device for parameter in model.parameters()}
    if len(devices) != 1 or next(iter(devices)).type == "meta":
        names = ", ".join(sorted(map(str, devices)))
        raise ModelError(f"the model lies on {names}: load it on one device (without device_map, or with a single one)")
    return devices.pop()


def _calibration(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    recipe: str,
    texts: Sequence[str] | Tensor | None,
    sequences: int,
    length: int | None,
) -> Tensor:
    """Calibration tokens int64 [N, L]: those given, or windows of the texts joined by blank lines."""
    import torch

    from quantbench.calibration.samplers import JoinedWindows
    from quantbench.datasets.documents import Documents
    from quantbench.models.folder import max_length

    limit = max_length(model.config)
    if texts is None or isinstance(texts, str):
        raise ConfigError(
            f"{recipe} reads calibration data: give texts=[...], a list of documents, or token ids [N, L]"
        )
    if isinstance(texts, torch.Tensor):
        if texts.dtype != torch.int64 or texts.dim() != 2 or 0 in texts.shape:
            raise ConfigError(f"texts: token ids are int64 [N, L], not {texts.dtype} {list(texts.shape)}")
        tokens = texts.cpu()
    else:
        wanted = length or min(DEFAULT_LENGTH, limit or DEFAULT_LENGTH)
        documents = Documents(name="texts", split="train", documents=tuple(texts), revision="given")
        sample = JoinedWindows().sample(documents, tokenizer, sequences, wanted, seed=0, draw=0)
        if not len(sample.tokens):
            raise DataError(f"texts: {sample.available}: not one sequence; give more text, or length= of fewer tokens")
        tokens = sample.tokens
    if limit is not None and tokens.shape[1] > limit:
        raise ConfigError(f"length {tokens.shape[1]}: the model takes at most {limit} tokens; use {limit} or less")
    return tokens
