"""One pinned file from the package index, by the pip of the running interpreter.

pip knows the user's index, mirrors, credentials and certificates, so it fetches. Its sentences are not read: the size
is asked for as a number, the releases of an index as JSON, and a file other than the pinned one shows by its sha256.
"""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from quantbench.core.errors import DataError
from quantbench.core.files import readable_bytes
from quantbench.core.hashing import file_sha256

log = logging.getLogger("quantbench")

USAGE_ERROR = 2
"""pip's exit status where it does not take an option."""

_PROGRESS = re.compile(r"Progress \d+ of (\d+)")
_SHA256 = re.compile(r"\b[0-9a-f]{64}\b")
_PIP = [sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check"]


def download_wheel(
    name: str, version: str, sha256: str, platform: str | None, python_version: str | None, folder: Path
) -> Path:
    """Download the wheel with this sha256 into an empty folder and return its path.

    With `platform` and `python_version` it is the same wheel whatever interpreter and system ask for it. Nothing of it
    is run or installed. Raises DataError if the index is unreachable, the version unknown, or the hash another one.
    """
    options = ["--only-binary=:all:"]
    options += ["--platform", platform] if platform else []
    options += ["--python-version", python_version] if python_version else []
    return _download(name, version, sha256, options, folder)


def download_source(name: str, version: str, sha256: str, folder: Path) -> Path:
    """Download the source archive with this sha256 into an empty folder and return its path.

    pip compares the sha256 before it runs anything of the package (it prepares metadata, with build tools of the same
    index). Raises DataError as `download_wheel` does.
    """
    return _download(name, version, sha256, ["--no-binary=:all:"], folder)


def _download(name: str, version: str, sha256: str, options: Sequence[str], folder: Path) -> Path:
    log.info("fetching %s %s from the package index...", name, version)
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n", encoding="utf-8")
        command = [*_PIP, "download", "--no-deps", "--require-hashes", *options, "--progress-bar=raw", "--retries=2"]
        code, output = _run([*command, "-r", str(requirements), "-d", str(folder)], f"{name} {version}")
    if code == USAGE_ERROR:
        said = next((line for line in output if "error:" in line or "no such option" in line), "")
        raise DataError(
            f"cannot fetch {name}=={version}: this pip refuses the command that quantbench gives it, which needs pip "
            f"24.1 or newer: {sys.executable} -m pip install --upgrade pip. pip says: {said or output[-1:]}"
        )
    found = sorted(path for path in folder.iterdir() if path.is_file())
    if code != 0 or len(found) != 1:
        raise DataError(
            f"cannot fetch {name}=={version}: {_problem(name, version, sha256, options, output)}. "
            f"pip's last line: {output[-1] if output else '(none)'}"
        )
    actual = file_sha256(found[0])
    if actual != sha256:
        raise DataError(f"{name} {version}: pip delivered a file of sha256 {actual}, but {sha256} is pinned")
    return found[0]


def _run(command: Sequence[str], label: str) -> tuple[int, list[str]]:
    """Run pip, reporting the size of what it has begun to download; its exit status and the lines it wrote."""
    output: list[str] = []
    size: str | None = None
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None
        for line in map(str.strip, process.stdout):
            if not (progress := _PROGRESS.fullmatch(line)):
                output.append(line)
            elif progress[1] != size:
                size = progress[1]
                log.info("downloading %s (%s)...", label, readable_bytes(int(size)))
    return process.returncode, [line for line in output if line]


def _problem(name: str, version: str, sha256: str, options: Sequence[str], output: Sequence[str]) -> str:
    """Whether it was the hash, the version, the name, or the network."""
    if others := set(_SHA256.findall("\n".join(output))) - {sha256}:
        return f"the index holds a file other than the pinned one (sha256 {others.pop()}, not {sha256}): refused"
    releases = _releases(name, options)
    if releases is None:
        return "this pip cannot say what the index has (`pip index versions --json` needs a newer one)"
    if releases:
        if version in releases:
            return "the index has this release, but pip failed"
        return f"there is no such release for this platform; the newest are {', '.join(releases[:5])}"
    if _releases("pip", []):  # which every mirror has
        return "the index answers, but knows no such package (or has no file of it for the platform): check the name"
    return (
        "the package index cannot be reached (network): try again with network, or name a mirror in PIP_INDEX_URL. "
        "On a machine with network `quantbench prepare` fills the folder QUANTBENCH_CACHE, which can be carried"
    )


def _releases(name: str, options: Sequence[str]) -> list[str] | None:
    """Versions of a package for which the index has a file, newest first; none if it does not answer, too.

    None if this pip cannot ask.
    """
    command = [*_PIP, "index", "versions", name, "--json", "--pre", *options, "--retries=0"]
    answer = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", check=False)
    if answer.returncode == USAGE_ERROR:
        return None
    versions: list[str] = json.loads(answer.stdout)["versions"] if answer.returncode == 0 else []
    return versions
