"""What a sweep is called, and what its captions say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from quantbench.config.cell import Cell, slug
from quantbench.config.settings import tells_apart
from quantbench.core.hashing import digest
from quantbench.core.paths import brief


def sweep_name(command: Sequence[str], params: Mapping[str, str]) -> str:
    """The sweep's name: that of its file, or a slug and digest of its sorted overrides. Never a date.

    The same command finds its sweep again; operational overrides do not count.
    """
    counted = sorted(o for o in command if tells_apart(o))
    files = [o.partition("=")[2] for o in counted if o.lstrip("+").startswith("sweep=")]
    others = [o for o in counted if not o.lstrip("+").startswith("sweep=")]
    if len(files) == 1 and not others:
        return slug(files[0])
    if not counted:
        return "default"
    base = "-".join([*files, *map(_leaf, others)])
    return f"{slug(base)}-{digest([counted, dict(params)], 8)}"


def _leaf(override: str) -> str:
    """The last part of an override's key, and its value."""
    key, equals, value = brief(override).partition("=")
    return key.rpartition(".")[2] + equals + value


def caption(cells: Sequence[Cell]) -> dict[str, str]:
    """What a table's caption says of how much text was used: the values all cells share."""
    values = []
    for cell in cells:
        one = {"scale": cell.choices["scale"]}
        if cell.calib is not None:
            one["calibration"] = f"{cell.calib.n} x {cell.calib.length} tokens"
        values.append(one)
    shared = dict(values[0])
    for one in values:
        shared = {k: v for k, v in {**one, **shared}.items() if one.get(k, v) == v}
    return shared
