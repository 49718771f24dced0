"""GGUF files: dequantized once to a folder of safetensors, which later loads read in a fraction of the time."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from quantbench.core.cache import only_one
from quantbench.core.errors import ModelError
from quantbench.core.files import write_failure
from quantbench.core.hashing import file_sha256
from quantbench.models.pretrained import quiet_transformers

log = logging.getLogger("quantbench")


def dequantized(gguf: Path, cache: Path) -> Path:
    """The model folder (float32) made from a GGUF file, named by its sha256; made on the first call.

    Raises ModelError if the file cannot be read, StoreError if the cache cannot be written.
    """
    folder = cache / "models" / f"{gguf.stem}-{file_sha256(gguf)[:16]}"
    if folder.is_dir():
        return folder
    with only_one(folder):
        if not folder.is_dir():
            log.info("dequantizing %s, once: about half a minute for 135 million weights", gguf.name)
            _convert(gguf, folder)
    return folder


def _convert(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = {"gguf_file": gguf.name, "local_files_only": True}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
            loader: Any = AutoModelForCausalLM
            model = loader.from_pretrained(gguf.parent, dtype=torch.float32, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise ModelError(f"{gguf} cannot be read as a GGUF model: {type(error).__name__}: {error}") from error
    # Saved as what it now is, a model in full precision.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        with quiet_transformers():
            model.save_pretrained(temporary)
            tokenizer.save_pretrained(temporary)
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(folder)
    except (OSError, SafetensorError) as error:
        raise write_failure(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
