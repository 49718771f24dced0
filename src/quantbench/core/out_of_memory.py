"""A device that has no memory left: to know its error from others, and to say what would fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from quantbench.core.errors import ModelError
from quantbench.core.lazy import lazy_module

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_module("torch")

OF_PROCESSOR = "DefaultCPUAllocator"
"""What torch's errors name where the memory is that of the machine: they have no class of their own."""


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there was no memory left."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and OF_PROCESSOR in str(error)
    )


@contextmanager
def memory_explained(work: str, device: torch.device, fits: str) -> Iterator[None]:
    """Raise ModelError where the device runs out of memory, which names the work and the device, and what would fit."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{work}: out of memory on {device}. What would fit: {fits}. ({said})") from error


def release(device: torch.device) -> None:
    """Give back what torch keeps of a GPU's memory for later tensors, in pieces that may be too small for the next."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
