"""Short names of paths: for tasks, labels and sweep names."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.config.settings import Settings
from quantbench.core.paths import brief, local_path, short_names


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/data/reviews.txt", "tickets.jsonl"], ["reviews", "tickets"]),
        (["a/text.txt", "b/text.txt"], ["a_text.txt", "b_text.txt"]),
        (["text.txt", "text.jsonl"], ["text.txt", "text.jsonl"]),
        (["my notes (new).txt"], ["my-notes-new"]),
        (["/models/Qwen-0.5B", "/models/Qwen-0.6B"], ["Qwen-0.5B", "Qwen-0.6B"]),
        (["ä.txt", "ö.txt"], ["text_1", "text_2"]),
    ],
)
def test_paths_are_named_by_as_little_as_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert list(short_names(paths).values()) == names


@pytest.mark.parametrize(
    ("override", "short"),
    [
        ("calib.source.path=/a/b/reviews.txt", "calib.source.path=reviews"),
        ("calib.source.path=one.txt,'two three.txt'", "calib.source.path=one,two three"),
        ("quantizer.path=/a/q4/model.gguf,q8/model.gguf,model.gguf", "quantizer.path=q4_model,q8_model,model"),
        ("model.path=/a/model", "model.path=model"),
        ("model.id=Qwen/Qwen2.5-0.5B", "model.id=Qwen2.5-0.5B"),
        ("quantizer.weight.bits=4,3", "quantizer.weight.bits=4,3"),
        ("quantizer.rounding.damping=0.1", "quantizer.rounding.damping=0.1"),
        ("+eval.tasks.x.source.test_path=null", "+eval.tasks.x.source.test_path=null"),
    ],
)
def test_only_paths_are_shortened(override: str, short: str) -> None:
    assert brief(override) == short


def test_the_output_folder_may_lie_in_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    options = {"seed": 0, "replicate": 0, "device": "cpu", "threads": 1, "save": "none", "dry_run": False}
    options |= {"checkpoint_blocks": 0, "detach": False, "retry_failed": True, "report": True}
    made = Settings(**options, output_dir="~/results")  # type: ignore[arg-type]
    assert made.output_dir == Path("/home/someone/results") == local_path("~/results")
