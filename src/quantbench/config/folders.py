"""Where options lie: ours, and those of the user, which go before ours of the same name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from quantbench.core.errors import ConfigError

SWEEPS = "sweeps"
"""The folder of sweeps, in the working folder and in a folder of options."""


def config_dir() -> Path:
    """Where our options lie: inside an installed package, or at the top of a checkout."""
    packaged = Path(__file__).parents[1] / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[3] / "conf"


@dataclass(frozen=True)
class Folders:
    """Folders of the user's that are searched before ours, the first first (--config-dir)."""

    own: Sequence[Path] = field(default=())

    def __post_init__(self) -> None:
        for folder in self.own:
            if not folder.is_dir():
                raise ConfigError(f"--config-dir {folder}: no such folder")
            if (folder / "config.yaml").exists():
                raise ConfigError(
                    f"--config-dir {folder}: it holds config.yaml, which would replace quantbench's own; options lie "
                    "in folders named as their group, for instance calib/NAME.yaml"
                )

    @property
    def options(self) -> list[Path]:
        """All folders with options, in the order in which they are asked for a name."""
        return [*self.own, config_dir()]

    @property
    def sweeps(self) -> list[Path]:
        """The folders of sweeps of the user's that are there, likewise."""
        found = [folder / SWEEPS for folder in self.own] + [Path.cwd() / SWEEPS]
        return [folder for folder in found if folder.is_dir()]

    @property
    def searched_for_sweeps(self) -> str:
        """Where a sweep was looked for, in words."""
        places = [*(f"{folder}/{SWEEPS}" for folder in self.own), f"./{SWEEPS}", "the packaged sweeps"]
        return ", ".join(places)


_active: list[Folders] = []


def search(folders: Folders) -> None:
    """Make these the folders that Hydra searches in this process, through our plugin of its search path."""
    _active[:] = [folders]


def searched() -> Folders | None:
    """The folders given to `search`; None in a process that is another application's."""
    return _active[0] if _active else None
