"""What a roofline is computed from, by the names that a user gives: hardware, and the shape of a model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from quantbench.config.catalogue import Catalogue, read_yaml
from quantbench.config.composer import compose_cells
from quantbench.config.folders import Folders
from quantbench.core.build import unknown_choice
from quantbench.core.errors import ConfigError, ModelError
from quantbench.core.lazy import lazy_module
from quantbench.models.folder import missing_part
from quantbench.roofline.hardware import Hardware, hardware
from quantbench.roofline.reading import shape
from quantbench.roofline.shape import Shape
from quantbench.store.manifest import Manifest

pretrained: Any = lazy_module("quantbench.models.pretrained")

_KEY_OF_MODEL = re.compile(r"\+{0,2}model\.")

SUFFIXES = (".yaml", ".yml")


def chosen_hardware(name: str, folders: Folders) -> Hardware:
    """An entry of the catalogue, or what a yaml file of the user's says: one entry, named as the file.

    Raises ConfigError for a name or file that is not there, with what there is, and as `hardware` does.
    """
    if name.endswith(SUFFIXES):
        return hardware(Path(name).stem, read_yaml(Path(name).expanduser()))
    known = Catalogue(folders).entries("hardware")
    if name not in known:
        raise ConfigError(f"{unknown_choice('hardware', name, sorted(known))}. A file of yours: --hardware FILE.yaml")
    if not isinstance(known[name], dict):
        raise ConfigError(f"hardware {name}: expected a mapping of keys, found {type(known[name]).__name__}")
    return hardware(name, known[name])


def named_shape(overrides: Sequence[str], folders: Folders) -> Shape:
    """The shape of the model that overrides choose (model=NAME, model.path=FOLDER, ...), from its configuration alone.

    Raises ConfigError as composing and `shape` do, ModelError if the configuration cannot be had.
    """
    (cell,) = compose_cells([*overrides, "quantizer=none"], folders)
    return shape(_plain(cell.model.config()), cell.model.name)


def run_shapes(manifests: Sequence[Manifest], folders: Folders) -> dict[str, Shape]:
    """The shapes of the models of sweeps, by run id, full-precision runs among them.

    Runs do not keep their model's configuration: it is read from where the command of their cell finds the model.
    """
    found: dict[str, Shape] = {}
    known: dict[tuple[str, ...], Shape] = {}
    for manifest in manifests:
        for cell in manifest.cells:
            chosen = (f"model={cell.choice('model')}", *(one for one in cell.overrides if _KEY_OF_MODEL.match(one)))
            runs = [run for run in (cell.run_id, cell.baseline_run_id) if run is not None]
            if not runs:
                continue
            if chosen not in known:
                known[chosen] = named_shape(chosen, folders)
            found |= dict.fromkeys(runs, known[chosen])
    return found


def folder_shape(path: Path) -> Shape:
    """The shape that a config.json, or a folder with one, describes. Raises ModelError if there is none."""
    folder = path.parent if path.name == "config.json" else path
    if not folder.is_dir() or (lack := missing_part(folder, weights=False)) is not None:
        raise ModelError(f"{path}: {lack if folder.is_dir() else 'no such folder'}; give a folder with a config.json")
    return shape(_plain(pretrained.read_config(folder, folder.name)), folder.name)


def _plain(config: Any) -> dict[str, Any]:
    found = config.get_text_config().to_dict()
    assert isinstance(found, dict)
    return found
