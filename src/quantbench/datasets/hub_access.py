"""Reaching the hub for a data set: is it there, at which commit, and if not, what the user can do."""

from __future__ import annotations

import fnmatch
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from quantbench.core.causes import causes, refused_file
from quantbench.core.errors import DataError

PROBE_SECONDS = 5
"""How long the hub may take to answer a first small request. `datasets` retries for half a minute."""

NO_HUB = "calib=wiki_sample, news_sample and code_sample need no hub, nor do tests on them: 'eval.sets=[wiki_sample]'"


@dataclass(frozen=True)
class Commit:
    """sha: what the asked revision is on the hub now; unreachable: why it cannot be known; neither for local files."""

    sha: str | None = None
    unreachable: str | None = None


def find_commit(label: str, path: str, revision: str | None) -> Commit:
    """Ask the hub which commit a revision is; one request, seconds at most.

    Raises DataError if the hub answers that there is no such data set or revision, or that it may not be read.
    """
    if _offline():
        return Commit(unreachable="offline mode is set (HF_HUB_OFFLINE or HF_DATASETS_OFFLINE)")
    # A network failure raises an error of the HTTP library, which is another one in other versions: hence `Exception`.
    try:
        info = HfApi().dataset_info(path, revision=revision, timeout=PROBE_SECONDS, expand=["sha"])
        return Commit(sha=info.sha)
    except OfflineModeIsEnabled:
        return Commit(unreachable="offline mode is set (HF_HUB_OFFLINE)")
    except GatedRepoError as error:
        raise DataError(f"{label}: {_gated(path)}") from error
    except RevisionNotFoundError as error:
        raise DataError(
            f"{label}: {path} has no revision {revision!r} on the hub; give an existing branch, tag or commit"
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{label}: {_unknown(path)}") from error
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            raise DataError(f"{label}: {_unknown(path)}") from error
        return Commit(unreachable=f"the hub answers with HTTP status {error.response.status_code}")
    except Exception as error:
        return Commit(unreachable=f"the hub cannot be reached: {type(error).__name__}: {error}")


def check_reachable(label: str, path: str, revision: str | None, split: str) -> None:
    """Raise DataError if the hub does not give a data set, and its cache does not know it either.

    Whether the cache has all of it shows when it is read.
    """
    if "/" not in path:  # a format with files of its own
        return
    commit = find_commit(label, path, revision)
    if commit.unreachable is not None and not _in_a_cache(path):
        raise explain(label, path, split, commit, LookupError("not in the cache"))


def _offline() -> bool:
    """As `datasets` reads it, whether or not that is imported."""
    if "datasets" in sys.modules:
        import datasets

        return bool(datasets.config.HF_HUB_OFFLINE)
    asked = os.environ.get("HF_DATASETS_OFFLINE")
    return constants.HF_HUB_OFFLINE if asked is None else asked.upper() in constants.ENV_VARS_TRUE_VALUES


def _in_a_cache(path: str) -> bool:
    """Whether a folder of the hub's cache, or of that of `datasets`, is named for a data set."""
    home = Path(constants.HF_HOME)
    prepared = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets"))
    folders = [folder.name for folder in prepared.iterdir()] if prepared.is_dir() else []
    names = {_plain(path.replace("/", "___")), _plain(path.partition("/")[2])}
    downloaded = Path(constants.HF_HUB_CACHE) / f"datasets--{path.replace('/', '--')}"
    return downloaded.is_dir() or any(_plain(folder) in names for folder in folders)


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


@dataclass(frozen=True)
class HubFile:
    """A file of a data set in the local cache, and the commit it is of."""

    path: Path
    sha: str


def find_file(label: str, path: str, file: str, revision: str | None, commit: Commit) -> HubFile | None:
    """A file of a data set, downloaded if the hub can be reached; else from the cache, None if that has not got it.

    Raises DataError if the repository has no such file, or it may not be read.
    """
    offline = commit.unreachable is not None
    try:
        # By the revision's name, not its commit: the cache then knows what the name stood for, and answers offline.
        found = hf_hub_download(path, file, repo_type="dataset", revision=revision, local_files_only=offline)
    except LocalEntryNotFoundError as error:
        if offline:
            return None
        raise explain(label, path, file, commit, error) from error
    except GatedRepoError as error:
        raise DataError(f"{label}: {_gated(path)}") from error
    except EntryNotFoundError as error:
        where = f"revision {revision or 'main'} ({commit.sha})"
        raise DataError(f"{label}: {path} has no file {file!r} at {where}; check `files`") from error
    except Exception as error:  # the HTTP library's own errors, as in find_commit
        raise explain(label, path, file, commit, error) from error
    # .../snapshots/<commit>/<file>: the commit is as many folders up as the file's name has parts.
    return HubFile(Path(found), Path(found).parents[len(Path(file).parts) - 1].name)


def first_match(label: str, path: str, pattern: str, revision: str | None, commit: Commit) -> str | None:
    """The first file, by name, of a data set that a pattern with * or ? stands for; None if none is in the cache.

    Raises DataError if the hub can be reached and has none.
    """
    if commit.unreachable is not None:
        try:
            folder = Path(snapshot_download(path, repo_type="dataset", revision=revision, local_files_only=True))
        except LocalEntryNotFoundError:
            return None
        names = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    else:
        names = _listed(label, path, commit)
    found = sorted(fnmatch.filter(names, pattern))
    if not found and commit.unreachable is None:
        raise DataError(
            f"{label}: {path} has no file that {pattern!r} stands for; it has {', '.join(sorted(names)[:20])} "
            "(set `files`)"
        )
    return found[0] if found else None


def _listed(label: str, path: str, commit: Commit) -> list[str]:
    try:
        return [file.rfilename for file in HfApi().dataset_info(path, revision=commit.sha).siblings or []]
    except GatedRepoError as error:
        raise DataError(f"{label}: {_gated(path)}") from error
    except Exception as error:  # the HTTP library's own errors, as in find_commit
        raise explain(label, path, "(list of files)", commit, error) from error


def explain(label: str, path: str, split: str, commit: Commit, error: Exception) -> DataError:
    """What to tell the user about an error of load_dataset."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "nknown split" in text:
        problem = f"{path} has no split {split!r}: {text} (set `train` and `test`)"
    elif (refused := refused_file(error)) is not None:
        problem = (
            f"{path}, split {split}, cannot be opened in the Hugging Face cache (HF_HOME={constants.HF_HOME}): "
            f"{refused}. `datasets` writes locks and tables beside what it reads: make that folder writable, or set "
            "HF_HOME to a copy of it that is"
        )
    elif commit.unreachable is not None and _is_absent(error):
        problem = (
            f"{path}, split {split}, is not in the Hugging Face cache (HF_HOME) with these options, and "
            f"{commit.unreachable} ({text}). On a machine with network run `quantbench prepare` with the options of "
            f"this command, and HF_HOME set to a folder you can carry, then set HF_HOME to it here. {NO_HUB}"
        )
    elif commit.unreachable is not None:
        problem = (
            f"{path}, split {split}, cannot be loaded from the Hugging Face cache (HF_HOME={constants.HF_HOME}): "
            f"{type(error).__name__}: {text}. It cannot be fetched anew either: {commit.unreachable}"
        )
    elif "gated dataset" in text:
        problem = _gated(path)
    elif "scripts are no longer supported" in text:
        problem = (
            f"{path} is a loading script, and code from the hub is not run. Set converted=true to read the hub's own "
            "conversion to Parquet, if it has one, or name a repository with data files"
        )
    elif "BuilderConfig" in text or "Config name is missing" in text:
        problem = f"{path} has no such configuration: {text} (name it behind a colon: hub=ID:CONFIG)"
    else:
        problem = f"{path}, split {split}, cannot be loaded: {type(error).__name__}: {text}"
    return DataError(f"{label}: {problem}")


def _is_absent(error: Exception) -> bool:
    """Whether an error says that the cache has not got something; others may come of what is there."""
    absent = (LocalEntryNotFoundError, OfflineModeIsEnabled, FileNotFoundError, ConnectionError)
    return any(
        isinstance(one, absent)
        or type(one) is LookupError
        or type(one).__name__ in {"DatasetNotFoundError", "ConnectionError"}
        or "find cache for" in str(one)
        for one in causes(error)
    )


def _gated(path: str) -> str:
    return f"{path} is gated: accept its terms on its hub page, then log in (`hf auth login`) or set HF_TOKEN. {NO_HUB}"


def _unknown(path: str) -> str:
    return f"the hub knows no data set {path!r}, or it is private: check `hub`, or log in (`hf auth login`). {NO_HUB}"


@contextmanager
def from_cache_only(only: bool) -> Iterator[None]:
    """Keep `datasets` from asking the hub, where it is known to be unreachable: it would retry for half a minute."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or only
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


@contextmanager
def quiet() -> Iterator[None]:
    """Keep progress bars and advice of `datasets` off the screen; errors still arrive."""
    import datasets

    bars, level = datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()
