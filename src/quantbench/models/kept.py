"""What was found in a model's folder before: kept in the cache folder, since finding it imports modelling code.

It lies under the content of all that it follows from: the folder's files but for the weights, the library that reads
them, and the code of this package that looks at the result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from quantbench.core.cache import cache_dir
from quantbench.core.errors import StoreError
from quantbench.core.files import make_folder, write_text
from quantbench.core.hashing import code_sha256, digest, file_sha256
from quantbench.models.folder import DEFINITION_FILES

log = logging.getLogger("quantbench")


class Finding(BaseModel):
    """What was found, of plain values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


F = TypeVar("F", bound=Finding)


def kept(folder: Path, kind: type[F], find: Callable[[], F]) -> F:
    """A finding about a model folder: what was kept, else what `find` gives, which is kept. Its errors go through."""
    path = cache_dir() / "findings" / f"{kind.__name__}-{_definition(folder)}.json"
    known = _read(path, kind)
    if known is not None:
        return known
    found = find()
    try:
        make_folder(path.parent)
        write_text(path, found.model_dump_json())
    except StoreError as error:  # the cache may be a folder of others, to be read only
        log.debug("%s is not kept: %s", kind.__name__, error)
    return found


def _read(path: Path, kind: type[F]) -> F | None:
    """What was kept; None if nothing was, or if the file is damaged."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        log.info("%s cannot be read (%s): looking at the model again", path, type(error).__name__)
        return None


def _definition(folder: Path) -> str:
    """Digest of everything that a finding follows from; the folder's name is one that transformers looks at."""
    patterns = (*DEFINITION_FILES, "additional_chat_templates/*.jinja")
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    contents = [[str(path.relative_to(folder)), file_sha256(path)] for path in files]
    libraries = [version(name) for name in ("transformers", "tokenizers")]
    return digest([str(folder), contents, libraries, code_sha256(Path(__file__).parent)], 32)
