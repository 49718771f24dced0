"""Rotating models: the function stays, whatever the sizes; where it would not, the model is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from quantbench.cells.summary import notes_of
from quantbench.core.errors import ConfigError, ModelError
from quantbench.formats.grid_params import GridParams
from quantbench.models.handle import ModelHandle
from quantbench.pipeline.artifact import Artifact
from quantbench.pipeline.input_ops import RotateInput
from quantbench.pipeline.policy import Policy
from quantbench.pipeline.recipe import Recipe
from quantbench.pipeline.rotate import rotate_model
from quantbench.pipeline.walker import quantize_model
from quantbench.tasks.reference import Reference
from quantbench.tasks.text_windows import Windows
from quantbench.transforms.rotation import Rotation
from recipes import make_recipe
from rewriting import CPU, logits, quantized, relative, tokens, uneven
from tiny import (
    VOCABULARY,
    tiny_gemma2,
    tiny_gpt2,
    tiny_gpt_neox,
    tiny_handle,
    tiny_llama,
    tiny_llama_tied,
    tiny_opt,
    tiny_qwen3,
)

ROTATION = "+rotation@quantizer.rotation=hadamard"
ALL = ("residual", "value", "heads", "down")
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 1,
}


def llama_of(hidden: int, intermediate: int) -> PreTrainedModel:
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=intermediate, attention_bias=True, mlp_bias=True, **SIZES
    )
    return LlamaForCausalLM(config)


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": tiny_llama,
    "llama_tied": tiny_llama_tied,
    "qwen3": tiny_qwen3,
    "llama_24": lambda: llama_of(24, 36),
    "llama_36_biases": lambda: llama_of(40, 20),
    "llama_48": lambda: llama_of(48, 100),
    "mistral": lambda: MistralForCausalLM(
        MistralConfig(hidden_size=24, intermediate_size=44, head_dim=8, sliding_window=8, **SIZES)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(hidden_size=48, intermediate_size=36, **SIZES)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(hidden_size=36, intermediate_size=40, head_dim=12, **SIZES)),
    "phi3": lambda: Phi3ForCausalLM(Phi3Config(hidden_size=48, intermediate_size=36, **SIZES)),
}


def rotated(*names: str) -> Recipe:
    """Full precision with some rotations."""
    return Recipe(weight=None, rounding=None, policy=Policy(), rotation=Rotation(**{n: n in names for n in ALL}))


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_rotated_model_computes_the_same(make: Callable[[], PreTrainedModel]) -> None:
    torch.manual_seed(0)
    handle = tiny_handle(uneven(make()))
    before = logits(handle.model)
    recipe = rotated(*ALL)
    assert recipe.data_free
    assert not recipe.full_precision
    artifact = quantized(handle, recipe)
    assert relative(logits(handle.model), before) < 5e-6
    blocks = {name.split(".layers.")[1].split(".")[0] for name in artifact.changed if ".layers." in name}
    assert blocks == {"0", "1"}
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= set(artifact.changed)
    handle.restore()
    assert torch.equal(logits(handle.model), before)


@pytest.mark.parametrize("name", ["residual", "value", "heads", "down"])
def test_each_rotation_alone(name: str) -> None:
    handle = tiny_handle(uneven(tiny_qwen3()))
    before = logits(handle.model)
    artifact = quantized(handle, rotated(name))
    assert relative(logits(handle.model), before) < 5e-6
    own = {n.removeprefix("model.layers.0.").removesuffix(".weight") for n in artifact.changed if ".0." in n}
    readers = {f"self_attn.{n}_proj" for n in "qkv"} | {"mlp.gate_proj", "mlp.up_proj"}
    norms = {"input_layernorm", "post_attention_layernorm"}
    writers = {"self_attn.o_proj", "mlp.down_proj"}
    changed = {
        "residual": readers | norms | writers,
        "value": {"self_attn.v_proj", "self_attn.o_proj"},
        "heads": {"self_attn.o_proj"},
        "down": {"mlp.down_proj"},
    }
    assert own == changed[name]
    online = {"heads": "self_attn.o_proj", "down": "mlp.down_proj"}
    assert [op.module for op in artifact.ops] == (
        [f"model.layers.{i}.{online[name]}" for i in range(2)] if name in online else []
    )


def test_the_weights_are_those_of_the_mathematics() -> None:
    model = uneven(tiny_llama())
    original = {name: p.clone() for name, p in model.named_parameters()}
    changed = quantized(tiny_handle(model), rotated("residual")).changed
    Q = Rotation().matrix(32, "residual").matrix().float()
    block, gain = "model.layers.1.", original["model.layers.1.input_layernorm.weight"]
    assert bool((changed[block + "input_layernorm.weight"] == 1).all())
    torch.testing.assert_close(changed["model.embed_tokens.weight"], original["model.embed_tokens.weight"] @ Q)
    q, o = "self_attn.q_proj.weight", "self_attn.o_proj.weight"
    torch.testing.assert_close(changed[block + q], (original[block + q] * gain) @ Q)
    torch.testing.assert_close(changed[block + o], Q.T @ original[block + o])


def test_rotations_without_the_stream_work_on_models_with_layer_norms() -> None:
    handle = tiny_handle(uneven(tiny_opt()))
    before = logits(handle.model)
    artifact = quantized(handle, rotated("value", "heads", "down"))
    assert relative(logits(handle.model), before) < 5e-6
    assert {op.module.rpartition(".")[2] for op in artifact.ops} == {"out_proj", "fc2"}


def test_fused_values_are_found_and_interleaved_ones_are_not() -> None:
    handle = tiny_handle(uneven(tiny_gpt2()))
    before = logits(handle.model)
    assert quantized(handle, rotated("value")).changed
    assert relative(logits(handle.model), before) < 5e-6
    with pytest.raises(ModelError, match=r"no layer gives the values of 4 heads.*rotation\.value=false"):
        quantized(tiny_handle(tiny_gpt_neox()), rotated("value"))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (tiny_opt, "embeddings 16 wide are projected to the 32 channels"),
        (tiny_gpt2, "learned positions are added"),
        (tiny_gpt_neox, "LayerNorm is no root-mean-square normalization"),
        (tiny_gemma2, "post_attention_layernorm writes into the residual stream"),
    ],
)
def test_models_whose_stream_cannot_be_rotated_are_refused(make: Callable[[], PreTrainedModel], reason: str) -> None:
    handle = tiny_handle(make())
    before = logits(handle.model)
    with pytest.raises(ModelError, match=rf"{reason}.*Set quantizer\.rotation\.residual=false"):
        quantized(handle, make_recipe("quarot_rtn"))
    handle.restore()
    assert torch.equal(logits(handle.model), before)


def test_what_reads_the_stream_unseen_is_noticed() -> None:
    model = tiny_llama()
    model.model.layers[1].mlp.register_forward_hook(lambda _m, args, out: out + args[0].clamp(min=0))
    with pytest.raises(ModelError, match=r"model\.layers\.1's output\) changed the full-precision output"):
        quantized(tiny_handle(model), rotated(*ALL))


def test_experts_in_one_parameter_are_refused() -> None:
    model = tiny_llama()
    model.model.layers[0].mlp.experts = nn.Parameter(torch.zeros(2, 3, 4))
    with pytest.raises(ModelError, match=r"model\.layers\.0\.mlp\.experts: weights in a 3-D parameter"):
        rotate_model(tiny_handle(model), Rotation(), CPU)


@pytest.mark.parametrize(
    ("hidden", "heads", "told"),
    [(24, 3, ["rotation of 3 channels", "rotation of 6 channels"]), (24, 2, []), (18, 3, ["3", "6", "18"])],
)
def test_the_record_names_the_matrices_that_are_no_hadamard_matrices(hidden: int, heads: int, told: list[str]) -> None:
    sizes = SIZES | {"num_attention_heads": heads, "num_key_value_heads": 1, "head_dim": 12 if heads == 2 else 6}
    model = LlamaForCausalLM(LlamaConfig(hidden_size=hidden, intermediate_size=36, **sizes))
    found = quantize_model(tiny_handle(uneven(model)), rotated(*ALL), None, CPU, lambda _done, _total: None)
    notes = notes_of(found)
    assert len(notes) == len(told)
    for note, text in zip(notes, told, strict=True):
        assert text in note.split(":")[0]
        assert "a random orthogonal factor" in note


def test_an_empty_rotation_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing is rotated; set rotation: null"):
        make_recipe("none", ROTATION, *(f"quantizer.rotation.{name}=false" for name in ALL))


@pytest.mark.parametrize("make", [tiny_llama, tiny_llama_tied])
@pytest.mark.parametrize("name", ["none", "quarot_rtn"])
def test_a_stored_run_reloads_bit_for_bit(name: str, make: Callable[[], PreTrainedModel]) -> None:
    handle = tiny_handle(make())
    recipe = make_recipe(name, *([ROTATION] if name == "none" else []), "quantizer.policy.keep=[q_proj]")
    artifact = quantized(handle, recipe)
    fresh = logits(handle.model)
    reloaded = Artifact.from_tensors(*artifact.to_tensors())
    reloaded.install(tiny_handle(make()))
    reloaded.install(handle)
    assert torch.equal(logits(handle.model), fresh)
    assert [op.seed for op in reloaded.ops if isinstance(op, RotateInput)] == [
        f"0 model.layers.{i}.{layer}" for i in range(2) for layer in ("self_attn.o_proj", "mlp.down_proj")
    ]


def test_the_head_and_the_embeddings_can_be_quantized_after_rotation() -> None:
    handle = tiny_handle(tiny_llama_tied())
    before = logits(handle.model)
    options = ("quantizer.policy.lm_head=true", "quantizer.policy.embeddings=true", "quantizer.weight.bits=8")
    artifact = quantized(handle, make_recipe("quarot", *options, "quantizer.activation=null"))
    assert {"lm_head", "model.embed_tokens"} <= set(artifact.weights)
    assert not {"lm_head.weight", "model.embed_tokens.weight"} & set(artifact.changed)
    assert relative(logits(handle.model), before) < 0.05


def test_the_seed_is_an_axis_of_replicates() -> None:
    prints = [
        quantized(tiny_handle(), make_recipe("quarot_rtn", f"quantizer.rotation.seed={seed}")).fingerprint()
        for seed in (0, 0, 1)
    ]
    assert prints[0] == prints[1] != prints[2]


def test_divergence_is_measured_from_the_model_as_it_was(tmp_path: Path) -> None:
    handle = tiny_handle(uneven(tiny_llama_tied()))
    windows = windows_of(tokens(3, 20))
    path = tmp_path / "reference.safetensors"
    score(handle, windows, Reference.capture(path))
    quantized(handle, rotated(*ALL))
    items = score(handle, windows, Reference.load(path))
    assert float(items["kl"].abs().max()) < 1e-6
    assert float(items["top1_agreement"].min()) == 1
    quantized(handle, make_recipe("quarot_rtn"))
    assert float(score(handle, windows, Reference.load(path))["kl"].min()) > 1e-4


def windows_of(given: Tensor) -> Windows:
    n = len(given)
    return Windows(
        tokens=given,
        offsets=tuple(range(n)),
        n_bytes=(1,) * n,
        document_ids=(0,) * n,
        clusters=("",) * n,
        documents=("",),
        text_fingerprint="",
        revision="",
        protocol_values={},
    )


def score(handle: ModelHandle, windows: Windows, reference: Reference) -> Any:
    return windows.score(handle, "t", reference, CPU, lambda _done, _total: None).items


def with_an_outlier_channel() -> PreTrainedModel:
    """A Llama with a channel in its residual stream that is much larger than the others, and matters no more."""
    torch.manual_seed(0)
    model, large, factor = llama_of(96, 128), [20], 30
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(2)
        model.model.embed_tokens.weight[:, large] *= factor
        for name, parameter in model.named_parameters():
            if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
                parameter[:, large] /= factor
        model.lm_head.weight[:, large] /= factor
    return model


@cache
def error_of(name: str, *overrides: str) -> float:
    """Of the logits of that model after a recipe, relative."""
    handle = tiny_handle(with_an_outlier_channel())
    before = logits(handle.model)
    quantized(handle, make_recipe(name, *overrides))
    return float((logits(handle.model) - before).norm() / before.norm())


@pytest.mark.parametrize("name", ["quarot", "quarot_rtn"])
def test_the_grids_are_those_of_its_authors(name: str) -> None:
    recipe = make_recipe(name)
    assert recipe.activation is not None
    token = torch.tensor([[7.0, -7.0, 3.2, -0.2]])  # clipped to 6.3: steps of 0.9, from -8 to 7
    steps = torch.tensor([[7.0, -8.0, 4.0, 0.0]])
    torch.testing.assert_close(recipe.activation.fake_quantize(token), 0.9 * steps)
    assert recipe.weight is not None
    codes = recipe.weight.encode(torch.tensor([[-9.0, 9.0]]), GridParams(torch.ones(1, 1)))
    assert recipe.weight.decode(codes, GridParams(torch.ones(1, 1))).tolist() == [[-8.0, 7.0]]


@pytest.mark.parametrize("name", ["quarot", "quarot_rtn"])
def test_rotation_rescues_four_bit_activations_of_a_model_with_an_outlier_channel(name: str) -> None:
    assert error_of(name) < 0.8 * error_of(name, "quantizer.rotation=null")


@pytest.mark.parametrize("transform", ["smooth", "awq", "os_plus"])
def test_no_transform_undoes_a_rotation(transform: str) -> None:
    """Scales of rotated channels are diagonal: they cannot turn the rotation back, so its rescue remains."""
    after = f"+transform@quantizer.transforms.t={transform}"
    assert error_of("quarot_rtn", after) < 0.9 * error_of("quarot_rtn", "quantizer.rotation=null")


def test_a_scale_after_the_rotation_leaves_the_function_unchanged() -> None:
    """Once rotated, a normalization may have any gain again: it acts on the rotated channels, as the readers do."""
    handle = tiny_handle(uneven(tiny_llama()))
    before = logits(handle.model)
    recipe = make_recipe("none", "+transform@quantizer.transforms.smooth=smooth", ROTATION)
    artifact = quantized(handle, recipe)
    gains = artifact.changed["model.layers.0.input_layernorm.weight"]
    assert float(gains.std()) > 0.01
    assert relative(logits(handle.model), before) < 5e-6
