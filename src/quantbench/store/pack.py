"""Sweeps as one small file: manifests, run records, scores with their totals by clusters, and measured costs.

Weights, single items, logs and what only this machine knows (folders, tracebacks) stay behind, so that the file can be
kept in a repository and merged into another store (quantbench.store.merge): a long study is measured in parts. Tables
and comparisons are made from the totals alone. Equal contents give an equal file, to the byte.
"""

from __future__ import annotations

import dataclasses
import io
import json
import lzma
import re
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from quantbench.core import files
from quantbench.core.errors import StoreError
from quantbench.core.version import __version__
from quantbench.store.json_record import SCHEMA_VERSION
from quantbench.store.layout import SAFE_NAME
from quantbench.store.manifest import CellEntry, Manifest
from quantbench.store.store import Store

FORMAT = 1
"""Of the file as a whole; what is in it has the schema of the store."""

HEAD = "pack.json"
TOTALS = ".totals.npy"
LARGEST = 2**30
"""Bytes of all members together that are read: what is larger is no file of ours."""

_NAME = SAFE_NAME.pattern
MEMBER = re.compile(
    rf"runs/(?P<run>{_NAME})/(?:(?P<record>record\.json)|(?P<costs>costs\.jsonl)|(?P<observed>observed\.json)"
    rf"|scores/{_NAME}?(?P<kind>\.failed\.json|\.json|{re.escape(TOTALS)}))"
    rf"|sweeps/(?P<sweep>{_NAME})/manifest\.json"
)
"""What may lie in such a file."""

Files = dict[str, bytes]
"""Contents by their path below the store's folder."""

Counts = Callable[[str], bool]
"""Whether an override counts for what a cell is: output_dir=, threads= and the like do not."""


def pack(store: Store, manifests: Sequence[Manifest], counts: Counts) -> Files:
    """What the file of these sweeps holds: their runs, full-precision ones included, and those runs' scores in them.

    Raises StoreError where nothing is done yet, and for damaged records.
    """
    found: Files = {}
    for manifest in manifests:
        plain = plain_manifest(manifest, counts)
        found[f"sweeps/{manifest.name}/manifest.json"] = plain.to_json().encode()
        for cell in manifest.cells:
            for run_id in (cell.run_id, cell.baseline_run_id):
                if run_id is not None:
                    found |= _run(store, run_id) | _scores(store, run_id, cell)
    if not any(name.startswith("runs/") for name in found):
        names = ", ".join(manifest.name for manifest in manifests)
        raise StoreError(f"nothing to pack: no run of {names} has a record in {store.root}")
    return dict(sorted(found.items()))


def plain_manifest(manifest: Manifest, counts: Counts) -> Manifest:
    """The manifest without overrides that do not count."""
    cells = [
        dataclasses.replace(cell, key=plain_key(cell, counts), overrides=[one for one in cell.overrides if counts(one)])
        for cell in manifest.cells
    ]
    first = {cell.key: cell for cell in reversed(cells)}
    unique = [cell for cell in cells if first[cell.key] is cell]
    overrides = [one for one in manifest.overrides if counts(one)]
    return dataclasses.replace(manifest, overrides=overrides, cells=unique)


def plain_key(cell: CellEntry, counts: Counts) -> str:
    """The cell's key without overrides that do not count: the same on every machine."""
    if cell.key != (" ".join(sorted(cell.overrides)) or "defaults"):
        return cell.key
    return " ".join(sorted(one for one in cell.overrides if counts(one))) or "defaults"


def _run(store: Store, run_id: str) -> Files:
    record = store.load_run(run_id)
    if record is None:
        return {}
    if record.error is not None:  # the traceback and the log name folders of this machine
        record = dataclasses.replace(record, error={key: record.error.get(key, "") for key in ("type", "message")})
    found = {f"runs/{run_id}/record.json": record.to_json().encode()}
    if (observed := store.load_observed(run_id)) is not None:
        found[f"runs/{run_id}/observed.json"] = observed.to_json().encode()
    costs = "".join(json.dumps(cost, ensure_ascii=False) + "\n" for cost in store.load_costs(run_id))
    return found | ({f"runs/{run_id}/costs.jsonl": costs.encode()} if costs else {})


def _scores(store: Store, run_id: str, cell: CellEntry) -> Files:
    found: Files = {}
    for task, protocol in cell.tasks.items():
        if protocol is None:
            continue
        path = store.score_path(run_id, task, protocol)
        inside = f"runs/{run_id}/scores/{path.name}"
        score, failure = store.load_score(run_id, task, protocol), store.load_failure(run_id, task, protocol)
        if score is not None:
            found[inside] = score.to_json().encode()
            found[inside.removesuffix(".json") + TOTALS] = _bytes(path.with_suffix(TOTALS))
        elif failure is not None:
            found[inside.removesuffix(".json") + ".failed.json"] = failure.to_json().encode()
    return found


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error}. Delete the score beside it to score that task again") from error


def write_pack(path: Path, contents: Mapping[str, bytes]) -> int:
    """Write them as a tar archive compressed with xz, atomically; its size in bytes."""
    head = {"format": FORMAT, "schema_version": SCHEMA_VERSION, "quantbench": __version__}
    whole = {HEAD: (json.dumps(head) + "\n").encode(), **contents}
    with files.replacing(path) as temporary, tarfile.open(temporary, "w:xz", preset=9) as archive:
        for name, content in whole.items():
            member = tarfile.TarInfo(name)  # without owner and time
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
    return path.stat().st_size


def read_pack(path: Path) -> Files:
    """What `write_pack` wrote. Raises StoreError for a file that is missing, damaged, or holds anything else."""
    found: Files = {}
    size = 0
    try:
        with tarfile.open(path, "r:xz") as archive:
            for member in archive:
                size += member.size
                if not member.isfile() or size > LARGEST or not (member.name == HEAD or MEMBER.fullmatch(member.name)):
                    raise StoreError(f"{path}: {member.name!r} does not belong into a file of `quantbench pack`")
                stream = archive.extractfile(member)
                assert stream is not None
                found[member.name] = stream.read()
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        raise StoreError(f"cannot read {path} as a file of `quantbench pack`: {error}. Pack the sweep again") from error
    try:
        told = json.loads(found.pop(HEAD))["format"]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} is no file of `quantbench pack`: it does not say its format ({HEAD})") from error
    if told != FORMAT:
        raise StoreError(f"{path} has format {told}; quantbench {__version__} reads format {FORMAT}")
    return found
