"""A few data set repositories on a local port, answering as the Hugging Face hub does, and how they are reached."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

NOWHERE = "http://127.0.0.1:9"
"""An address where nothing answers."""


def use_hub(monkeypatch: pytest.MonkeyPatch, home: Path, url: str = NOWHERE, *, offline: bool = False) -> None:
    """Have the libraries of the hub reach it at an address, with a cache of its own; else they know one when imported.

    home  as HF_HOME; offline: as HF_HUB_OFFLINE
    """
    import datasets
    from huggingface_hub import HfFileSystem, constants

    cache = home / "datasets"
    changes: dict[Any, dict[str, Any]] = {
        constants: {
            "ENDPOINT": url,
            "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
            "HF_HOME": str(home),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_HUB_OFFLINE": offline,
        },
        datasets.config: {
            "HF_ENDPOINT": url,
            "HUB_DATASETS_URL": url + "/datasets/{repo_id}/resolve/{revision}/{path}",
            "HF_DATASETS_CACHE": cache,
            "DOWNLOADED_DATASETS_PATH": cache / "downloads",
            "EXTRACTED_DATASETS_PATH": cache / "downloads" / "extracted",
            "HF_HUB_OFFLINE": offline,
        },
    }
    for module, values in changes.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    HfFileSystem.clear_instance_cache()


@dataclass(frozen=True)
class Branch:
    """A commit and its files. `refuse`: the hub's error code for every file, such as "GatedRepo"."""

    sha: str
    files: Mapping[str, bytes]
    refuse: str | None = None


@dataclass(frozen=True)
class FakeHub:
    """Serves {repository: {branch: Branch}} until it is closed; `requests` lists what was asked for."""

    repositories: Mapping[str, Mapping[str, Branch]]
    status: int | None = None
    requests: list[str] = field(default_factory=list)

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                hub.requests.append(path)
                code, body, headers = hub._answer(path)
                self.send_response(code)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        object.__setattr__(self, "_server", server)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    _server: ThreadingHTTPServer = field(init=False, repr=False)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if self.status is not None:
            return self.status, b"", {}
        for name, branches in self.repositories.items():
            for prefix in (f"/api/datasets/{name}", f"/datasets/{name}/resolve"):
                if path == prefix or path.startswith(f"{prefix}/"):
                    return self._in_repository(branches, path[len(prefix) + 1 :], prefix.startswith("/api"))
        return 404, b"", {"X-Error-Code": "RepoNotFound"}

    def _in_repository(self, branches: Mapping[str, Branch], rest: str, api: bool) -> tuple[int, bytes, dict[str, str]]:
        action, _, rest = rest.partition("/") if api else ("resolve", "", rest)
        names = {**{branch.sha: branch for branch in branches.values()}, **branches}
        revision = next((name for name in names if rest == name or rest.startswith(f"{name}/")), None)
        branch = names["main"] if action == "" else names.get(revision or "")
        if branch is None:
            return 404, b"", {"X-Error-Code": "RevisionNotFound"}
        file = rest[len(revision or "") + 1 :]
        if action in {"", "revision"}:
            return _json({"id": "x/y", "sha": branch.sha, "siblings": [{"rfilename": f} for f in branch.files]})
        if action == "tree":
            return _json(_tree(branch, file)) if _tree(branch, file) else (404, b"", {"X-Error-Code": "EntryNotFound"})
        commit = {"X-Repo-Commit": branch.sha}
        if branch.refuse:
            return 403, b"", {"X-Error-Code": branch.refuse}
        if file not in branch.files:
            return 404, b"", {"X-Error-Code": "EntryNotFound", **commit}
        data = branch.files[file]
        return 200, data, {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', **commit}


def _json(value: Any) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps(value).encode(), {"Content-Type": "application/json"}


def _tree(branch: Branch, folder: str) -> list[dict[str, Any]]:
    """The files and folders directly in a folder."""
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, data in branch.files.items():
        if name.startswith(prefix):
            head, deeper, _ = name[len(prefix) :].partition("/")
            oid = hashlib.sha1(data).hexdigest()
            kind = {"type": "directory"} if deeper else {"type": "file", "size": len(data)}
            entries[head] = {"path": prefix + head, "oid": oid, **kind}
    return list(entries.values())
