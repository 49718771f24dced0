"""Why a data set or a model cannot be read is told by the error, not guessed."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from quantbench.core.causes import refused_file
from quantbench.core.errors import ModelError
from quantbench.datasets.hub_access import Commit, explain
from quantbench.models import hub

OFFLINE = Commit(unreachable="offline mode is set (HF_HUB_OFFLINE)")


def refused(number: int, name: str | None = "/ro/hub/a.lock") -> OSError:
    return OSError(number, os.strerror(number), name)


def wrapped(error: Exception) -> Exception:
    """As a library hands it on."""
    outer = RuntimeError("An error occurred while generating the dataset")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (refused(errno.EACCES), "/ro/hub/a.lock may not be read or written by this user (PermissionError:"),
        (wrapped(refused(errno.EROFS)), "/ro/hub/a.lock lies on a file system that cannot be written to"),
        (refused(errno.ENOSPC), "/ro/hub/a.lock lies on a disk that is full"),
    ],
)
@pytest.mark.parametrize("commit", [OFFLINE, Commit(sha="a" * 40)])
def test_a_cache_that_is_there_and_cannot_be_written_is_not_called_missing(
    error: Exception, said: str, commit: Commit
) -> None:
    message = str(explain("data x", "own/x", "train", commit, error))
    assert said in message
    assert "cannot be opened in the Hugging Face cache (HF_HOME=" in message
    assert "make that folder writable" in message
    assert "is not in the" not in message
    assert "quantbench prepare" not in message


@pytest.mark.parametrize(
    "error",
    [
        LookupError("not in the cache"),
        LocalEntryNotFoundError("x"),
        ConnectionError("Couldn't reach 'own/x' on the Hub (OfflineModeIsEnabled)"),
        wrapped(FileNotFoundError("no x.parquet")),
        ValueError("Couldn't find cache for own/x for config 'en'"),
    ],
)
def test_what_is_missing_is_called_missing(error: Exception) -> None:
    message = str(explain("data x", "own/x", "train", OFFLINE, error))
    assert "own/x, split train, is not in the Hugging Face cache (HF_HOME) with these options, and offline" in message
    assert "quantbench prepare" in message


@pytest.mark.parametrize("error", [ValueError("Not a Parquet file"), KeyError("features"), refused(errno.EACCES, None)])
def test_any_other_error_stands_as_it_is(error: Exception) -> None:
    message = str(explain("data x", "own/x", "train", OFFLINE, error))
    assert f"{type(error).__name__}: " in message
    assert "cannot be loaded from the Hugging Face cache" in message
    assert "is not in the" not in message


def test_a_refused_connection_is_no_refused_file() -> None:
    assert refused_file(refused(errno.EACCES, None)) is None
    assert refused_file(ValueError("x")) is None


def test_a_model_that_cannot_be_written_to_the_cache_is_no_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def model_info(self, *_arguments: Any, **_options: Any) -> Any:
            return SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.safetensors")], sha="a" * 40)

    def snapshot_download(*_arguments: Any, **_options: Any) -> str:
        raise refused(errno.EROFS)

    monkeypatch.setattr(hub, "HfApi", Api)
    monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
    with pytest.raises(ModelError, match="lies on a file system that cannot be written to") as caught:
        hub.download("mine", "own/mine", None)
    assert "the hub cannot be reached" not in str(caught.value)
