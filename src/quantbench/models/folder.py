"""A model folder: config.json, safetensors and a tokenizer, as `save_pretrained` writes them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from quantbench.core.hashing import file_sha256

Dtype = Literal["float32", "bfloat16", "float16"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")


def missing_part(folder: Path, weights: bool = True) -> str | None:
    """What a model folder lacks, as a phrase, None if it is complete."""
    if not (folder / "config.json").is_file():
        return "no config.json"
    if not weights or (folder / SINGLE).is_file():
        return None
    if not (folder / INDEX).is_file():
        return f"neither {SINGLE} nor {INDEX}"
    shards = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    return f"no {absent[0]} ({len(absent)} of {len(shards)} weight files are missing)" if absent else None


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
