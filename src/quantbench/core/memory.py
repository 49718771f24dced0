"""How much memory there is, and files in place of what it would not hold."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from quantbench.core.errors import StoreError
from quantbench.core.files import make_folder, write_failure
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    from torch import Tensor
else:
    torch = lazy_module("torch")

Keep: TypeAlias = "Callable[[Tensor], Tensor]"
"""Keeps a tensor for later: the same values, in memory or in a file."""

CGROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

LIMITS = {"": ("", "memory.max"), "memory": ("memory", "memory.limit_in_bytes")}
"""Of cgroups of version 2 and 1, by their controller: the folder of their tree, and the file that says the limit."""


def machine_memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or fewer where its SLURM job or cgroup has less.

    Containers limit memory by cgroups, as SLURM does where it is set up to.
    """
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    found += _of_job()
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux: there are no cgroups
        return min(found)
    for line in lines:
        _, controller, own = line.split(":", 2)
        if controller in LIMITS:
            tree, file = LIMITS[controller]
            folder = CGROUPS / tree / own.lstrip("/")
            found += [limit for one in (folder, *folder.parents) if (limit := _limit(one / file)) is not None]
    return min(found)


def _of_job() -> list[int]:
    """What the SLURM job asked for on this node, if it did; 0 is all of it."""
    whole, each, cores = (
        int(value) if (value := os.environ.get(name, "")).isdecimal() else 0
        for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE")
    )
    return [mebibytes * 2**20 for mebibytes in (whole, each * cores) if mebibytes]


def _limit(file: Path) -> int | None:
    try:
        text = file.read_text(encoding="ascii").strip()
    except OSError:  # the group is not visible from here, as in most containers, or not of this controller
        return None
    return None if text == "max" else int(text)


def give_back() -> None:
    """Give the system the memory that is free: the C library keeps it, in pieces too small for the next tensor."""
    with contextlib.suppress(AttributeError, OSError):  # a C library other than GNU's has no such function
        ctypes.CDLL(None).malloc_trim(0)


def free_at_once() -> None:
    """From now on tensors of 4 MiB or more go back to the system when they are freed, which costs some time."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 4 * 2**20)


M_MMAP_THRESHOLD = -3
"""As GNU's malloc.h has it."""

PROCESS = 2**30
"""Bytes that a process takes by itself: libraries, texts and their tokens, the charts of a report."""


def in_memory(tensor: Tensor) -> Tensor:
    """Keeps a tensor in memory."""
    return tensor


@dataclass(frozen=True)
class Memory:
    """bytes: how many there are; folder: where files are made of what would be more, and deleted at the end."""

    bytes: int
    folder: Path

    def keeper(self, size: int) -> Keep:
        """What keeps tensors of `size` bytes in all: in memory, or in a file that lasts as long as they do.

        A tensor that is kept in a file can be written into like any other. Keeping raises StoreError if the folder
        cannot be written or is full.
        """
        return in_memory if self.holds(size) else _TensorFile(self.folder).keep

    def holds(self, size: int) -> bool:
        """Whether there is memory for so many bytes beside the process itself."""
        return size + PROCESS <= self.bytes


UNLIMITED = Memory(sys.maxsize, Path())
"""As much memory as is needed."""


class _TensorFile:
    """A file without a name that is mapped into memory: the system writes it out and reads it again as it needs memory.

    It is mapped in large pieces, since each of them takes a file descriptor. Space on the disk is taken step by step.
    """

    PIECE: ClassVar[int] = 4 * 2**30
    STEP: ClassVar[int] = 64 * 2**20
    ALIGNED: ClassVar[int] = 64

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None
        self._piece: mmap.mmap | None = None
        self._begin = 0
        """Where the piece begins in the file. Of it so much is used, taken on the disk, and written out:"""
        self._used = self._taken = self._written = 0

    def keep(self, tensor: Tensor) -> Tensor:
        """The tensor's values, on the CPU."""
        size = tensor.numel() * tensor.element_size()
        if not size:
            return tensor
        try:
            piece = self._room(size)
        except OSError as error:
            raise StoreError(
                f"{write_failure(self._folder, error)} Weights or calibration activations that exceed memory_gib are "
                "kept there while they are worked on; spill_folder=FOLDER chooses another place."
            ) from error
        place = torch.frombuffer(piece, dtype=torch.uint8, count=size, offset=self._used)
        self._used += _up(size, self.ALIGNED)
        kept = place.view(tensor.dtype).view(tensor.shape)
        return kept.copy_(tensor.detach())

    def _room(self, size: int) -> mmap.mmap:
        """The piece, with `size` bytes that are free and taken on the disk behind those that are used."""
        if self._file is None:
            with tempfile.TemporaryFile(dir=make_folder(self._folder)) as made:
                self._file = os.dup(made.fileno())
            weakref.finalize(self, os.close, self._file)
            free_at_once()
        if self._piece is None or self._used + size > len(self._piece):
            self._begin += 0 if self._piece is None else len(self._piece)
            length = _up(max(size, self.PIECE), mmap.ALLOCATIONGRANULARITY)
            os.ftruncate(self._file, self._begin + length)
            self._piece = mmap.mmap(self._file, length, offset=self._begin)
            self._used = self._taken = self._written = 0
        if self._used + size > self._taken:
            self._write_out()
            more = min(max(_up(size, mmap.ALLOCATIONGRANULARITY), self.STEP), len(self._piece) - self._taken)
            _take(self._file, self._begin + self._taken, more)
            self._taken += more
        return self._piece

    def _write_out(self) -> None:
        """Write what is used to the file, so that its memory is free, but for the last page."""
        end = self._used - self._used % mmap.ALLOCATIONGRANULARITY
        if self._piece is not None and end > self._written:
            self._piece.flush(self._written, end - self._written)
            self._piece.madvise(mmap.MADV_DONTNEED, self._written, end - self._written)
            self._written = end
        give_back()


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _take(file: int, begin: int, size: int) -> None:
    """Take space on the disk for a part of a file: writing into a mapped file where there is none kills the process."""
    if sys.platform == "linux":
        os.posix_fallocate(file, begin, size)
    else:
        os.pwrite(file, bytes(size), begin)
