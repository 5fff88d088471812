"""A checkpoint from the Hugging Face hub: looked up, weighed, downloaded with progress, and gone on with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import ConfigError, InputError, OperatorError

NEEDED = (".json", ".safetensors", ".jinja", ".txt")
"""Endings of the files that serving reads. Code of a repository is neither fetched nor run."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class HubFile:
    """One file of a repository; its size in bytes."""

    name: str
    size_bytes: int


@dataclass(frozen=True)
class HubModel:
    """A repository at one commit: what of it serving needs, and what of that is not here yet."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]
    missing: tuple[HubFile, ...]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def missing_bytes(self) -> int:
        return sum(file.size_bytes for file in self.missing)


def is_hub_name(name: str) -> bool:
    """Whether ``name`` has the form ``owner/model``."""
    return _NAME.fullmatch(name) is not None


def look_up(repository: str, revision: str | None = None, *, endpoint: str | None = None) -> HubModel:
    """Ask the hub what a repository holds; downloads nothing.

    Raises InputError for one that is not there, is closed to this user or has no safetensors, OperatorError where the
    hub does not answer.
    """
    hub = _library()
    with _told(repository):
        found: Any = hub.HfApi(endpoint=endpoint).model_info(repository, revision=revision, files_metadata=True)
    files = tuple(
        HubFile(file.rfilename, file.size or 0)
        for file in found.siblings or ()
        if "/" not in file.rfilename and file.rfilename.endswith(NEEDED)
    )
    if not any(file.name.endswith(".safetensors") for file in files):
        raise InputError(f"{repository} has no *.safetensors: name the repository of the original weights "
                         "(GGUF files are for llama-server, see docs/using.md, Models)")  # fmt: skip
    missing = tuple(file for file in files if not _cached(hub, repository, file.name, found.sha))
    return HubModel(repository, found.sha, files, missing)


def fetch_config(model: HubModel, *, endpoint: str | None = None) -> Path:
    """Download ``config.json`` alone; the path of the file. Raises as :func:`look_up` does."""
    hub = _library()
    if all(file.name != "config.json" for file in model.files):
        raise InputError(f"{model.repository} has no config.json: it is no checkpoint")
    with _told(model.repository):
        return Path(hub.hf_hub_download(model.repository, "config.json", revision=model.commit, endpoint=endpoint))


def download(model: HubModel, *, endpoint: str | None = None) -> Path:
    """Download what is missing, with progress bars on stderr; the folder.

    One file after another, in this thread, so that Ctrl-C ends it at once. A broken connection is taken up where it
    broke; run again after an end, whole files are kept. Raises OperatorError that says to run it again.
    """
    hub = _library()
    folder: Path | None = None
    for file in model.files:
        with _told(model.repository):
            folder = Path(
                hub.hf_hub_download(model.repository, file.name, revision=model.commit, endpoint=endpoint)
            ).parent
    assert folder is not None
    return folder


def cached_folder(repository: str, revision: str | None = None) -> Path | None:
    """The folder of the latest download, complete or not, without asking the hub; None where there is none."""
    hub = _library()
    if not cache_folder().is_dir():
        return None
    kept = hub.scan_cache_dir(cache_folder()).repos
    found = [
        (one.last_modified, Path(one.snapshot_path))
        for repo in kept
        if repo.repo_id == repository and repo.repo_type == "model"
        for one in repo.revisions
        if revision is None or revision in one.refs or one.commit_hash.startswith(revision)
    ]
    return max(found)[1] if found else None


def cache_folder() -> Path:
    """Where downloads go: ``HF_HUB_CACHE``, ``HF_HOME`` or ``~/.cache/huggingface`` decide."""
    return Path(_library().constants.HF_HUB_CACHE)


def _cached(hub: Any, repository: str, name: str, commit: str) -> bool:
    return isinstance(hub.try_to_load_from_cache(repository, name, revision=commit), str)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Errors of the hub as ours; its own name for a repository that one must not see is "not found" too."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError:
        raise InputError(f"{repository} is gated: accept its terms on its page and set HF_TOKEN") from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{repository} has no such revision: leave --revision out, or name a branch") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise InputError(f"no model {repository!r} on the hub (or none that you may see: set HF_TOKEN)") from None
    except Exception as error:  # its HTTP library's, the file system's and its own have no base in common
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise OperatorError(f"{repository} could not be fetched from the hub: {lines[0]}; run the same command again, "
                            "what is here already is kept, or name a folder")  from None  # fmt: skip


def _library() -> Any:
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise ConfigError("a model of the hub needs huggingface_hub: pip install huggingface_hub, or name the folder "
                          "of a downloaded checkpoint") from None  # fmt: skip
    return huggingface_hub
