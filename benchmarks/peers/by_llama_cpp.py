"""Runs in an environment of xllamacpp: F32 OUT TYPE. Rewrites a GGUF file with tensors that llama.cpp quantizes."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What llama.cpp takes where a row is no multiple of 256."""


def quantizer() -> Any:
    """llama.cpp's function for rows of any type; the bindings' library has it, their Python has not."""
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.origin is not None
    (library,) = Path(spec.origin).parent.glob("xllamacpp*.so")
    function = ctypes.CDLL(str(library)).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = [ctypes.c_int, pointer, pointer, number, number, number, pointer]
    return function


def main(source: Path, out: Path, kind: str) -> None:
    """Linear layers in one type (or what stands in for it), embeddings in Q8_0, vectors as they are."""
    gguf, quantize = import_module("gguf"), quantizer()
    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    out.mkdir(parents=True)
    writer = gguf.GGUFWriter(out / "model.gguf", architecture)
    for field in reader.fields.values():
        if field.name != "general.architecture" and not field.name.startswith("GGUF."):
            array = field.types[0] == gguf.GGUFValueType.ARRAY
            inner = field.types[-1] if array else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        values = np.ascontiguousarray(tensor.data)
        if values.ndim < 2:
            writer.add_tensor(tensor.name, values)
            continue
        rows, width = values.shape
        wanted = "Q8_0" if tensor.name.startswith(("token_embd", "output")) else kind
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[wanted]][0]
        chosen = gguf.GGMLQuantizationType[wanted if width % block == 0 else FALLBACK[wanted]]
        values_per_block, size = gguf.GGML_QUANT_SIZES[chosen]
        packed = np.empty((rows, width // values_per_block * size), dtype=np.uint8)
        written = quantize(int(chosen), values.ctypes.data, packed.ctypes.data, 0, rows, width, None)
        assert written == packed.nbytes, tensor.name
        writer.add_tensor(tensor.name, packed, raw_dtype=chosen)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
