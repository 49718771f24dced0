"""An export on the hub: what would be uploaded, and the upload."""

from __future__ import annotations

import re
from pathlib import Path

from quantbench.core.errors import ConfigError, QuantbenchError
from quantbench.core.files import readable_bytes

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")


def check_repository(name: str) -> None:
    """Raise ConfigError unless a name can be that of a repository."""
    if not REPOSITORY.fullmatch(name) or "--" in name or ".." in name:
        raise ConfigError(f"--push {name}: give OWNER/NAME, of letters, digits and - _ .")


def push(folder: Path, repository: str, *, public: bool, dry_run: bool) -> str:
    """Upload a folder; what was done, or would be, in lines. A dry run needs no network.

    The token is that of `hf auth login` or HF_TOKEN. Raises QuantbenchError if the hub refuses or cannot be reached.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"  {path.relative_to(folder)}  {readable_bytes(path.stat().st_size)}" for path in files]
    kind = "public" if public else "private"
    if dry_run:
        return "\n".join([f"Would upload to {repository} ({kind} if it is new):", *lines]) + "\n"
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        url = api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise QuantbenchError(
            f"--push {repository}: the hub did not take it: {reason}. The export stands in {folder}; upload it with "
            f"`hf upload {repository} {folder}` when you are logged in (`hf auth login`)"
        ) from error
    return f"Uploaded to {url}\n"
