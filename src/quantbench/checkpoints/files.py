"""The files of a checkpoint: which there are, what their headers say, and their tensors, read one by one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbench.checkpoints.layout import Header
from quantbench.core.errors import ModelError
from quantbench.core.hashing import file_sha256
from quantbench.core.lazy import lazy_module
from quantbench.models.folder import METADATA, MODEL_FILES

if TYPE_CHECKING:
    import safetensors
    from torch import Tensor
else:
    safetensors = lazy_module("safetensors")

PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
GGUF = ".gguf"
_INDEX = ".safetensors.index.json"


@dataclass(frozen=True)
class Folder:
    """A folder of safetensors with a config.json."""

    path: Path

    def check(self) -> None:
        """Raise ModelError for a folder that holds no complete checkpoint; only headers are read."""
        self.config  # noqa: B018 - reading is the check
        if not self.headers:
            raise ModelError(f"{self.path}: its safetensors files hold no tensors")

    def fingerprint(self) -> str:
        """sha256 over names and contents of the files that a model is loaded from."""
        files = sorted({path for pattern in MODEL_FILES for path in self.path.glob(pattern) if path.is_file()})
        return hashlib.sha256("\n".join(f"{p.name} {file_sha256(p)}" for p in files).encode()).hexdigest()

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json. Raises ModelError if there is none, or none that can be read."""
        return _json(self.path / "config.json")

    @cached_property
    def quantization(self) -> Mapping[str, Any]:
        """What says how it is quantized: in config.json, or in a file of its own of older tools. Empty: nothing."""
        found = self.config.get("quantization_config") or self.config.get("compression_config")
        for name, method in (("quantize_config.json", "gptq"), ("quant_config.json", "awq")):
            if not found and (self.path / name).is_file():
                found = {"quant_method": method, **_json(self.path / name)}
        if found and not isinstance(found, Mapping):
            raise ModelError(f"{self.path / 'config.json'}: quantization_config={found!r}: expected a mapping")
        return found or {}

    @cached_property
    def headers(self) -> Mapping[str, Header]:
        """What the files say of each tensor. Raises ModelError for a file that is cut short, or something else."""
        return {name: header for header_file in self._files for name, header in _headers(header_file).items()}

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """What the files say beside their tensors. Raises ModelError as `headers` does."""
        return {name: text for file in self._files for name, text in _header(file)[1].items()}

    def read(self, name: str) -> Tensor:
        """One tensor."""
        with safetensors.safe_open(self._places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor

    @cached_property
    def _places(self) -> Mapping[str, Path]:
        return {name: file for file in self._files for name in _headers(file)}

    @cached_property
    def _files(self) -> list[Path]:
        files = sorted(self.path.glob("*.safetensors"))
        indices = sorted(self.path.glob(f"*{_INDEX}"))
        if len(indices) == 1:
            wanted = set(_json(indices[0]).get("weight_map", {}).values())
            if absent := sorted(wanted - {file.name for file in files}):
                raise ModelError(
                    f"{self.path}: no {absent[0]}, which {indices[0].name} names: the checkpoint is incomplete"
                )
            files = [file for file in files if file.name in wanted]
        elif len(files) > 1:
            raise ModelError(
                f"{self.path}: {len(files)} safetensors files and {len(indices)} {_INDEX}: which belong together is "
                "not known; keep one, or its parts with their index"
            )
        if not files:
            pickled = [file.name for file in sorted(self.path.iterdir()) if file.suffix in PICKLED]
            if pickled:
                raise _pickled(self.path / pickled[0])
            raise ModelError(f"{self.path}: no .safetensors file: expected a checkpoint as `save_pretrained` writes it")
        return files


def check_path(path: Path) -> None:
    """Raise ModelError for a file that is no GGUF file, and for pickled ones."""
    if path.is_file() and path.suffix in PICKLED:
        raise _pickled(path)
    if path.is_file() and path.suffix != GGUF:
        raise ModelError(f"quantizer.path={path}: expected a folder with config.json and .safetensors, or a .gguf file")


def _pickled(path: Path) -> ModelError:
    return ModelError(
        f"{path} is pickled: reading it can run code, so it is not read. Convert it to safetensors with the tool that "
        "wrote it (its `save_pretrained` has safe_serialization=True)"
    )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(
            f"{path.parent}: no {path.name}: expected a checkpoint as `save_pretrained` writes it"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise ModelError(f"{path}: expected a mapping, found {type(found).__name__}")
    return found


def _headers(file: Path) -> dict[str, Header]:
    return _header(file)[0]


def _header(file: Path) -> tuple[dict[str, Header], dict[str, str]]:
    """What stands at the beginning of a safetensors file: 8 bytes little-endian N, then N bytes of JSON."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if length > size - 8:
            raise ModelError(f"{file} is cut short, or no safetensors file: {size} bytes do not hold its header")
        text = opened.read(length)
    try:
        told = json.loads(text)
        metadata = {name: value for name, value in told.pop(METADATA, {}).items() if isinstance(value, str)}
        found = {
            name: Header(one["dtype"], tuple(one["shape"]), one["data_offsets"][1] - one["data_offsets"][0])
            for name, one in told.items()
        }
        needed = 8 + length + sum(header.n_bytes for header in found.values())
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{file} is no safetensors file ({type(error).__name__}: {error})") from error
    if size < needed:
        raise ModelError(f"{file} is cut short: {size} of {needed} bytes")
    if odd := next((n for n, h in found.items() if 0 not in h.shape and not h.n_bytes), None):
        raise ModelError(f"{file} is no safetensors file: {odd} has a shape and no data")
    return found, metadata
