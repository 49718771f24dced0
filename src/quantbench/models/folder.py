"""A model folder: config.json, safetensors and a tokenizer, as `save_pretrained` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from quantbench.core.hashing import file_sha256

Dtype = Literal["float32", "bfloat16", "float16"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
METADATA = "__metadata__"
DEFINITION_FILES = ("*.json", "*.model", "*.txt", "*.jinja", "*.py")
MODEL_FILES = ("*.safetensors", *DEFINITION_FILES)


def missing_part(folder: Path, weights: bool = True) -> str | None:
    """What a model folder lacks, or what of it is damaged, as a phrase; None if it is complete.

    Of weights only the beginning is read, which says how long the file must be.
    """
    if not (folder / "config.json").is_file():
        return "no config.json"
    if not weights:
        return None
    if (folder / SINGLE).is_file():
        shards = [SINGLE]
    elif (folder / INDEX).is_file():
        try:
            shards = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
            absent = [shard for shard in shards if not (folder / shard).is_file()]
        except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
            return f"{INDEX} is damaged ({type(error).__name__}: {error})"
        if absent:
            return f"no {absent[0]} ({len(absent)} of {len(shards)} weight files are missing)"
    else:
        return f"neither {SINGLE} nor {INDEX}"
    return next((damage for shard in shards if (damage := _damage(folder / shard)) is not None), None)


def _damage(file: Path) -> str | None:
    """What is wrong with a safetensors file, judging by its header and its length.

    The format: 8 bytes little-endian N, N bytes of JSON {name: {"data_offsets": [begin, end]}}, then the data.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            if length > size - 8:
                return f"{file.name} is cut short, or no safetensors file: {size} bytes do not hold its header"
            header = json.loads(opened.read(length))
        needed = 8 + length + max((one["data_offsets"][1] for key, one in header.items() if key != METADATA), default=0)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        return f"{file.name} is no safetensors file ({type(error).__name__}: {error})"
    return f"{file.name} is cut short: {size} of {needed} bytes" if size < needed else None


def folder_fingerprint(folder: Path) -> str:
    """sha256 over names and contents of the files a model is loaded from; unchanged files are hashed once a process."""
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    lines = [f"{path.name} {file_sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def max_length(config: Any) -> int | None:
    """Most positions a model of this configuration takes, None if it sets no limit (ALiBi, recurrent)."""
    text = config.get_text_config()
    for key in ("max_position_embeddings", "max_sequence_length", "max_seq_len"):
        value = getattr(text, key, None)
        if isinstance(value, int):
            return value
    return None
