"""Which file a name in the tables stands for, where the name does not show it."""

from __future__ import annotations

from quantbench.core.paths import is_safe, stem
from quantbench.store.manifest import Manifest


def legend(manifest: Manifest) -> list[str]:
    """Lines "name = file" for data sets read from a file whose own name has letters that names of ours do not hold."""
    origins = [origin for cell in manifest.cells for origin in (*cell.task_origins.values(), *cell.calib_origins)]
    files = {(one.name, one.path) for one in origins if one.path and not is_safe(stem(one.path))}
    return [f"{name} = {path}" for name, path in sorted(files)]
