"""What of a tokenizer decides which token ids a text becomes."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from quantbench.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CalibrationBos = Literal["none", "auto", "each"]
"""What stands before a calibration sequence: nothing, what the tokenizer itself puts before a text, a BOS."""


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


@functools.lru_cache(maxsize=4)
def known_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """The fingerprint of a tokenizer that stays as it is: found once, since all of it is read."""
    return tokenizer_fingerprint(tokenizer)


def highest_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The highest token id that the tokenizer can give, added tokens included; -1 if it has none."""
    return max(tokenizer.get_vocab().values(), default=-1)


def in_chat(
    tokenizer: PreTrainedTokenizerBase, turns: Sequence[Mapping[str, str]], add_generation_prompt: bool = True
) -> str:
    """What the tokenizer's chat template makes of turns with role and content, up to where the model is to go on.

    add_generation_prompt  the model's turn is opened; False: the last turn is left open
    Raises ConfigError if the tokenizer has no chat template.
    """
    _check_chat(tokenizer)
    text = tokenizer.apply_chat_template(
        [dict(turn) for turn in turns],
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )
    assert isinstance(text, str)
    return text


def chat_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """sha256 of the chat template. Raises ConfigError if the tokenizer has none."""
    _check_chat(tokenizer)
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()


def _check_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise ConfigError(
            "chat=true: the model's tokenizer has no chat template; take an instruct model, or chat=false"
        )


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


def bos_token(tokenizer: PreTrainedTokenizerBase, key: str, instead: str) -> int:
    """The tokenizer's BOS. Raises ConfigError naming the option `key`, which asks for one, and what may stand there."""
    if tokenizer.bos_token_id is None:
        raise ConfigError(f"{key}=each: this model's tokenizer has no BOS token; use {instead}")
    return int(tokenizer.bos_token_id)


def before_sequence(tokenizer: PreTrainedTokenizerBase, bos: CalibrationBos) -> list[int]:
    """The tokens before each calibration sequence. Raises ConfigError for a BOS that the tokenizer does not have."""
    if bos == "each":
        return [bos_token(tokenizer, "calib.bos", "calib.bos=none")]
    return leading_special_tokens(tokenizer) if bos == "auto" else []
