"""A model folder: config.json, safetensors and a tokenizer, as `save_pretrained` writes them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from quantbench.core.errors import ModelError
from quantbench.core.hashing import file_sha256

Dtype = Literal["float32", "bfloat16", "float16"]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.py")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no advice from transformers; its exceptions are untouched."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


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


def load_model(folder: Path, dtype: Dtype, name: str, trust_remote_code: bool = False) -> PreTrainedModel:
    """The causal language model of a complete folder, on the CPU, in evaluation mode, without gradients.

    Raises ModelError, which calls the model `name`, if it is no such model, lacks weights or is quantized already.
    """
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with quiet_transformers(), _explained(name, folder):
        config = AutoConfig.from_pretrained(folder, **options)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"model {name} ({folder}) is quantized already: its config.json has a quantization_config. "
                "Choose the checkpoint in full precision that it was made from."
            )
        loader: Any = AutoModelForCausalLM
        model, info = loader.from_pretrained(
            folder,
            config=config,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    absent = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if absent:
        raise ModelError(
            f"model {name} ({folder}): {len(absent)} weights are missing or have another shape than config.json says, "
            f"first {absent[0]}. They would be random numbers. Is it a causal language model with its head?"
        )
    return _settled(model)


def _settled(model: Any) -> PreTrainedModel:
    assert isinstance(model, PreTrainedModel)
    model.train(False)
    model.requires_grad_(False)
    return model


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder. Raises ModelError if it has none that can be loaded."""
    with quiet_transformers(), _explained(name, folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


@contextmanager
def _explained(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines() or [""]
        asks = "trust_remote_code" in str(error)
        hint = " If you trust its code: model.trust_remote_code=true (models of the hub only)." if asks else ""
        message = f"model {name} ({folder}) cannot be loaded: {type(error).__name__}: {reason[0]}{hint}"
        raise ModelError(message) from error


def max_length(config: Any) -> int | None:
    """Most positions a model of this configuration takes, None if it sets no limit (ALiBi, recurrent)."""
    text = config.get_text_config()
    for key in ("max_position_embeddings", "max_sequence_length", "max_seq_len"):
        value = getattr(text, key, None)
        if isinstance(value, int):
            return value
    return None


def read_config(folder: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a model folder; loads no weights. Raises ModelError if it cannot be read."""
    with quiet_transformers(), _explained(name, folder):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)


def folder_fingerprint(folder: Path) -> str:
    """sha256 over names and contents of the files a model is loaded from; unchanged files are hashed once a process."""
    files = sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern) if path.is_file()})
    lines = [f"{path.name} {file_sha256(path)}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
