"""Python's search for unreachable objects, kept from going through what libraries make when they are imported."""

from __future__ import annotations

import gc


def pause() -> None:
    """Do not search: a command makes millions of objects before it computes, and keeps them until it ends."""
    gc.disable()


def resume() -> None:
    """Search again, and never among what is there now."""
    gc.freeze()
    gc.enable()
