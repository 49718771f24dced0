"""Models that bring their own code: it is not run unless the user says so, and the message tells how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quantbench.core.errors import ModelError
from quantbench.models import pretrained

MODELS = {"baichuan": "Baichuan", "chatglm": "ChatGLM"}


@pytest.mark.parametrize("kind", MODELS)
def test_code_of_a_model_is_not_run_and_the_message_names_the_key(kind: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    name = MODELS[kind]
    config = {
        "model_type": kind,
        "architectures": [f"{name}ForCausalLM"],
        "auto_map": {"AutoConfig": f"code.{name}Config", "AutoModelForCausalLM": f"code.{name}ForCausalLM"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    tokenizer = {"tokenizer_class": f"{name}Tokenizer", "auto_map": {"AutoTokenizer": [f"code.{name}Tokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (tmp_path / "code.py").write_text(f"from pathlib import Path\nPath({str(ran)!r}).touch()\n")
    for load in (
        lambda: pretrained.read_config(tmp_path, kind),
        lambda: pretrained.load_model(tmp_path, "float32", kind)[0],
        lambda: pretrained.load_tokenizer(tmp_path, kind),
    ):
        with pytest.raises(ModelError, match=rf"model {kind} .* model\.trust_remote_code=true"):
            load()
    assert not ran.exists()
