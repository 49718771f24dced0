"""A GGUF file as a checkpoint: what its header says, before anything is loaded."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbench.core.errors import ModelError
from quantbench.core.hashing import file_sha256

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")

if TYPE_CHECKING:
    from gguf import GGUFReader


@dataclass(frozen=True)
class GgufFile:
    """One GGUF file."""

    path: Path

    def check(self) -> None:
        """Raise ModelError for a file that does not begin as GGUF does, and for one of several parts."""
        if (part := _SHARD.search(self.path.name)) is not None and int(part[2]) > 1:
            raise ModelError(
                f"{self.path} is one part of {int(part[2])}: join them first (`llama-gguf-split --merge FIRST OUT`)"
            )
        with self.path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(f"{self.path} is no GGUF file: it does not begin with GGUF")

    def fingerprint(self) -> str:
        """sha256 of the content."""
        return hashlib.sha256(f"gguf {file_sha256(self.path)}".encode()).hexdigest()

    def reader(self) -> GGUFReader:
        """Its metadata and where its tensors lie. Raises ModelError for a file that is cut short or damaged."""
        from gguf import GGUFReader

        try:
            reader = GGUFReader(self.path)
            needed = max((int(one.data_offset) + int(one.n_bytes) for one in reader.tensors), default=0)
        except (OSError, ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
            raise ModelError(f"{self.path} cannot be read as GGUF, or is cut short: {error}") from error
        if needed > self.path.stat().st_size or not reader.tensors:
            raise ModelError(f"{self.path} is cut short: {self.path.stat().st_size} of {needed} bytes")
        return reader

    def parsed(self) -> dict[str, Any]:
        """Configuration and tokenizer in the keys of transformers. Raises ModelError for an unknown architecture."""
        from transformers import modeling_gguf_pytorch_utils

        load: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
        try:
            found: dict[str, Any] = load(str(self.path))
        except (OSError, ValueError, IndexError, KeyError, TypeError, ImportError) as error:
            raise ModelError(f"{self.path} cannot be read as a GGUF model: {type(error).__name__}: {error}") from error
        return found
