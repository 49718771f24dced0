from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from quantbench.core.errors import ModelError
from quantbench.core.packages import PackageFile
from quantbench.models import loading
from quantbench.models.folder import max_length
from quantbench.models.gguf import dequantized
from quantbench.models.loading import ModelSource, PackagedGguf
from tiny import BOS, BYTES, EOS, POSITIONS, tiny_llama

NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
NAMES |= {"attn_output": "self_attn.o_proj", "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
NAMES |= {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
MEMBER = "carrier/tiny.gguf"


def write_gguf(path: Path) -> None:
    """The tiny Llama, in 8 bits where rows are a multiple of 32 weights, with a byte-level tokenizer."""
    model = tiny_llama()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(POSITIONS)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_rope_dimension_count(8)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(len(BYTES) + 2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([BOS, EOS, *BYTES[:-1], "ab"])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    tensors = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    tensors |= {f"blk.{i}.{key}": f"model.layers.{i}.{name}" for i in range(2) for key, name in NAMES.items()}
    for key, name in tensors.items():
        values = model.get_parameter(f"{name}.weight").numpy().astype(np.float32)
        if values.ndim == 2 and values.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(f"{key}.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(f"{key}.weight", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_packaged_gguf_is_dequantized_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package" / "carrier").mkdir(parents=True)
    write_gguf(tmp_path / "package" / MEMBER)
    monkeypatch.setenv("QUANTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "fetch", lambda _package, _members: tmp_path / "package")
    package = PackageFile(name="carrier", version="1.0", sha256="0" * 64)
    source = PackagedGguf(name="tiny", package=package, member=MEMBER, dtype="float32")
    assert isinstance(source, ModelSource)
    handle = source.load()
    (folder,) = (path for path in (tmp_path / "cache" / "models").iterdir() if path.is_dir())
    assert folder.name == f"tiny-{source.fingerprint()[:16]}"
    assert handle.fingerprint == source.fingerprint()
    assert max_length(source.config()) == POSITIONS
    original = tiny_llama().model.embed_tokens.weight
    step = original.abs().amax() / 127
    assert (handle.model.get_input_embeddings().weight - original).abs().max() <= step
    assert handle.tokenizer("é").input_ids == [2 + BYTES.index("Ã"), 2 + BYTES.index("©")]
    changed = folder.stat().st_mtime_ns
    assert torch.equal(source.load().model.lm_head.weight, handle.model.lm_head.weight)
    assert folder.stat().st_mtime_ns == changed


def test_a_damaged_gguf_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(b"GGUF" + bytes(40))
    with pytest.raises(ModelError, match=r"bad.gguf cannot be read as a GGUF model"):
        dequantized(path, tmp_path / "cache")
    assert not [entry for entry in (tmp_path / "cache" / "models").iterdir() if entry.is_dir()]
