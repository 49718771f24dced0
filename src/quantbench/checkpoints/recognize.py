"""Which layout a checkpoint has, by its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from quantbench.checkpoints.awq import AwqLayout
from quantbench.checkpoints.bitsandbytes import BitsAndBytes
from quantbench.checkpoints.compressed_tensors import CompressedTensors
from quantbench.checkpoints.fp8 import Fp8Layout
from quantbench.checkpoints.gptq import GptqLayout
from quantbench.checkpoints.layout import Layout
from quantbench.checkpoints.torchao import TorchAo
from quantbench.core.errors import ModelError

READ = "compressed-tensors, gptq, awq, fp8, bitsandbytes, torchao, and GGUF files"

_ELSEWHERE = {
    "auto-round": "export it with format auto_gptq, auto_awq or llm_compressor",
    "modelopt": "export it as compressed-tensors",
}


def recognize(path: Path, config: Mapping[str, Any], metadata: Mapping[str, str]) -> Layout:
    """The layout that the quantization_config of a config.json describes, or, of torchao, the files' metadata.

    Raises ModelError for a checkpoint in full precision, and for a method or setting that is not read.
    """
    if not config:
        raise ModelError(
            f"{path}: config.json has no quantization_config: nothing says that the checkpoint is quantized. A model "
            "in full precision is scored with model=local model.path=FOLDER quantizer=none"
        )
    method = str(config.get("quant_method", "")).lower()
    if not method and (config.get("load_in_8bit") or config.get("load_in_4bit")):
        method = "bitsandbytes"
    makers: dict[str, Callable[[Mapping[str, Any]], Layout]] = {
        "compressed-tensors": CompressedTensors.of,
        "gptq": GptqLayout.of,
        "awq": AwqLayout.of,
        "fp8": Fp8Layout.of,
        "bitsandbytes": BitsAndBytes.of,
        "torchao": lambda _: TorchAo.of(metadata),
    }
    if method in makers:
        return makers[method](config)
    advice = f": {_ELSEWHERE[method]}" if method in _ELSEWHERE else ""
    raise ModelError(
        f"{path}: quantization_config.quant_method={method!r} is not read{advice}. quantbench reads {READ}"
    )
