"""Checkpoints of safetensors: each parameter of the base model is looked up among the tensors of the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.files import Folder
from quantbench.checkpoints.gptq import GptqLayout
from quantbench.checkpoints.layout import FLOATS, Header, Layout
from quantbench.checkpoints.recognize import recognize
from quantbench.checkpoints.tensors import ReadTensor, linear_slots
from quantbench.checkpoints.zero_points import resolved
from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.models.pretrained import load_tokenizer, read_config
from quantbench.models.slots import WeightSlot

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

FOLLOWS = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Ends of the names of tensors that older files hold and that follow from the configuration."""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True)
class _Planned:
    """Where a parameter stands in the files: parts by suffix, of a quantized layer; else the tensor of its name."""

    name: str
    headers: Mapping[str, Header]
    layer: WeightSlot | None
    quantized: bool


class FolderReader:
    """Reads a folder of safetensors with a config.json."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._layout: Layout = recognize(folder.path, folder.quantization, folder.metadata)
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """That of the layout."""
        return self._layout.name

    def config(self) -> Mapping[str, Any]:
        """As transformers reads config.json."""
        found: Mapping[str, Any] = read_config(self._folder.path, "checkpoint").to_dict()
        return found

    def tokens(self) -> Mapping[str, int] | None:
        """Of the tokenizer in the folder."""
        path: Path = self._folder.path
        if not any((path / name).is_file() for name in TOKENIZERS):
            return None
        return load_tokenizer(path, "checkpoint").get_vocab()

    def check(self, model: PreTrainedModel) -> None:
        """Every parameter has its tensors, in the shapes of the base model, and every tensor a parameter."""
        self._plan(model)

    def read(self, model: PreTrainedModel) -> Iterator[ReadTensor]:
        """Every parameter."""
        plan = self._plan(model)
        if isinstance(self._layout, GptqLayout):
            layers = [(one.layer, lambda one=one: self._parts(one)) for one in plan if one.quantized and one.layer]
            self._layout, note = resolved(self._layout, layers)
            self.notes.append(note)
        for one in plan:
            yield self._read(one)

    def _read(self, planned: _Planned) -> ReadTensor:
        bits = 8 * sum(header.n_bytes for header in planned.headers.values())
        slot = planned.layer
        if not planned.quantized or slot is None:
            return ReadTensor(planned.name, self._folder.read(planned.name), bits, False, slot)
        parts = self._parts(planned)
        weight = self._layout.dequantize(slot.name, slot.shape, parts)
        if not all_finite(weight):
            raise ModelError(f"{slot.name}: the weight that the checkpoint stores has values that are NaN or infinite")
        inputs = self._layout.input_quantization(slot.name, parts)
        return ReadTensor(planned.name, weight.t() if slot.transposed else weight, bits, True, slot, inputs)

    def _parts(self, planned: _Planned) -> dict[str, Tensor]:
        assert planned.layer is not None
        return {suffix: self._folder.read(f"{planned.layer.name}.{suffix}") for suffix in planned.headers}

    def _plan(self, model: PreTrainedModel) -> list[_Planned]:
        slots, left = linear_slots(model), dict(self._folder.headers)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        plan = self._quantized(slots, parameters)
        for one in plan:
            assert one.layer is not None
            for suffix in one.headers:
                del left[f"{one.layer.name}.{suffix}"]
        by_parameter = {slot.parameter_name: slot for slot in slots.values()}
        for name, parameter in parameters.items():
            if (header := left.pop(name, None)) is not None:
                _check_plain(name, header, tuple(parameter.shape))
                plan.append(_Planned(name, {name: header}, by_parameter.get(name), False))
        self._check_all_there(parameters, plan)
        if unknown := sorted(name for name in left if not name.endswith(FOLLOWS)):
            raise ModelError(
                f"{self._folder.path}: {len(unknown)} tensors of the checkpoint have no place in the base model as "
                f"{self.name}, first {unknown[0]}"
            )
        return plan

    def _quantized(self, slots: Mapping[str, WeightSlot], parameters: Mapping[str, Tensor]) -> list[_Planned]:
        """The layers that the layout and their tensors say are quantized."""
        headers, plan = self._folder.headers, []
        present = _by_layer(headers, slots)
        for slot in slots.values():
            found = present.get(slot.name, {})
            own = parameters[slot.parameter_name]
            if not found and any(other is own for name, other in parameters.items() if name in headers):
                continue  # a head that shares the embeddings
            if self._layout.quantized(slot.name, found):
                self._check_parts(slot, found)
                plan.append(_Planned(slot.parameter_name, found, slot, True))
        return plan

    def _check_all_there(self, parameters: Mapping[str, Tensor], plan: Sequence[_Planned]) -> None:
        there = {id(parameters[one.name]) for one in plan}
        if missing := [name for name, parameter in parameters.items() if id(parameter) not in there]:
            raise ModelError(
                f"{self._folder.path}: the checkpoint has nothing for {len(missing)} parameters of the base model, "
                f"first {missing[0]}: is it a checkpoint of this model, and complete?"
            )

    def _check_parts(self, slot: WeightSlot, present: Mapping[str, Header]) -> None:
        parts = self._layout.parts(slot.name, slot.shape, present)
        for suffix, part in parts.items():
            header = present.get(suffix)
            if header is None and not part.optional:
                raise ModelError(f"{slot.name}.{suffix} is missing: {self.name} has one for each quantized layer")
            if header is not None and (problem := part.problem(header)) is not None:
                raise ModelError(
                    f"{slot.name}.{suffix} {problem}, as {self.name} of the base model's weight {list(slot.shape)} has"
                )
        if odd := sorted(present.keys() - parts.keys()):
            raise ModelError(f"{slot.name}.{odd[0]}: no such tensor is known of {self.name}")


def _by_layer(headers: Mapping[str, Header], slots: Mapping[str, WeightSlot]) -> dict[str, dict[str, Header]]:
    """The tensors of each linear layer by what stands behind its name; biases, which are parameters, are left out."""
    found: dict[str, dict[str, Header]] = {}
    for name, header in headers.items():
        parts = name.split(".")
        for end in range(len(parts) - 1, 0, -1):
            layer, suffix = ".".join(parts[:end]), ".".join(parts[end:])
            if layer in slots:
                if suffix != "bias":
                    found.setdefault(layer, {})[suffix] = header
                break
    return found


def _check_plain(name: str, header: Header, shape: tuple[int, ...]) -> None:
    if header.shape != shape:
        raise ModelError(f"{name} has shape {list(header.shape)} in the checkpoint and {list(shape)} in the base model")
    if header.dtype not in FLOATS:
        raise ModelError(
            f"{name} is {header.dtype} in the checkpoint, without what would say which numbers that stands for: the "
            "configuration contradicts the file, or the layout is not known"
        )
