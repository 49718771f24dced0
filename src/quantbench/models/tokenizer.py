"""What of a tokenizer decides which token ids a text becomes."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the tokenizer's definition, its special tokens, and those it puts before a text.

    Padding and truncation, which a call may leave set, do not count.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    definition: Any = sorted(tokenizer.get_vocab().items()) if backend is None else json.loads(backend.to_str())
    if isinstance(definition, dict):
        definition = {key: value for key, value in definition.items() if key not in {"padding", "truncation"}}
    special = {key: str(token) for key, token in tokenizer.special_tokens_map.items()}
    parts = [definition, special, leading_special_tokens(tokenizer)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def highest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The highest token id that the tokenizer can give, added tokens included; -1 if it has none."""
    return max(tokenizer.get_vocab().values(), default=-1)


def leading_special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens the tokenizer puts before a text (a BOS for Llama, none for GPT-2)."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    assert isinstance(bare, list)
    assert isinstance(full, list)
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return full[:start]
    return []
