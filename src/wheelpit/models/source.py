"""Find a model's folder: the built-in one, a local one, or one downloaded from the hub.

Called by the front end before anything else looks at the model. No torch; huggingface_hub is
imported only when something has to be downloaded.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from wheelpit.errors import ModelLoadError

log = logging.getLogger(__name__)

BUILTIN = "builtin"
BUILTIN_FOLDER = Path(__file__).resolve().parent.parent / "builtin"

WANTED_FILES = ["*.json", "*.safetensors", "*.jinja"]
"""Config, tokenizer, weights and chat templates; other formats of the weights stay there."""

UNWANTED_FILES = ["original/*", "onnx/*", "openvino/*", "coreml/*", "consolidated*", "*.bin.*"]

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def resolve_model(
    name: str,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    token: str | bool | None = None,
    endpoint: str | None = None,
    progress: type[Any] | None = None,
) -> Path:
    """Return the local folder of a model, downloading it if it is a hub id.

    name: "builtin" (write ./builtin for a folder of that name), a folder, or a hub id such as
    "Qwen/Qwen3-0.6B". revision, download_dir, token: of the download; the hub's own cache and
    login are used by default. endpoint: another hub. progress: a tqdm class instead of the hub's.
    Raises ModelLoadError that says what to do.
    """
    if name == BUILTIN:
        return _builtin_folder()
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if path.is_file():
        raise ModelLoadError(
            f"{name} is a file, not a model: give the folder that holds it together with "
            "config.json and tokenizer.json"
        )
    if _looks_like_a_path(name):
        raise ModelLoadError(
            f"{name!r} does not exist: give an existing folder, a hub id such as "
            f"Qwen/Qwen3-0.6B, or {BUILTIN}"
        )
    return _download(name, revision, download_dir, token, endpoint, progress)


def _builtin_folder() -> Path:
    if not (BUILTIN_FOLDER / "config.json").is_file():
        raise ModelLoadError(
            f"this installation lacks the built-in model ({BUILTIN_FOLDER}): install Wheelpit "
            "again, or name another model"
        )
    return BUILTIN_FOLDER


def _looks_like_a_path(name: str) -> bool:
    return (
        not _HUB_ID.fullmatch(name)
        or name.startswith(".")
        or name.endswith((os.sep, ".safetensors", ".gguf"))
    )


def _download(
    name: str,
    revision: str | None,
    download_dir: str | None,
    token: str | bool | None,
    endpoint: str | None,
    progress: type[Any] | None,
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    log.info("looking for %s on the hub", name)
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=download_dir,
            token=token,
            endpoint=endpoint,
            tqdm_class=progress,
            allow_patterns=WANTED_FILES,
            ignore_patterns=UNWANTED_FILES,
        )
    except HFValidationError as error:
        raise ModelLoadError(f"{name} is neither a folder nor a valid hub id: {error}") from error
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        raise ModelLoadError(_explain(name, revision, download_dir, error)) from error
    if not (Path(folder) / "config.json").is_file():
        raise ModelLoadError(
            f"{name} has no config.json on the hub: it is not a model in Hugging Face's format"
        )
    return Path(folder)


def _explain(name: str, revision: str | None, download_dir: str | None, error: Exception) -> str:
    """Say what went wrong with a download, and what its reader can do."""
    from huggingface_hub import errors

    at = f" at revision {revision}" if revision else ""
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is gated: accept its conditions on its page, then log in with "
            "`hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{name} has no revision {revision!r} on the hub"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{name} is neither a folder here nor a model on the hub (or it is private: log in "
            "with `hf auth login` or set HF_TOKEN): check the name"
        )
    if isinstance(error, OSError) and not isinstance(error, (ConnectionError, TimeoutError)):
        reason = getattr(error, "strerror", None)
        if reason is not None:
            return f"cannot store {name} in {download_dir or 'the hub cache'}: {reason}"
    return (
        f"cannot download {name}{at}, and it is not in the hub cache: {_one_line(error)}. "
        f"Check the network, give a folder, or use {BUILTIN}, which needs no download"
    )


def _one_line(error: BaseException) -> str:
    """Give the message of the innermost cause in one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
