"""One pinned file from the package index, by the pip of the running interpreter."""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from quantbench.core.errors import DataError
from quantbench.core.hashing import file_sha256

log = logging.getLogger("quantbench")

_NETWORK = re.compile(
    r"ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError|MaxRetryError|Temporary failure"
    r"|Could not fetch URL|connection broken|timed out"
)
_VERSIONS = re.compile(r"\(from versions: ([^)]*)\)")
_SIZE = re.compile(r"Downloading \S+ \(([^)]+)\)")


def download_wheel(
    name: str, version: str, sha256: str, platform: str | None, python_version: str | None, folder: Path
) -> Path:
    """Download the wheel with this sha256 into an empty folder and return its path.

    With `platform` and `python_version` it is the same wheel whatever interpreter and system ask for it. Nothing of it
    is run or installed. Raises DataError if pip is missing, the index unreachable, the version unknown, or the hash
    another one.
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


def _download(name: str, version: str, sha256: str, options: list[str], folder: Path) -> Path:
    if importlib.util.find_spec("pip") is None:
        raise DataError(
            f"{name} {version} comes from the package index by pip, which this Python environment "
            f"({sys.prefix}) has not: install it with `uv pip install pip` or `python -m ensurepip`"
        )
    log.info("fetching %s %s from the package index...", name, version)
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch) / "requirements.txt"
        requirements.write_text(f"{name}=={version} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *options]
        command += ["--progress-bar=off", "--no-input", "--disable-pip-version-check", "--retries=2"]
        command += ["-r", str(requirements), "-d", str(folder)]
        code, output = _run(command, f"{name} {version}")
    found = sorted(path for path in folder.iterdir() if path.is_file())
    if code != 0 or len(found) != 1:
        raise DataError(_explain(name, version, sha256, output))
    actual = file_sha256(found[0])
    if actual != sha256:
        raise DataError(f"{name} {version}: pip delivered a file of sha256 {actual}, but {sha256} is pinned")
    return found[0]


def _run(command: list[str], label: str) -> tuple[int, list[str]]:
    """Run pip, reporting the size it is about to download; its exit status and the lines it wrote."""
    # Unbuffered, so that the size is read before the download and not after it.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    output: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line.strip())
            if size := _SIZE.search(line):
                log.info("downloading %s (%s)...", label, size.group(1))
    return process.returncode, [line for line in output if line]


def _explain(name: str, version: str, sha256: str, output: list[str]) -> str:
    """Whether it was the hash, the name, or the network; always with pip's last line."""
    text = "\n".join(output)
    versions = _VERSIONS.search(text)
    if "DO NOT MATCH THE HASHES" in text:
        problem = f"the index holds a file other than the pinned one (sha256 {sha256}): refused"
    elif versions and versions.group(1) != "none":
        newest = ", ".join(versions.group(1).split(", ")[-5:])
        problem = f"there is no such release for this platform; the newest are {newest}"
    elif _NETWORK.search(text):
        problem = (
            "the package index cannot be reached (network): try again with network, or name a mirror in PIP_INDEX_URL. "
            "On a machine with network `quantbench prepare` fills the folder QUANTBENCH_CACHE, which can be carried"
        )
    elif versions:
        problem = "the index answers, but knows no such package (or has no file of it for the platform): check the name"
    else:
        problem = "pip failed"
    return f"cannot fetch {name}=={version}: {problem}. pip's last line: {output[-1] if output else '(none)'}"
