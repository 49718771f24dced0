"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quantbench.core.errors import StoreError
from quantbench.core.files import make_folder, write_failure


def check_new(out: Path) -> None:
    """Raise StoreError if something is at a path already: an export replaces nothing."""
    if out.exists() or out.is_symlink():
        raise StoreError(f"{out} is there already, and an export replaces nothing: name a new folder, or delete it")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, which takes its place when the body is through; removed if anything fails.

    Raises StoreError if something is there, or the operating system refuses.
    """
    check_new(out)
    make_folder(out.absolute().parent)
    temporary = out.absolute().with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    make_folder(temporary)
    try:
        yield temporary
        for path in temporary.rglob("*"):
            if path.is_file():
                with path.open("rb") as written:
                    os.fsync(written.fileno())
        check_new(out)
        temporary.rename(out)
    except OSError as error:
        raise write_failure(out, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
