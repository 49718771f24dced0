"""The pages of the documentation: their blocks of code, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ENVIRONMENT = re.compile(r"[A-Z_]+=\S*")


class Block(NamedTuple):
    """A block of code: the page, its language ("" for plain text), and the file it is the content of, if it says so."""

    page: Path
    language: str
    file: str
    text: str

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.page.stem}:{self.file or self.text.splitlines()[0][:40]}"


class Command(NamedTuple):
    """A line of a shell block, without its comment."""

    page: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """For test ids."""
        return f"{self.page}:{shlex.join(self.words)}"

    @property
    def of_quantbench(self) -> int:
        """How many of its first words start quantbench; 0 for another program's command."""
        if self.words[0] == "quantbench":
            return 1
        return 3 if Path(self.words[0]).name == "python" and self.words[1:3] == ("-m", "quantbench") else 0


def blocks(*languages: str) -> list[Block]:
    """All blocks of some languages; of all if none is named."""
    found = []
    for page in PAGES:
        for header, text in _BLOCK.findall(page.read_text(encoding="utf-8")):
            language, _, file = header.partition(" file=")
            if not languages or language in languages:
                found.append(Block(page, language, file, text))
    return found


def commands() -> list[Command]:
    """The lines of all shell blocks, each once; lines that go on behind a backslash are one."""
    return list({command.words: command for command in _commands()}.values())


def write_files(folder: Path) -> None:
    """Write every block that is the content of a file."""
    for block in blocks():
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")


def _commands() -> Iterator[Command]:
    for block in blocks("sh", "bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and _ENVIRONMENT.fullmatch(words[0]):
                words = words[1:]
            if words:
                yield Command(block.page.stem, tuple(words))
