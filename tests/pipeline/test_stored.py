"""What is stored is what was quantized, to the bit, or an error says which layer is not."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quantbench.cells.quantizing import quantize_and_store
from quantbench.cells.session import Inputs, Session
from quantbench.config.composer import compose_cells
from quantbench.core.build import build
from quantbench.core.errors import StoreError
from quantbench.formats.grid_params import GridParams
from quantbench.formats.int import IntFormat
from quantbench.formats.quantized_weight import QuantizedWeight
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.checkpoint import Checkpoint
from quantbench.pipeline.input_ops import RotateInput, ShiftInput
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.state import WalkState
from quantbench.pipeline.stored import check_stored
from quantbench.pipeline.walker import quantize_model
from quantbench.store.store import Store
from recipes import make_recipe, quickened, recipe_spec
from tiny import save_tiny_model, tiny_handle


def artifact_of(name: str) -> Artifact:
    spec = quickened(recipe_spec(name))
    if name == "os_plus":  # by default it shifts nothing behind a normalization without a bias
        spec["transforms"]["os_plus"]["shift"] = True
    recipe = build(spec, Recipe, "quantizer")
    tokens = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(0))
    return quantize_model(
        tiny_handle(), recipe, None if recipe.data_free else tokens, torch.device("cpu"), lambda _done, _total: None
    ).artifact


def written(artifact: Artifact) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    tensors, spec = artifact.to_tensors()
    return {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(Artifact.spec_text(spec))


@pytest.mark.parametrize("name", ["os_plus", "quarot", "spqr", "w8a8"])
def test_a_bit_that_is_not_what_it_was_is_found(name: str) -> None:
    artifact = artifact_of(name)
    tensors, spec = written(artifact)
    check_stored(artifact, tensors, spec)
    layer = next(reversed(artifact.weights))
    broken = {key: tensor.clone() for key, tensor in tensors.items()}
    broken[f"{layer}#codes"][0] ^= 1
    with pytest.raises(StoreError, match=rf"layer {layer}, format IntFormat.*decodes to something else"):
        check_stored(artifact, broken, spec)
    for key in (key for key in tensors if key.endswith("#changed")):
        broken = tensors | {key: torch.nextafter(tensors[key], tensors[key] + 1)}
        with pytest.raises(StoreError, match=f"parameter {key.removesuffix('#changed')}: what was stored"):
            check_stored(artifact, broken, spec)


def test_a_transform_and_a_rotation_that_are_stored_otherwise_are_found() -> None:
    shifted = artifact_of("os_plus")
    tensors, spec = written(shifted)
    shift = next(op for op in shifted.ops if isinstance(op, ShiftInput))
    key = next(key for key in tensors if key.startswith(f"{shift.module}#op") and key.endswith("shift"))
    with pytest.raises(
        StoreError, match=f"layer {shift.module}, operation ShiftInput: .* do not hold all that it does"
    ):
        check_stored(shifted, tensors | {key: tensors[key].bfloat16().float()}, spec)
    rotated = artifact_of("quarot")
    tensors, spec = written(rotated)
    index = next(i for i, op in enumerate(rotated.ops) if isinstance(op, RotateInput))
    other = copy.deepcopy(spec)
    other["ops"][index]["seed"] += "'"
    with pytest.raises(StoreError, match=f"layer {rotated.ops[index].module}, operation RotateInput: "):
        check_stored(rotated, tensors, other)
    del spec["ops"][index]
    with pytest.raises(StoreError, match=rf"operations: .* {len(spec['ops'])} of {len(rotated.ops)} are stored"):
        check_stored(rotated, tensors, spec)


def centred() -> QuantizedWeight:
    """A weight with a group mean, a real number, where the format stores an integer zero point."""
    made = make_recipe("rtn", "quantizer.weight.group_size=16").weight
    assert isinstance(made, IntFormat)
    codes = torch.arange(64, dtype=torch.uint8).reshape(2, 32) % 16
    params = GridParams(torch.full((2, 2), 0.5), torch.tensor([[3.0, 7.25], [1.0, 2.0]]))
    return QuantizedWeight(codes, params, made)


def test_a_format_that_stores_integers_of_real_numbers_is_an_error_before_the_run_is_kept(tmp_path: Path) -> None:
    artifact = Artifact(weights={"model.layers.0.mlp.up_proj": centred()})
    tensors, spec = artifact.to_tensors()
    with pytest.raises(StoreError, match=r"layer model\.layers\.0\.mlp\.up_proj, format IntFormat: .*pack and unpack"):
        check_stored(artifact, tensors, spec)
    with pytest.raises(StoreError, match=r"layer model\.layers\.0\.mlp\.up_proj, format IntFormat"):
        Checkpoint(tmp_path, 1, {}).save(WalkState(blocks=1, artifact=artifact))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("save", ["weights", "none"])
def test_a_run_whose_format_loses_something_is_not_stored(
    tmp_path: Path, save: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack = IntFormat.pack

    def lossy(self: IntFormat, codes: torch.Tensor, params: GridParams) -> dict[str, torch.Tensor]:
        return pack(self, codes & ~1, params)

    save_tiny_model(tmp_path / "model")
    typed = ["model=local", f"model.path={tmp_path / 'model'}", "quantizer=rtn", "quantizer.weight.group_size=16"]
    (cell,) = compose_cells([*typed, f"save={save}", f"output_dir={tmp_path / 'outputs'}", "threads=1"])
    store = Store(tmp_path / "outputs")
    with monkeypatch.context() as patched:
        patched.setattr(IntFormat, "pack", lossy)
        with (
            store.lock(cell.run_id),
            pytest.raises(StoreError, match=r"layer model\.layers\.0\..*, format IntFormat: "),
        ):
            quantize_and_store(Session(store), cell, Inputs(None, {}, {}))
    assert store.load_run(cell.run_id) is None
    with store.lock(cell.run_id):
        quantize_and_store(Session(store), cell, Inputs(None, {}, {}))
    record = store.load_run(cell.run_id)
    assert record is not None
    assert record.status == "quantized"
