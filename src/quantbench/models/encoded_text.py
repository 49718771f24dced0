"""Long texts as token ids, with the characters that each stands for: kept on disk, since every command asks again."""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from quantbench.core.cache import cache_dir
from quantbench.core.errors import ModelError, StoreError
from quantbench.core.files import make_folder, replacing
from quantbench.models.tokenizer import known_fingerprint

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Integers = NDArray[np.int64]

KEPT = range(200_000, 64 * 2**20)
"""Characters of texts that are kept: of shorter ones little time is saved, longer ones would fill disks."""

log = logging.getLogger("quantbench")


@dataclass(frozen=True, eq=False)
class EncodedText:
    """ids [T] of a text without special tokens, and the characters [begins, ends) that each token stands for."""

    ids: Integers
    begins: Integers
    ends: Integers


@functools.lru_cache(maxsize=4)
def encoded_text(tokenizer: PreTrainedTokenizerBase, text: str) -> EncodedText:
    """A text as tokens: from the cache folder, where it was tokenized before.

    There it lies under the content of the text and of the tokenizer and the version of the library that splits texts.
    Raises ModelError for a tokenizer that knows no characters.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"tokenizer class {type(tokenizer).__name__} does not say which characters a token stands for, so neither "
            "bits per byte nor the documents of a window can be had: it needs a tokenizer.json"
        )
    if len(text) not in KEPT:
        return _encode(tokenizer, text)
    path = _place(tokenizer, text)
    found = _read(path)
    if found is None:
        found = _encode(tokenizer, text)
        _write(path, found)
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> EncodedText:
    # verbose=False: a text longer than the model is no mistake here.
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    offsets = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    return EncodedText(np.array(encoded["input_ids"], dtype=np.int64), offsets[:, 0], offsets[:, 1])


def _place(tokenizer: PreTrainedTokenizerBase, text: str) -> Path:
    digest = hashlib.sha256(f"{version('tokenizers')} {known_fingerprint(tokenizer)} ".encode())
    digest.update(text.encode("utf-8", "surrogatepass"))
    return cache_dir() / "tokens" / f"{digest.hexdigest()}.npy"


def _read(path: Path) -> EncodedText | None:
    """What was kept; None if nothing was, or if the file is damaged."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, EOFError) as error:
        log.info("%s cannot be read (%s): the text is tokenized again", path, error)
        return None
    if rows.dtype != np.uint32 or rows.ndim != 2 or len(rows) != 3:
        log.info("%s holds no tokens: the text is tokenized again", path)
        return None
    return EncodedText(*rows.astype(np.int64))


def _write(path: Path, found: EncodedText) -> None:
    rows = np.stack([found.ids, found.begins, found.ends]).astype(np.uint32)
    try:
        make_folder(path.parent)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
    except StoreError as error:  # the cache may be a folder of others, to be read only
        log.debug("tokens are not kept: %s", error)
