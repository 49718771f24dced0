"""Model snapshots from the Hugging Face hub: the local cache first, then the hub, with errors a user can act on."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quantbench.core.causes import refused_file
from quantbench.core.errors import ModelError
from quantbench.models.folder import INDEX, SINGLE, missing_part

PROBE_SECONDS = 10
"""How long the hub may take to answer a first small request. Its own download functions retry for half a minute."""

SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken"]
WEIGHT_FILES = ["model*.safetensors"]


def offline() -> bool:
    """Whether the hub is not to be asked (HF_HUB_OFFLINE)."""
    return bool(constants.HF_HUB_OFFLINE)


def snapshot(name: str, id: str, revision: str | None, weights: bool, code: bool) -> Path:
    """The folder of a snapshot, named by its commit; downloaded if the cache lacks something of it.

    weights: with the weights, not only configuration and tokenizer. code: with the Python files it ships.
    Raises ModelError if there is no such model or revision, if it is gated, has no safetensors, or cannot be reached.
    """
    cached = cached_snapshot(name, id, revision)
    if cached is not None and missing_part(cached, weights) is None:
        return cached
    # Weights must come from the commit whose tokenizer and configuration are in use already.
    return download(name, id, cached.name if cached is not None else revision, weights, code)


def cached_snapshot(name: str, id: str, revision: str | None) -> Path | None:
    """The snapshot folder in the local cache, perhaps incomplete; None if there is none."""
    try:
        return Path(snapshot_download(id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    except PermissionError as error:
        raise ModelError(f"model {name}: {id}: {refused_file(error) or error}; HF_HOME names that folder") from error
    except HFValidationError as error:
        raise ModelError(f"model {name}: id={id!r} is not a hub id, which reads OWNER/MODEL: {error}") from error


def download(name: str, id: str, revision: str | None, weights: bool = True, code: bool = False) -> Path:
    """Fetch a snapshot from the hub; what the cache has already is not fetched again. Raises as `snapshot` does."""
    patterns = SMALL_FILES + (WEIGHT_FILES if weights else []) + (["*.py"] if code else [])
    # The hub client raises errors of its HTTP library, which is another one in other versions: hence `Exception`.
    try:
        info = HfApi().model_info(id, revision=revision, timeout=PROBE_SECONDS)
    except Exception as error:
        _explain(name, id, revision, error)
    present = {sibling.rfilename for sibling in info.siblings or []}
    if not present & {SINGLE, INDEX}:
        raise ModelError(
            f"model {name}: {id} has no {SINGLE} at revision {revision or 'main'}, and other formats are not read, "
            "because loading them can run code. Its hub page may have a converted revision (model.revision=refs/pr/N); "
            "or convert it and use model=local model.path=FOLDER."
        )
    try:
        return Path(snapshot_download(id, revision=info.sha, allow_patterns=patterns))
    except Exception as error:
        _explain(name, id, revision, error)


def checkpoint(id: str, revision: str | None, file: str | None) -> Path:
    """The snapshot folder of a checkpoint, downloaded if the cache lacks it: `file` alone, or its safetensors.

    Raises ModelError if there is no such repository, revision or file, or if it cannot be reached.
    """
    cached = cached_snapshot("checkpoint", id, revision)
    if cached is not None and ((cached / file).is_file() if file else any(cached.glob("*.safetensors"))):
        return cached
    # The hub client raises errors of its HTTP library, which is another one in other versions: hence `Exception`.
    try:
        info = HfApi().model_info(id, revision=revision, timeout=PROBE_SECONDS)
        present = sorted(sibling.rfilename for sibling in info.siblings or [])
    except Exception as error:
        raise ModelError(
            f"quantizer.path={id}: no such file or folder here, nor to be had from the hub: {type(error).__name__}: "
            f"{str(error).strip().partition(chr(10))[0]}. Where there is network, `hf download {id}` fetches it; then "
            "give the folder as quantizer.path"
        ) from error
    ggufs = [name for name in present if name.endswith(".gguf")]
    if file is not None and file not in present:
        raise ModelError(f"quantizer.file={file}: {id} has no such file; of GGUF it has: {', '.join(ggufs) or 'none'}")
    if file is None and not any(name.endswith(".safetensors") for name in present):
        hint = f"; quantizer.file=NAME takes one of {', '.join(ggufs)}" if ggufs else ", and pickled files are not read"
        raise ModelError(f"quantizer.path={id}: the repository has no .safetensors file{hint}")
    try:
        patterns = [*SMALL_FILES, "*.safetensors" if file is None else file]
        return Path(snapshot_download(id, revision=info.sha, allow_patterns=patterns))
    except Exception as error:
        _explain("checkpoint", id, revision, error)


def _explain(name: str, id: str, revision: str | None, error: Exception) -> NoReturn:
    instead = "model=smollm2_135m_gguf needs no hub."
    if isinstance(error, GatedRepoError):
        problem = (
            f"is gated: accept its licence at its hub page, then log in (`hf auth login`) or set HF_TOKEN. {instead}"
        )
    elif isinstance(error, RevisionNotFoundError):
        problem = f"has no revision {revision!r}: give an existing branch, tag or commit as model.revision"
    elif isinstance(error, RepositoryNotFoundError):
        problem = f"is unknown to the hub, or private: check model.id; log in if it is private. {instead}"
    elif (refused := refused_file(error)) is not None:
        problem = (
            f"cannot be fetched into the local cache (HF_HOME={constants.HF_HOME}): {refused}. Set HF_HOME to a folder "
            f"that can be written to. {instead}"
        )
    else:
        told = isinstance(error, OfflineModeIsEnabled)
        state = "HF_HUB_OFFLINE is set" if told else f"the hub cannot be reached ({type(error).__name__}: {error})"
        problem = (
            f"is not complete in the local cache, and {state}. On a machine with network run "
            f"`quantbench prepare model={name}` with HF_HOME set to a folder you can carry, then set HF_HOME to it "
            f"here. {instead}"
        )
    raise ModelError(f"model {name}: {id} {problem}") from error
