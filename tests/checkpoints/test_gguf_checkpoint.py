"""GGUF files of a Llama with every type of weight that the package gguf dequantizes."""

from __future__ import annotations

import copy
from itertools import cycle
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from quantbench.cells.summary import bits_of_model
from quantbench.checkpoints.gguf_reader import FLOATING
from quantbench.checkpoints.read import check_checkpoint, read_checkpoint
from quantbench.checkpoints.recipe import CheckpointRecipe
from quantbench.core.errors import ModelError
from quantbench.models.handle import ModelHandle
from tiny import BOS, BYTES, EOS, POSITIONS, VOCABULARY, settled, tiny_handle, tiny_tokenizer

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
NAMES |= {"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj"}
NAMES |= {"ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
WIDTH, HEADS, KEY_HEADS, BLOCKS = 256, 4, 2, 3
TOKENS = tiny_tokenizer().get_vocab()
FLOATS = {Kind[name] for name in FLOATING}


def kinds() -> list[Kind]:
    """Quantized types that the package dequantizes."""
    return sorted(gguf.quants._type_traits.keys() - FLOATS)


def llama(*, tied: bool) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": BLOCKS, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS, "max_position_embeddings": POSITIONS}
    config = LlamaConfig(**shape, **heads, bos_token_id=0, eos_token_id=1, tie_word_embeddings=tied)  # type: ignore[arg-type]
    return settled(LlamaForCausalLM(config))


def interleaved(values: Tensor, heads: int) -> Tensor:
    """Rows of queries and keys as llama.cpp's converter writes them: the halves of each head take turns."""
    return torch.cat([torch.stack(list(one.chunk(2)), 1).flatten(0, 1) for one in values.chunk(heads)])


def halves(values: Tensor, heads: int) -> Tensor:
    """The inverse."""
    return torch.cat([torch.cat([one[::2], one[1::2]]) for one in values.chunk(heads)])


def write(path: Path, model: PreTrainedModel, chosen: list[Kind] | None, *, tied: bool) -> int:
    """A GGUF file of the model; bits of its tensors. chosen: types whose blocks are drawn, and put into the model.

    None: the model's weights in Q8_0. Drawn bytes lack their bit 6, so that no float16 among them is infinite.
    """
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {"context_length": POSITIONS, "embedding_length": WIDTH, "feed_forward_length": WIDTH}.items():
        getattr(writer, f"add_{key}")(value)
    writer.add_block_count(BLOCKS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([BOS, EOS, *BYTES])
    tensors = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    tensors |= {f"blk.{i}.{key}": f"model.layers.{i}.{name}" for i in range(BLOCKS) for key, name in NAMES.items()}
    turn, bits, draw = cycle(chosen or [Kind.Q8_0]), 0, np.random.default_rng(0)
    for key, name in tensors.items():
        parameter = model.get_parameter(f"{name}.weight").data
        heads = HEADS if key.endswith("attn_q") else KEY_HEADS if key.endswith("attn_k") else None
        if key == "output" and tied:
            continue
        if parameter.dim() == 1:
            writer.add_tensor(f"{key}.weight", parameter.numpy())
            bits += 32 * parameter.numel()
            continue
        kind = next(turn)
        if chosen is None:
            stored = parameter if heads is None else interleaved(parameter, heads)
            packed = gguf.quants.quantize(stored.numpy(), kind)
        else:
            block, size = gguf.GGML_QUANT_SIZES[kind]
            packed = draw.integers(0, 255, (len(parameter), WIDTH // block * size), dtype=np.uint8) & 0xBF
            values = torch.from_numpy(gguf.dequantize(packed, kind).copy())
            parameter.copy_(values if heads is None else halves(values, heads))
        writer.add_tensor(f"{key}.weight", packed, raw_dtype=kind)
        bits += 8 * packed.nbytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return bits


def test_every_type_is_read_exactly(tmp_path: Path) -> None:
    assert {"Q4_K", "Q6_K", "IQ2_XXS", "IQ4_XS", "IQ1_M", "MXFP4", "TQ1_0"} <= {kind.name for kind in kinds()}
    model = llama(tied=False)
    bits = write(tmp_path / "all.gguf", model, kinds(), tied=False)
    handle = ModelHandle(model, tiny_tokenizer(), "tiny")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    recipe = CheckpointRecipe(path=tmp_path / "all.gguf")
    assert check_checkpoint(recipe, model, TOKENS) == POSITIONS
    found = read_checkpoint(handle, recipe, lambda _done, _total: None)
    assert len(found.artifact.changed) == 7 * BLOCKS + 2
    assert all(torch.equal(values, before[name]) for name, values in found.artifact.changed.items())
    assert bits_of_model(handle, found.artifact) == bits / sum(value.numel() for value in before.values())
    assert found.notes[0].startswith("read from a checkpoint: GGUF (")


def test_a_tied_head_is_that_of_the_embeddings(tmp_path: Path) -> None:
    model = llama(tied=True)
    bits = write(tmp_path / "tied.gguf", model, None, tied=True)
    handle = ModelHandle(model, tiny_tokenizer(), "tiny")
    found = read_checkpoint(handle, CheckpointRecipe(path=tmp_path), lambda _done, _total: None)
    assert bits_of_model(handle, found.artifact) == bits / sum(value.numel() for value in model.parameters())
    original = model.get_parameter("lm_head.weight").clone()
    found.artifact.install(handle)
    embeddings, head = (handle.model.get_parameter(f"{name}.weight") for name in ("model.embed_tokens", "lm_head"))
    assert torch.equal(embeddings, head)
    assert 0 < (head - original).abs().max() <= original.abs().max() / 127
    assert found.artifact.effective_bits == 8.5


def test_files_that_are_refused(tmp_path: Path) -> None:
    model, path = llama(tied=True), tmp_path / "one.gguf"
    write(path, model, None, tied=True)
    recipe = CheckpointRecipe(path=path)
    with pytest.raises(ModelError, match="hidden_size is 256 in the checkpoint and 32 in the base model"):
        check_checkpoint(recipe, tiny_handle().model, TOKENS)
    other = copy.deepcopy(model)
    other.get_parameter("model.norm.weight").data[0] = 2
    with pytest.raises(ModelError, match=r"model.norm.weight differs from the base model's in 1 of 256 values"):
        read_checkpoint(ModelHandle(other, tiny_tokenizer(), "tiny"), recipe, lambda _done, _total: None)
    with pytest.raises(ModelError, match="another tokenizer: 258 of"):
        check_checkpoint(recipe, model, {token: index + 1 for token, index in TOKENS.items()})
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    with pytest.raises(ModelError, match=r"cannot be read as GGUF, or is cut short|is cut short"):
        check_checkpoint(recipe, model, TOKENS)
    path.write_bytes(content)
    path.rename(tmp_path / "one-00001-of-00002.gguf")
    with pytest.raises(ModelError, match="is one part of 2: join them first"):
        CheckpointRecipe(path=tmp_path).check_files()
    (tmp_path / "two.gguf").write_bytes(content)
    with pytest.raises(ModelError, match=r"2 GGUF files, of which quantizer.file=NAME takes one: one-"):
        CheckpointRecipe(path=tmp_path).check_files()
    CheckpointRecipe(path=tmp_path, file="two.gguf").check_files()
    with pytest.raises(ModelError, match=r"quantizer.file=three.gguf: no such file"):
        CheckpointRecipe(path=tmp_path, file="three.gguf").check_files()
