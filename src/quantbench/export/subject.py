"""What an export is made of, and what it leaves behind: the run, its model, and the tensors that are not quantized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from quantbench.core.errors import ConfigError
from quantbench.core.progress import counted
from quantbench.export.codes import NotHeldError
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.runtime import QuantizeInput

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Equality = Literal["exact", "rounded", "engine"]
"""How far the reader's logits may lie from the run's (quantbench.export.tolerance)."""


@dataclass(frozen=True)
class Subject:
    """A run's quantized model as layouts see it.

    model  with the artifact installed, or its skeleton without weights, which is enough to refuse
    """

    run_id: str
    artifact: Artifact
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    dtype: torch.dtype

    @property
    def inputs(self) -> dict[str, QuantizeInput]:
        """The quantization of layers' inputs, by layer."""
        return {op.module: op for op in self.artifact.ops if isinstance(op, QuantizeInput)}


@dataclass(frozen=True)
class Written:
    """What a layout wrote.

    equality  what the reader's arithmetic allows; notes: sentences for the card
    """

    equality: Equality
    notes: tuple[str, ...] = ()


class Layout(Protocol):
    """A format of files. `check` is cheap and comes first; `write` fills an empty folder."""

    name: ClassVar[str]

    def check(self, subject: Subject) -> None:
        """Raise ConfigError, with the layers and the reasons, for what cannot be held exactly."""
        ...

    def write(self, subject: Subject, folder: Path) -> Written:
        """Write the model. Raises StoreError where the operating system refuses."""
        ...


@dataclass
class Reasons:
    """Why something cannot be held, and the layers that this is said of."""

    layout: str
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, layer: str) -> None:
        """One more layer of which a reason holds."""
        self.found.setdefault(reason, []).append(layer)

    def attempt(self, layer: str, step: Callable[[], object]) -> None:
        """Run a check of a layer; a NotHeldError that it raises is a reason."""
        try:
            step()
        except NotHeldError as error:
            self.add(str(error), layer)

    def refuse(self, run_id: str) -> None:
        """Raise ConfigError if there is any reason."""
        if not self.found:
            return
        lines = [f"- {layers[0]}{_more(len(layers) - 1)}: {reason}" for reason, layers in self.found.items()]
        raise ConfigError(f"run {run_id} cannot be held exactly by --to {self.layout}:\n" + "\n".join(lines))


def _more(others: int) -> str:
    return f" and {counted(others, 'other')}" if others else ""


def refuse_operations(subject: Subject, reasons: Reasons, inputs: bool) -> None:
    """Note operations that no file holds; `inputs`: quantized inputs of quantized layers are left to the layout."""
    kinds = {
        "RotateInput": "an online rotation of its input, which engines do not compute. Not held by any format",
        "ShiftInput": "a shift of its input that is undone behind it. Not held by any format",
        "DivideInput": "a division of its input by a vector. Not held by any format",
        "QuantizeKVCache": "a quantized key-value cache with scales per token or channel; engines have one calibrated "
        "scale per layer or head. Not held by any format",
        "QuantizeExpertInputs": "quantized inputs of experts. Not held by any format",
    }
    for op in subject.artifact.ops:
        if not isinstance(op, QuantizeInput):
            reasons.add(kinds.get(type(op).__name__, f"{type(op).__name__} runs beside it"), op.module)
        elif not inputs:
            reasons.add(
                "its inputs are quantized; of the formats, compressed-tensors has schemes for inputs", op.module
            )
        elif op.module not in subject.artifact.weights:
            reasons.add("its inputs are quantized and its weights are not. Not held by any format", op.module)


def linear_layers(subject: Subject, reasons: Reasons) -> Iterable[tuple[str, QuantizedWeight]]:
    """The quantized weights that are those of nn.Linear; others are noted, and so is a run without any.

    A run of a checkpoint has none either, only what its files hold, dequantized.
    """
    if subject.artifact.stored:
        reasons.add(
            "its weights were read from a checkpoint: serve that one's own files. Exact: --to dense", "the model"
        )
    elif not subject.artifact.weights and not subject.artifact.ops:
        reasons.add("no weight is quantized. Exact: --to dense", "the model")
    modules: Mapping[str, nn.Module] = dict(subject.model.named_modules())
    for name, weight in subject.artifact.weights.items():
        if name not in modules:
            reasons.add("an expert's weight lies in a parameter of all experts. Exact: --to dense", name)
        elif not isinstance(modules[name], nn.Linear):
            kind = type(modules[name]).__name__
            reasons.add(f"{kind} is quantized, and engines read quantized nn.Linear. Exact: --to dense", name)
        else:
            yield name, weight


def remaining(model: PreTrainedModel, quantized: Iterable[str]) -> dict[str, Tensor]:
    """The parameters and buffers of the installed model but the weights of `quantized` layers, on the CPU.

    A head that is the embeddings' own parameter is left out; one that no longer is is kept, and the model's
    configuration says so.
    """
    untie_if_apart(model)
    gone = {f"{name}.weight" for name in quantized}
    found: dict[str, Tensor] = {}
    seen: set[tuple[int, torch.Size]] = set()
    for name, tensor in model.state_dict().items():
        if name in gone:
            continue
        same = (tensor.data_ptr(), tensor.shape)
        if tensor.numel() and same in seen:
            continue
        seen.add(same)
        found[name] = tensor.detach().cpu().contiguous()
    return found


def untie_if_apart(model: PreTrainedModel) -> None:
    """Tell the configuration that head and embeddings are two parameters, where quantization made them two."""
    config: Any = model.config.get_text_config()
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()  # type: ignore[no-untyped-call]
    if head is not None and head.weight is not embeddings.weight:
        for one in {id(c): c for c in (config, model.config)}.values():
            one.tie_word_embeddings = False
