"""Where Hydra looks for options of quantbench: the user's folders before ours, sweeps in folders of that name."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from hydra.plugins.search_path_plugin import SearchPathPlugin

GROUP = "sweep"


class QuantbenchSearchPath(SearchPathPlugin):
    """Adds the folders that quantbench was told to search; other applications are left alone."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the user's folders before our own options (Hydra's contract)."""
        from quantbench.config.folders import searched

        folders = searched()
        if folders is None:
            return
        wanted = [*(f"file://{folder.resolve()}" for folder in folders.own)]
        wanted += [f"sweeps://{folder.resolve()}" for folder in folders.sweeps]
        for path in reversed(wanted):
            search_path.prepend(provider="quantbench", path=path)


class SweepsFolder(FileConfigSource):
    """A folder whose files are the options of one group, whatever the folder is called."""

    @staticmethod
    def scheme() -> str:
        """What stands before :// in a search path."""
        return "sweeps"

    def load_config(self, config_path: str) -> ConfigResult:
        """The content of sweep/NAME."""
        return super().load_config(_inside(config_path))

    def available(self) -> bool:
        """Whether the folder is there."""
        return Path(self.path).is_dir()

    def is_group(self, config_path: str) -> bool:
        """Only the group of sweeps."""
        return config_path.strip("/") in {"", GROUP}

    def is_config(self, config_path: str) -> bool:
        """Whether there is a sweep of that name."""
        return config_path.startswith(f"{GROUP}/") and super().is_config(_inside(config_path))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """The sweeps; at the top, their group."""
        if config_path.strip("/") == "":
            return [] if results_filter == ObjectType.CONFIG else [GROUP]
        if config_path.strip("/") != GROUP or results_filter == ObjectType.GROUP:
            return []
        return sorted(file.stem for file in Path(self.path).glob("*.yaml"))


def _inside(config_path: str) -> str:
    return config_path.removeprefix(f"{GROUP}/")
