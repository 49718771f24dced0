"""Half-quantized models on disk: a long quantization that is interrupted goes on after its last stored block.

Per stored step i (one or more blocks): <i>.safetensors with what the blocks since the step before gave, <i>.hidden with
the inputs of the next block, and last <i>.json, which marks the step as whole. Continuing gives bit for bit what an
undisturbed run gives: everything else of the walk is derived from the model and the recipe again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from quantbench.core import tensors
from quantbench.core.errors import StoreError
from quantbench.core.files import make_folder, read_json, write_json
from quantbench.core.memory import Keep, in_memory
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.state import LayerResult, WalkState
from quantbench.pipeline.stored import check_stored


@dataclass
class Checkpoint:
    """The checkpoint of one run in `folder`, written after every `every` blocks.

    inputs  fingerprints of what the run reads; a checkpoint made with others is not continued
    """

    folder: Path
    every: int
    inputs: dict[str, str]

    def due(self, blocks: int) -> bool:
        """Whether it is to be written when so many blocks are state."""
        return blocks % self.every == 0

    def save(self, state: WalkState) -> None:
        """Add the blocks since the step before.

        Raises StoreError if it cannot be written, or if what is written is not what was quantized.
        """
        make_folder(self.folder)
        before = self._steps()
        known = {name for step in before for name in self._spec(step)["weights"]}
        changed = {name for step in before for name in self._spec(step)["changed"]}
        n_ops = sum(len(self._spec(step)["ops"]) for step in before)
        part = Artifact(
            weights={name: weight for name, weight in state.artifact.weights.items() if name not in known},
            changed={name: value for name, value in state.artifact.changed.items() if name not in changed},
            ops=state.artifact.ops[n_ops:],
        )
        stored, spec = part.to_tensors()
        check_stored(part, stored, spec)
        tensors.save(self.folder / f"{state.blocks}.safetensors", stored)
        if state.hidden is not None:
            tensors.save(self._hidden(state.blocks), {str(i): states.cpu() for i, states in enumerate(state.hidden)})
        plain = {
            "inputs": self.inputs,
            "spec": spec,
            "changed": sorted(part.changed),
            "layers": [dataclasses.asdict(layer) for layer in state.layers],
            "notes": state.notes,
            "scarce": state.scarce,
            "bits": state.bits,
            "has_inputs": state.hidden is not None,
        }
        write_json(self.folder / f"{state.blocks}.json", plain)
        for step in before:
            self._hidden(step).unlink(missing_ok=True)

    def load(self, keep: Keep = in_memory) -> WalkState | None:
        """What was done; None if nothing was. keep: where its weights are kept.

        Raises StoreError if it is damaged or of other inputs.
        """
        steps = self._steps()
        if not steps:
            return None
        artifact = Artifact()
        for step in steps:
            stored = tensors.load(self.folder / f"{step}.safetensors")
            part = Artifact.from_tensors(stored, self._read(step)["spec"], keep)
            artifact.weights |= part.weights
            artifact.changed |= part.changed
            artifact.ops += part.ops
        last = self._read(steps[-1])
        if last["inputs"] != self.inputs:
            raise StoreError(
                f"{self.folder} was made with another model, tokenizer or calibration text under the same names; "
                "delete it to begin anew"
            )
        return WalkState(
            blocks=steps[-1],
            artifact=artifact,
            layers=[LayerResult(**layer) for layer in last["layers"]],
            notes=defaultdict(list, last["notes"]),
            scarce=defaultdict(dict, last["scarce"]),
            hidden=self._inputs_of_next(steps[-1]) if last["has_inputs"] else None,
            bits=last["bits"],
        )

    def remove(self) -> None:
        """Delete it: the run is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _inputs_of_next(self, step: int) -> list[Tensor]:
        found = tensors.load(self._hidden(step))
        return [found[str(i)] for i in range(len(found))]

    def _hidden(self, step: int) -> Path:
        return self.folder / f"{step}.hidden"

    def _steps(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob("*.json"))

    def _read(self, step: int) -> dict[str, Any]:
        path = self.folder / f"{step}.json"
        found: dict[str, Any] = read_json(path, f"Delete {self.folder} to begin the quantization anew")
        return found

    def _spec(self, step: int) -> dict[str, Any]:
        found = self._read(step)
        return {**found["spec"], "changed": found["changed"]}
