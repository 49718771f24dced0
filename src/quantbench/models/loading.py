"""Where a model comes from: the hub, a local folder, or a GGUF file inside a package of the Python package index."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from pydantic import Field
from torch import nn
from transformers import PreTrainedTokenizerBase

from quantbench.core.cache import cache_dir
from quantbench.core.component import component
from quantbench.core.errors import ModelError
from quantbench.core.files import readable_bytes
from quantbench.core.hashing import file_sha256
from quantbench.core.packages import PackageFile, fetch
from quantbench.core.paths import LocalPath
from quantbench.models import folder, hub
from quantbench.models.folder import Dtype
from quantbench.models.gguf import dequantized
from quantbench.models.handle import ModelHandle
from quantbench.models.tokenizer import tokenizer_fingerprint

__all__ = ["HubModel", "LocalModel", "ModelSource", "PackagedGguf", "tokenizer_fingerprint"]


@runtime_checkable
class ModelSource(Protocol):
    """A model that can be loaded. All methods raise ModelError if it is missing, unreachable or unusable."""

    @property
    def name(self) -> str:
        """The option's name."""
        ...

    @property
    def dtype(self) -> Dtype:
        """What the weights are loaded as, on every device."""
        ...

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; reads no weights."""
        ...

    def fingerprint(self) -> str:
        """Which weights are there: the hub commit, or a sha256. Reads no weights into a model."""
        ...

    def config(self) -> Any:
        """The model's configuration; loads no weights."""
        ...

    def load(self, device: str = "cpu") -> ModelHandle:
        """The model in evaluation mode, without gradients."""
        ...

    def prepare(self) -> str:
        """Fetch everything `load` needs; one line saying what lies where, and its size."""
        ...


@component
class HubModel:
    """A causal language model of the hub, by id.

    revision  a branch, tag or commit (None: main). What is in the local cache is used without asking the hub;
              `prepare` fetches the newest.
    """

    name: str
    id: Annotated[str, Field(min_length=1)]
    dtype: Dtype
    revision: str | None = None
    trust_remote_code: bool = False

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; downloads no weights."""
        return folder.load_tokenizer(self._snapshot(weights=False), self.name, self.trust_remote_code)

    def fingerprint(self) -> str:
        """The commit found."""
        return f"{self.id}@{self._snapshot(weights=False).name}"

    def config(self) -> Any:
        """From config.json."""
        return folder.read_config(self._snapshot(weights=False), self.name, self.trust_remote_code)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The model, downloaded first if need be."""
        place = self._snapshot(weights=True)
        return _load(self, place, device, self.trust_remote_code)

    def prepare(self) -> str:
        """Download the newest commit of the revision; in offline mode, check that the cache has it all."""
        if HF_HUB_OFFLINE:
            place = self._snapshot(weights=True)
        else:
            place = hub.download(self.name, self.id, self.revision, code=self.trust_remote_code)
        return _where(f"{self.name}: {self.id} at {place.name}", place)

    def _snapshot(self, weights: bool) -> Path:
        return hub.snapshot(self.name, self.id, self.revision, weights, self.trust_remote_code)


@component
class LocalModel:
    """A causal language model in a folder of yours: config.json, safetensors and a tokenizer."""

    name: str
    path: LocalPath
    dtype: Dtype

    def check_files(self) -> None:
        """Raise ModelError, before anything is read or hashed, if the folder holds no complete model."""
        self._checked()

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer in the folder."""
        return folder.load_tokenizer(self._checked(), self.name)

    def fingerprint(self) -> str:
        """sha256 over the folder's model files."""
        return folder.folder_fingerprint(self._checked())

    def config(self) -> Any:
        """From config.json."""
        return folder.read_config(self._checked(), self.name)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The model in the folder."""
        return _load(self, self._checked(), device)

    def prepare(self) -> str:
        """Nothing to fetch: check that the folder is complete."""
        return _where(self.name, self._checked())

    def _checked(self) -> Path:
        if not self.path.is_dir():
            lack: str | None = "not a folder" if self.path.exists() else "no such folder"
        else:
            lack = folder.missing_part(self.path)
        if lack is not None:
            raise ModelError(
                f"model.path={self.path}: {lack}. Give a folder that `save_pretrained` wrote: config.json, "
                "model.safetensors (or its parts with an index) and the tokenizer's files."
            )
        return self.path


@component
class PackagedGguf:
    """A GGUF file inside a pinned package; dequantized to safetensors in the cache folder once."""

    name: str
    package: PackageFile
    member: Annotated[str, Field(pattern=r"\.gguf$")]
    dtype: Dtype

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer the GGUF file holds."""
        return folder.load_tokenizer(self._folder(), self.name)

    def fingerprint(self) -> str:
        """sha256 of the GGUF file."""
        return file_sha256(self._file())

    def config(self) -> Any:
        """From the GGUF file's configuration."""
        return folder.read_config(self._folder(), self.name)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The dequantized model."""
        return _load(self, self._folder(), device)

    def prepare(self) -> str:
        """Download the package and dequantize its model."""
        return _where(self.name, self._folder())

    def _file(self) -> Path:
        return fetch(self.package, [self.member]) / self.member

    def _folder(self) -> Path:
        return dequantized(self._file(), cache_dir())


def _load(source: ModelSource, place: Path, device: str, trust_remote_code: bool = False) -> ModelHandle:
    model = folder.load_model(place, source.dtype, source.name, trust_remote_code)
    tokenizer = folder.load_tokenizer(place, source.name, trust_remote_code)
    nn.Module.to(model, torch.device(device))
    return ModelHandle(model, tokenizer, source.fingerprint())


def _where(name: str, place: Path) -> str:
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    return f"model {name}: {place} ({readable_bytes(size)})"
