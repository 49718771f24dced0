"""GGUF files: every type that the package `gguf` dequantizes, K- and IQ-quants included.

Names, and the order of rows that llama.cpp's converter changes, are put back as transformers does it when it loads a
GGUF file. Bits are the bytes of each tensor in the file. Source: the GGUF specification of ggml; the package gguf.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.gguf_file import GgufFile
from quantbench.checkpoints.tensors import ReadTensor, linear_slots
from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite

if TYPE_CHECKING:
    from gguf import ReaderTensor
    from transformers import PreTrainedModel

FLOATING = ("F32", "F16", "BF16", "F64")
FOLLOWS = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that the model's configuration says, too."""


class GgufReader:
    """Reads one GGUF file."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._reader = file.reader()
        self._parsed = file.parsed()
        self.notes: list[str] = []

    @property
    def name(self) -> str:
        """GGUF, and the types of its quantized tensors, the most frequent first."""
        kinds = Counter(one.tensor_type.name for one in self._reader.tensors)
        found = [f"{kind} x {count}" for kind, count in kinds.most_common() if kind not in FLOATING]
        return f"GGUF ({', '.join(found) or 'not quantized'})"

    def config(self) -> Mapping[str, Any]:
        """From the file's metadata."""
        return {key: value for key, value in self._parsed["config"].items() if value is not None}

    def tokens(self) -> Mapping[str, int] | None:
        """From the file's metadata."""
        tokens = self._parsed["tokenizer"].get("tokens")
        return None if not tokens else {token: index for index, token in reversed(list(enumerate(tokens)))}

    def check(self, model: PreTrainedModel) -> None:
        """Every tensor has a place in the base model, in its number of elements, and every parameter a tensor."""
        linear_slots(model)
        for one in {one.tensor_type: one for one in self._reader.tensors}.values():
            self._dequantized(one, one.data[:1])
        stored, parameters = self._by_name(model), dict(model.named_parameters(remove_duplicate=False))
        if all(one.tensor_type.name in FLOATING for one in self._reader.tensors):
            raise ModelError(f"{self._file.path} is not quantized: all of its tensors are floating-point numbers")
        for name, one in stored.items():
            if int(one.n_elements) != parameters[name].numel():
                raise ModelError(
                    f"{one.name} of {self._file.path} has shape {[int(n) for n in reversed(one.shape)]}, and {name} of "
                    f"the base model {list(parameters[name].shape)}"
                )
        there = {id(parameters[name]) for name in stored}
        missing = [name for name, parameter in parameters.items() if id(parameter) not in there]
        if missing:
            raise ModelError(
                f"{self._file.path}: the file has nothing for {len(missing)} parameters of the base model, first "
                f"{missing[0]}: is it a checkpoint of this model, and complete?"
            )

    def read(self, model: PreTrainedModel) -> Iterator[ReadTensor]:
        """Every parameter, dequantized to float32 by the package gguf."""
        import torch

        self.check(model)
        slots = {slot.parameter_name: slot for slot in linear_slots(model).values()}
        processor = self._processor()
        for name, one in self._by_name(model).items():
            kind, values = one.tensor_type.name, self._dequantized(one, one.data)
            put_back = processor.process(
                weights=values, name=one.name, tensor_key_mapping={}, parsed_parameters={"tensors": {}}
            )
            found = torch.from_numpy(put_back.weights.copy()).reshape(model.get_parameter(name).shape)
            if not all_finite(found):
                raise ModelError(f"{one.name} of {self._file.path} has values that are NaN or infinite")
            yield ReadTensor(name, found, 8 * int(one.n_bytes), kind not in FLOATING, slots.get(name))

    def _dequantized(self, tensor: ReaderTensor, data: Any) -> Any:
        """Rows of a tensor as float32. Raises ModelError for a type that the package gguf does not dequantize."""
        from gguf import dequantize

        try:
            return dequantize(data, tensor.tensor_type)
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"{tensor.name} of {self._file.path} is of type {tensor.tensor_type.name}, which the package gguf does "
                f"not dequantize: {error}"
            ) from error

    def _by_name(self, model: PreTrainedModel) -> dict[str, ReaderTensor]:
        """The file's tensors by the base model's names. Raises ModelError for one that has no place there."""
        from transformers.modeling_gguf_pytorch_utils import get_gguf_hf_weights_map

        try:
            names = get_gguf_hf_weights_map(model, self._processor())
        except NotImplementedError as error:
            raise ModelError(f"{self._file.path}: the base model's family is not known to GGUF: {error}") from error
        found = {names[one.name]: one for one in self._reader.tensors if one.name in names}
        unknown = [one.name for one in self._reader.tensors if one.name not in names and one.name not in FOLLOWS]
        if unknown:
            raise ModelError(
                f"{self._file.path}: {len(unknown)} tensors of the file have no place in the base model, first "
                f"{unknown[0]}"
            )
        return found

    def _processor(self) -> Any:
        """What of transformers puts the rows of this architecture's tensors back in order."""
        from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor

        architecture = self._reader.fields["general.architecture"].contents()
        kind: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
        return kind(config=self._parsed["config"])
