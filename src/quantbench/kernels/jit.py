"""Compiling a function of numbers and arrays with numba, once for each processor and version of the source.

What was compiled is kept in the folder `kernels` of the cache, as Python keeps the byte code of its modules: in files
of numba, which are of our own code and for this account. Where they cannot be written, or are damaged, the function is
compiled in memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core import caching

from quantbench.core.cache import cache_dir
from quantbench.core.progress import say_once

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(*signature: Any, fastmath: frozenset[str] = frozenset()) -> Callable[[Function], Function]:
    """A decorator: the function compiled for arguments of these numba types, without Python's lock while it runs.

    fastmath: which liberties floating-point operations may take (names of LLVM's flags); by default none. Raises what
    numba raises if it cannot be compiled.
    """

    def decorate(function: Function) -> Function:
        dispatcher = numba.njit(nogil=True, error_model="numpy", fastmath=set(fastmath))(function)
        dispatcher._cache = _Cache(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()
        return cast("Function", dispatcher)

    return decorate


class _Locator(caching.UserProvidedCacheLocator):  # type: ignore[misc]
    """The folder of our cache, whether or not it can be written."""

    def __init__(self, function: Callable[..., Any], file: str) -> None:
        self._py_file, self._lineno = file, function.__code__.co_firstlineno
        self._cache_path = str(cache_dir() / "kernels" / self.get_suitable_cache_subpath(file))

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _Locator:
        return cls(function, file)

    def get_source_stamp(self) -> str:
        """Of all kernels: one holds the code of others that it calls."""
        found = hashlib.sha256()
        for path in sorted(Path(self._py_file).parent.glob("*.py")):
            found.update(path.read_bytes())
        return found.hexdigest()


class _Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = [_Locator]  # noqa: RUF012


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Files

    def load_overload(self, signature: Any, target: Any) -> Any:
        """What was compiled before; None if it is not there or cannot be read."""
        try:
            return super().load_overload(signature, target)
        except Exception as error:  # unpickling a damaged file can raise anything
            say_once(f"{self.cache_path}: compiled code cannot be read ({error}) and is compiled again")
            return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Keep what was compiled, where that can be."""
        try:
            super().save_overload(signature, result)
        except OSError as error:
            say_once(f"compiled code is not kept, so that every process compiles it for itself: {error}")
