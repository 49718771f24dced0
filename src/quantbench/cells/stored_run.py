"""A run's quantized model, made again from what is stored of it: for programs, and for exports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantbench.core.errors import StoreError
from quantbench.store.records import RunRecord
from quantbench.store.store import Store

# torch takes seconds to import: a run that is not there is refused without it.
if TYPE_CHECKING:
    from quantbench.models.loading import ModelSource
    from quantbench.pipeline.artifact import Artifact

REWRITES = frozenset({"weight", "activation", "kv_cache", "rotation", "transforms"})
"""Parts of a recipe of which full precision has none."""


def find_run(store: Store, run_id: str, elsewhere: str = "output_dir=FOLDER") -> RunRecord:
    """The record of a finished run, by its id or the first characters of it. Raises StoreError if there is none.

    elsewhere: how the caller's user names another store.
    """
    found = [known for known in store.run_ids() if known.startswith(run_id)]
    if len(found) != 1:
        what = f"{len(found)} runs begin like that" if found else f"no such run; {len(store.run_ids())} are stored"
        raise StoreError(f"run {run_id!r} in {store.root}: {what}. Elsewhere: {elsewhere}")
    record = store.load_run(found[0])
    if record is None or record.status == "failed":
        error = (record.error or {}).get("message", "no record") if record is not None else "no record"
        raise StoreError(f"run {found[0]} failed and has no model: {error}. Its command, given again, tries it again")
    return record


def stored_artifact(store: Store, record: RunRecord) -> Artifact:
    """What was quantized; empty for full precision. Raises StoreError if it was not kept, or is not the record's."""
    from quantbench.core import tensors
    from quantbench.pipeline.artifact import Artifact

    if not REWRITES & set(record.config["quantizer"]):
        return Artifact()
    weights = store.weights_path(record.run_id)
    if not weights.exists():
        raise StoreError(
            f"run {record.run_id} kept no weights (save=none, or {weights} was deleted). Delete the folder "
            f"{store.run_dir(record.run_id)} and give its command again, with save=weights"
        )
    stored = tensors.load(weights)
    check_same(record, "weights", tensors.fingerprint(stored))
    return Artifact.from_tensors(stored, Artifact.read_spec(store.spec_path(record.run_id)))


def model_of(
    store: Store, record: RunRecord, model_path: str | Path | None, option: str = "model_path=FOLDER"
) -> ModelSource:
    """Where the run's model lies; of a local one the record knows its content, and the sweep's overrides its folder.

    option: how the caller's user names that folder. Raises StoreError if it is not known.
    """
    from quantbench.core.build import build
    from quantbench.models.loading import ModelSource

    spec = dict(record.config["model"])
    if "path" in spec:
        found = model_path or _folder_in_sweeps(store, record.run_id)
        if found is None:
            raise StoreError(
                f"run {record.run_id}: its model is a folder, which no sweep in {store.root} names: give {option}"
            )
        spec["path"] = str(found)
    return build(spec, ModelSource, "model")


def check_same(record: RunRecord, what: str, found: str) -> None:
    """Raise StoreError if a run was made of something else than what is there now."""
    stored = record.fingerprints.get(what)
    if stored != found:
        raise StoreError(
            f"run {record.run_id}: its record was made with {what} {stored}, now there is {found}. What lies there has "
            "changed under the same name: restore it, or compute the run again"
        )


def _folder_in_sweeps(store: Store, run_id: str) -> str | None:
    for manifest in store.manifests():
        for cell in manifest.cells:
            paths = [one.partition("=")[2] for one in cell.overrides if one.startswith("model.path=")]
            if paths and run_id in {cell.run_id, cell.baseline_run_id}:
                return paths[-1].strip("'\"")
    return None
