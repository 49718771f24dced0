"""A stored run as files of another program: refused, or written as a whole, proved and described."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from quantbench.cells.stored_run import check_same, find_run, model_of, stored_artifact
from quantbench.core.errors import ConfigError, QuantbenchError
from quantbench.core.files import write_json, write_text
from quantbench.export.card import Described, card
from quantbench.export.folder import check_new, new_folder
from quantbench.export.layouts.awq import Awq
from quantbench.export.layouts.compressed_tensors import CompressedTensors
from quantbench.export.layouts.dense import Dense
from quantbench.export.layouts.gguf import GGUF_FILE, Gguf
from quantbench.export.layouts.gptq import Gptq
from quantbench.export.proof import Proof, check_engine, prove
from quantbench.export.subject import Layout, Subject
from quantbench.export.windows import overrides_of_run, proof_windows
from quantbench.models.skeleton import skeleton
from quantbench.store.store import Store

KNOWN: tuple[Layout, ...] = (Dense(), CompressedTensors(), Gptq(), Awq(), Gguf())
LAYOUTS = {layout.name: layout for layout in KNOWN}
PROOF = "proof.json"


@dataclass(frozen=True)
class Options:
    """How to export.

    model_path  the folder of a model=local, if it is not where the run found it
    prove       read it again and compare; python: the interpreter that does, None: this one
    text        what to compare on, None: the run's own tests; at most `windows` windows of `length` tokens
    """

    model_path: Path | None = None
    prove: bool = True
    python: Path | None = None
    text: Path | None = None
    windows: int = 8
    length: int = 256


@dataclass(frozen=True)
class Exported:
    """What came of it: the run's id, the bytes of the folder, what the proof measured, notes of the layout."""

    run_id: str
    size: int
    proof: Proof | None
    notes: tuple[str, ...]


def export(store: Store, run_id: str, to: str, out: Path, options: Options) -> Exported:
    """Write the run as `to` into the new folder `out`, with a card, and the proof beside it and in the run's folder.

    Raises ConfigError for a format that is not known, cannot hold the run, or whose reader is not installed; StoreError
    for a run without stored weights, or a folder that is there; ModelError if the export cannot be read again. An
    export that is not equivalent stays, and says so.
    """
    if to not in LAYOUTS:
        raise ConfigError(f"--to {to}: no such format. Formats: {', '.join(LAYOUTS)}")
    layout = LAYOUTS[to]
    check_new(out)
    record = find_run(store, run_id, "--output-dir FOLDER")
    artifact = stored_artifact(store, record)
    source = model_of(store, record, options.model_path, "--model-path FOLDER")
    check_same(record, "model", source.fingerprint())
    dtype: torch.dtype = getattr(torch, source.dtype)
    layout.check(Subject(record.run_id, artifact, skeleton(source), source.load_tokenizer(), dtype))
    windows = None
    if options.prove:
        check_engine(to, options.python)
        windows = proof_windows(store, record, source, options.text, options.windows, options.length)
    handle = source.load()
    artifact.install(handle)
    subject = Subject(record.run_id, artifact, handle.model, handle.tokenizer, dtype)
    with new_folder(out) as folder:
        written = layout.write(subject, folder)
        proof = None
        if windows is not None:
            gguf = GGUF_FILE if to == Gguf.name else None
            proof = prove(subject, folder, windows, written.equality, options.python, gguf)
        command = next(iter(overrides_of_run(store, record.run_id)), None)
        described = Described(record, tuple(store.scores(record.run_id)), source, to, out.name, command)
        write_text(folder / "README.md", card(described, proof, written.notes))
        found = _plain(record.run_id, to, proof)
        write_json(folder / PROOF, found)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    store.append_export(record.run_id, {**found, "folder": str(out.absolute())})
    return Exported(record.run_id, size, proof, written.notes)


def check_equivalent(exported: Exported, to: str, out: Path) -> None:
    """Raise QuantbenchError if an export was measured not to be its run."""
    proof = exported.proof
    if proof is not None and not proof.equivalent:
        raise QuantbenchError(
            f"{out} is marked as not equivalent: KL(export || run) is {proof.kl:.3g} nats per token, and --to {to} "
            f"allows {proof.tolerance['kl']:g} here ({proof.equality}); largest logit difference "
            f"{proof.largest_logit_difference:.3g}. Do not serve it as this run: its scores are not the run's"
        )


def _plain(run_id: str, to: str, proof: Proof | None) -> dict[str, Any]:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    found = {"run_id": run_id, "format": to, "created": made, "proved": proof is not None}
    return found if proof is None else found | proof.plain()
