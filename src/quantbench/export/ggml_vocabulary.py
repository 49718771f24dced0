"""A tokenizer as the metadata of a GGUF file: byte-level BPE, whose way of splitting text llama.cpp knows by a name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import gguf

from quantbench.export.codes import NotHeldError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS = {
    # The regular expression of GPT-2, and what is before it.
    (("ByteLevel", True),): "gpt-2",
    (("Digits", True), ("ByteLevel", True)): "smollm",
    (
        ("Split", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"),
        ("ByteLevel", False),
    ): "llama-bpe",
    (("Split", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}"), ("ByteLevel", False)): "qwen2",
}
"""How a text is split before BPE -> llama.cpp's name of it; of a regular expression nine parts between bars."""

NORMALIZED = {"qwen2"}
"""Splits whose tokenizers normalize text to NFC, which llama.cpp does for them, too."""


def split_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """llama.cpp's name of how the tokenizer splits text. Raises NotHeldError for one without a name here."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    spec = None if backend is None else json.loads(backend.to_str())
    if spec is None or spec["model"]["type"] != "BPE" or spec["model"].get("byte_fallback"):
        raise NotHeldError(f"its tokenizer is no byte-level BPE, the only kind that is written here. {OTHER}")
    if not spec["model"]["merges"]:
        raise NotHeldError("its tokenizer has no merges, without which llama.cpp reads none. Exact: --to dense")
    name = SPLITS.get(_steps(spec.get("pre_tokenizer") or {}))
    if name is None or (spec.get("normalizer") is not None) != (name in NORMALIZED):
        raise NotHeldError(f"its tokenizer splits text in a way that is not known here by llama.cpp's name. {OTHER}")
    return name


OTHER = "Exact: --to dense, of which llama.cpp's own converter makes a file in full precision"


def add_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
    """Tokens, their types and merges; rows: of the embeddings, which may be more than there are tokens."""
    backend: Any = tokenizer.backend_tokenizer
    spec = json.loads(backend.to_str())
    added = {one["id"]: one["special"] for one in spec["added_tokens"]}
    by_id = {index: token for token, index in tokenizer.get_vocab().items()}
    tokens, types = [], []
    for index in range(rows):
        tokens.append(by_id.get(index, f"[PAD{index}]"))
        if index not in by_id:
            types.append(gguf.TokenType.UNUSED)
        elif index in added:
            types.append(gguf.TokenType.CONTROL if added[index] else gguf.TokenType.USER_DEFINED)
        else:
            types.append(gguf.TokenType.NORMAL)
    merges = [one if isinstance(one, str) else " ".join(one) for one in spec["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split_name(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for given, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
    ):
        if given is not None:
            add(given)
    before = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(bool(before) and before[0] == tokenizer.bos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _steps(spec: dict[str, Any]) -> tuple[tuple[str, Any], ...]:
    parts = spec["pretokenizers"] if spec.get("type") == "Sequence" else [spec]
    return tuple((str(part.get("type")), _told(part)) for part in parts)


def _told(part: dict[str, Any]) -> Any:
    if part.get("type") == "Split":
        return "|".join(str(part["pattern"].get("Regex", "")).split("|")[:9])
    return part.get("use_regex", part.get("individual_digits"))
