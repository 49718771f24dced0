"""Every text file is read and written as UTF-8, whatever the locale of the machine says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
OURS = {"files", "shared"}
"""Modules of ours whose functions of that name say UTF-8 themselves."""
MODES = {"r", "w", "a", "x", "r+", "w+"}


def left_to_the_locale(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that open text without saying how it is encoded."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        said = {keyword.arg: keyword.value for keyword in node.keywords}
        if "encoding" in said:
            continue
        if isinstance(text := said.get("text"), ast.Constant) and text.value is True:
            yield node.lineno
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        method = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") not in OURS
        given = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
        if (
            (method and name == "read_text" and not given)
            or (method and name == "write_text")
            or (name == "open" and method and set(given) & MODES)
            or (name == "open" and not method and (len(node.args) < 2 or set(given) & MODES))
            or (name.endswith(("FileHandler", "_LogFile")))
        ):
            yield node.lineno


@pytest.mark.parametrize(
    ("code", "n"),
    [
        ("path.read_text()\npath.write_text(text)\npath.open('w')\nopen(path)\nrun(a, text=True)", 5),
        ("path.read_text('utf-8')\nfiles.write_text(a, b)\npath.open('rb')\narchive.open(name)\nopen(a, 'rb')", 0),
        ("path.read_text(encoding='utf-8')\nwrite_text(path, text)\nlogging.FileHandler(path, encoding='utf-8')", 0),
    ],
)
def test_calls_are_told_apart(code: str, n: int) -> None:
    assert len(list(left_to_the_locale(ast.parse(code)))) == n


def test_no_file_is_opened_in_the_encoding_of_the_locale() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in left_to_the_locale(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found
