"""A GGUF file in llama.cpp itself, where its bindings are installed: pip install xllamacpp."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from exported import GROUPS, subject_of
from quantbench.export.exporter import LAYOUTS
from quantbench.export.layouts.gguf import GGUF_FILE
from tiny import VOCABULARY

pytest.importorskip("xllamacpp", reason="xllamacpp, the bindings of llama.cpp, is not installed: pip install xllamacpp")

SCRIPT = """
import json, os, sys, urllib.request
import xllamacpp
given = xllamacpp.CommonParams()
given.model.path, given.n_ctx, given.n_parallel, given.cpuparams.n_threads = sys.argv[1], 256, 1, 1
server = xllamacpp.Server(given)
body = {"prompt": json.loads(sys.argv[2]), "n_predict": 4, "n_probs": int(sys.argv[3]), "cache_prompt": False}
header = {"Content-Type": "application/json"}
asked = urllib.request.Request(server.listening_address + "/completion", json.dumps(body).encode(), header)
first = json.load(urllib.request.urlopen(asked))["completion_probabilities"][0]
print(json.dumps([[one["id"], one["logprob"]] for one in first["top_logprobs"]]), flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("recipe", [["rtn", GROUPS], ["rtn", GROUPS, "quantizer.weight.bits=7"], ["mxfp4"]])
def test_llama_cpp_predicts_what_the_run_predicts(recipe: list[str], tmp_path: Path) -> None:
    subject = subject_of(*recipe)
    LAYOUTS["gguf"].check(subject)
    LAYOUTS["gguf"].write(subject, tmp_path)
    tokens = [10, 20, 30, 40, 50, 60, 70]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / GGUF_FILE), json.dumps(tokens), str(VOCABULARY)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = dict(json.loads(done.stdout.splitlines()[-1]))
    theirs = torch.tensor([found[index] for index in range(VOCABULARY)], dtype=torch.float64)
    with torch.no_grad():
        ours = subject.model(input_ids=torch.tensor([tokens])).logits[0, -1].double().log_softmax(0)
    divergence = float((theirs.exp() * (theirs - ours)).sum())
    assert 0 <= divergence < 1e-3, divergence
