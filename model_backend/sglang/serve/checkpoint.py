"""What is to be served: the embedded model, a folder, or a model of the hub, known before it is downloaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.describe import ModelDescription, describe, describe_config
from keyeloop.model_backend.keye.presets import KEYE_30B, KEYE_TINY
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.sglang.serve import hub
from keyeloop.runtime.errors import ConfigError, InputError, OperatorError

HUB_30B = "Kwai-Keye/Keye-VL-2.0-30B-A3B"
SPARE_BYTES = 1 << 30
"""Left free on the disk after a download."""
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"))
_KEYS = ("sa_config", "vision_config", "image_token_id", "video_token_id", "vision_start_token_id")


@dataclass(frozen=True)
class Checkpoint:
    """A model to serve."""

    name: str
    """To be served under; it contains ``keye``, by which clients know how pictures are counted."""
    folder: Path | None
    """None as long as it has to be downloaded."""
    description: ModelDescription
    on_hub: hub.HubModel | None = None
    remark: str = ""

    @property
    def config(self) -> KeyeConfig:
        return self.description.config


def find_checkpoint(model: str, revision: str | None = None, *, endpoint: str | None = None) -> Checkpoint:
    """Read what ``model`` names, ``keye-tiny``, a folder or ``owner/name`` on the hub, without its weights' values.

    Of the hub's model only ``config.json`` is fetched. Raises InputError for a name that is nothing or a folder that
    lacks files, ConfigError for another architecture's configuration (both name all that is missing), CheckpointError
    for weights that do not fit, OperatorError where the hub does not answer and nothing is in its cache.
    """
    if model == KEYE_TINY:
        folder = model_folder(KEYE_TINY)
        return Checkpoint(KEYE_TINY, folder, describe(KEYE_TINY))
    path = Path(model).expanduser()
    if path.is_dir():
        return _in_folder(path.resolve(), path.resolve().name)
    repository = HUB_30B if model == KEYE_30B else model
    if not hub.is_hub_name(repository) or model.startswith((".", "/", "~")):
        raise InputError(f"no model {model!r}: name {KEYE_TINY}, the folder of a checkpoint, or one of the hub, "
                         f"such as {HUB_30B}")  # fmt: skip
    return _of_hub(repository, revision, endpoint)


def fetched(checkpoint: Checkpoint, *, endpoint: str | None = None) -> Checkpoint:
    """The same checkpoint in a folder; downloads what is missing, after a look at the disk."""
    if checkpoint.on_hub is None:
        return checkpoint
    check_disk(checkpoint)
    folder = hub.download(checkpoint.on_hub, endpoint=endpoint)
    return _in_folder(folder, checkpoint.name)


def check_disk(checkpoint: Checkpoint) -> None:
    """Raise OperatorError where a download would not fit on the disk."""
    if checkpoint.on_hub is None:
        return
    folder = hub.cache_folder()
    while not folder.exists():
        folder = folder.parent
    free, missing = shutil.disk_usage(folder).free, checkpoint.on_hub.missing_bytes
    if missing + SPARE_BYTES > free:
        raise OperatorError(f"{checkpoint.on_hub.repository}: {missing / 1e9:.1f} GB are to be downloaded and {folder} "
                            f"has {free / 1e9:.1f} GB free: make room, or set HF_HOME to a larger disk")  # fmt: skip


def _in_folder(folder: Path, name: str) -> Checkpoint:
    _check_files(folder)
    description = describe(folder)
    name = re.sub(r"[^\w.-]+", "-", name)
    return Checkpoint(name if "keye" in name.lower() else f"keye-{name}", folder, description)


def _of_hub(repository: str, revision: str | None, endpoint: str | None) -> Checkpoint:
    name = repository.rpartition("/")[2]
    try:
        found = hub.look_up(repository, revision, endpoint=endpoint)
    except OperatorError as error:
        folder = hub.cached_folder(repository, revision)
        if folder is None:
            raise
        here = _in_folder(folder, name)
        return Checkpoint(here.name, folder, here.description, remark=f"the copy in {folder} is used: {error}")
    config_file = hub.fetch_config(found, endpoint=endpoint)
    check_config(config_file)
    config = KeyeConfig.from_folder(config_file.parent)
    if not found.missing:
        return _in_folder(config_file.parent, name)
    return Checkpoint(name if "keye" in name.lower() else f"keye-{name}", None, describe_config(name, config), found)


def _check_files(folder: Path) -> None:
    """Raise InputError that names every kind of file that is missing; a foreign config.json is told by its own error.

    Shards that an index names and that are not there are told later, with their names.
    """
    missing = [] if (folder / "config.json").is_file() else ["config.json"]
    if not any(all((folder / name).is_file() for name in names) for names in _TOKENIZERS):
        missing.append("tokenizer.json")
    if not any(folder.glob("*.safetensors")):
        missing.append("weights (*.safetensors)")
    if "config.json" not in missing:
        check_config(folder / "config.json")
    if missing:
        raise InputError(f"{folder} is no Keye checkpoint: no {', no '.join(missing)}; download it again, or name one "
                         f"of the hub, such as {HUB_30B}")  # fmt: skip


def check_config(path: Path) -> None:
    """Raise ConfigError for what is no configuration of Keye-VL-2.0: its architecture, and all that is missing."""
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); download the file again") from None
    if not isinstance(told, Mapping):
        return  # the strict reader says so
    text = told.get("text_config")
    known = {**told, **(text if isinstance(text, Mapping) else {})}
    missing = [key for key in _KEYS if known.get(key) is None]
    if missing:
        kind = ", ".join(map(str, told.get("architectures") or ["an unnamed architecture"]))
        raise ConfigError(
            f"{path.parent} is no Keye-VL-2.0 checkpoint: config.json, of {kind}, has no {', no '.join(missing)}; "
            "SGLang itself may serve it, keyeloop's plugin does not"
        )
