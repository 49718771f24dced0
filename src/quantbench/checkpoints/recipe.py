"""The recipe that quantizes nothing: a checkpoint that someone else quantized, read as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from quantbench.checkpoints.files import GGUF, Folder, check_path
from quantbench.checkpoints.gguf_file import GgufFile
from quantbench.core.component import component
from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module
from quantbench.core.paths import LocalPath

if TYPE_CHECKING:
    from quantbench.models import hub
else:
    hub = lazy_module("quantbench.models.hub")

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@component
class CheckpointRecipe:
    """A quantized checkpoint of the model that `model=` names, which must be the one it was made from.

    path      a folder (config.json and safetensors), a .gguf file, or the id of a repository of the hub, OWNER/NAME
    file      which .gguf file of the folder or repository; null where it has none, or one
    revision  of the hub: a branch, tag or commit; null: what is in the cache, else main
    calib     what it was calibrated on, as far as you know, for the column `calib`; it decides no number
    """

    full_precision: ClassVar[bool] = False
    data_free: ClassVar[bool] = True
    rewrites: ClassVar[bool] = False

    path: LocalPath
    file: str | None = None
    revision: str | None = None
    calib: Annotated[str, Field(min_length=1)] = "unknown"
    about: dict[str, Any] = Field(default_factory=dict)

    def check_files(self) -> None:
        """Raise ModelError, before anything is hashed, if there is no such checkpoint or it is not complete."""
        self.files().check()

    def identity(self) -> dict[str, Any]:
        """The content of its files: neither where they lie, nor what it is said to be calibrated on."""
        return {"files": f"sha256:{self.files().fingerprint()}"}

    def files(self) -> Folder | GgufFile:
        """What lies at the path; a repository of the hub is fetched if it is not in the cache."""
        found = self._located()
        check_path(found)
        if found.is_file():
            return GgufFile(found)
        if self.file is not None:
            if not (found / self.file).is_file():
                raise ModelError(f"quantizer.file={self.file}: no such file in {found}")
            check_path(found / self.file)
            return GgufFile(found / self.file)
        ggufs = sorted(found.glob(f"*{GGUF}"))
        if not ggufs or any(found.glob("*.safetensors")):
            return Folder(found)
        if len(ggufs) > 1:
            raise ModelError(
                f"quantizer.path={self.path}: {len(ggufs)} GGUF files, of which quantizer.file=NAME takes one: "
                f"{', '.join(one.name for one in ggufs)}"
            )
        return GgufFile(ggufs[0])

    def check_layers(self, names: Sequence[str]) -> None:
        """Nothing: which layers it has is compared with the base model by itself."""

    def expected_bits(self, width: int) -> float:
        """About how many bits a weight takes."""
        return 8.0

    def _located(self) -> Path:
        if self.path.exists():
            return self.path
        text = str(self.path)
        if _HUB_ID.fullmatch(text):
            return hub.checkpoint(text, self.revision, self.file)
        raise ModelError(f"quantizer.path={text}: no such file or folder, and no id of the hub, which reads OWNER/NAME")
