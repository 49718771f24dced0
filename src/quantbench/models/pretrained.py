"""Configuration, tokenizer and weights of a model folder, read by transformers."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from quantbench.core.errors import ModelError
from quantbench.core.finite import all_finite
from quantbench.core.progress import counted
from quantbench.models.folder import Dtype
from quantbench.models.kept import Finding, kept

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def load_model(
    folder: Path, dtype: Dtype, name: str, trust_remote_code: bool = False, device: str = "cpu"
) -> tuple[PreTrainedModel, list[str]]:
    """The causal language model of a complete folder, on a device, in evaluation mode, without gradients; and notes.

    A note says which weights of the folder the configuration has no place for. Raises ModelError, which calls the model
    `name`, if it is no such model, lacks weights, is quantized already, or has weights that are no finite numbers.
    """
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with quiet_transformers(), _explained(name, folder):
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        if getattr(config, "quantization_config", None) is not None:
            raise ModelError(
                f"model {name} ({folder}) is quantized already: its config.json has a quantization_config. "
                "Choose the checkpoint in full precision that it was made from."
            )
        loader: Any = transformers.AutoModelForCausalLM
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
    assert isinstance(model, transformers.PreTrainedModel)
    _check_finite(model, dtype, f"model {name} ({folder})")
    model.train(False)
    model.requires_grad_(False)
    torch.nn.Module.to(model, torch.device(device))
    unused = sorted(map(str, info["unexpected_keys"]))
    found = f"{counted(len(unused), 'weight')} of the model's files have no place in it, first"
    return model, [f"{found} {unused[0]}"] if unused else []


def _check_finite(model: PreTrainedModel, dtype: Dtype, what: str) -> None:
    """Raise ModelError naming the first weight with a value that is NaN or infinite; takes one look at each value."""
    for key, parameter in model.named_parameters():
        if not all_finite(parameter):
            raise ModelError(
                f"{what}: {key} has values that are NaN or infinite as {dtype}, so that nothing could be computed with "
                "it. If they are finite in the file, give model.dtype=bfloat16 or float32; else fetch it again"
            )


def load_tokenizer(folder: Path, name: str, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder. Raises ModelError if it has none that can be loaded."""
    with quiet_transformers(), _explained(name, folder):
        tokenizer = _auto_tokenizer(folder, trust_remote_code) if trust_remote_code else _tokenizer(folder)
    if not tokenizer("The", add_special_tokens=False)["input_ids"]:  # transformers makes an empty one of no files
        raise ModelError(
            f"model {name} ({folder}): its tokenizer knows no tokens. Its files are missing: tokenizer.json, or those "
            "that `tokenizer.save_pretrained` wrote (tokenizer.model, vocab.json and merges.txt, ...)"
        )
    return tokenizer


class TokenizerClass(Finding):
    """Where the class that transformers chose for a folder's tokenizer lies; None: it chooses anew each time."""

    module: str | None
    name: str = ""


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """What AutoTokenizer gives. To choose the class it imports the model's code, which takes a second: only once."""
    known = kept(folder, TokenizerClass, lambda: _class_of(_auto_tokenizer(folder)))
    if known.module is None:
        return _auto_tokenizer(folder)
    loader = getattr(importlib.import_module(known.module), known.name)
    tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(folder, local_files_only=True, _from_auto=True)
    return tokenizer


def _class_of(tokenizer: PreTrainedTokenizerBase) -> TokenizerClass:
    found, fast = type(tokenizer), isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    if fast and getattr(importlib.import_module(found.__module__), found.__name__, None) is found:
        return TokenizerClass(module=found.__module__, name=found.__name__)
    return TokenizerClass(module=None)


def _auto_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerBase)
    return tokenizer


@contextmanager
def _explained(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # readers of many formats, whose checks raise errors of their own
        reason = str(error).strip().splitlines() or [""]
        asks = "trust_remote_code" in str(error)
        hint = " If you trust its code: model.trust_remote_code=true (models of the hub only)." if asks else ""
        message = f"model {name} ({folder}) cannot be loaded: {type(error).__name__}: {reason[0]}{hint}"
        raise ModelError(message) from error


def read_config(folder: Path, name: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a model folder; loads no weights. Raises ModelError if it cannot be read."""
    with quiet_transformers(), _explained(name, folder):
        options = {"local_files_only": True, "trust_remote_code": trust_remote_code}
        return transformers.AutoConfig.from_pretrained(folder, **options)
