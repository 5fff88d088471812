"""From what a person names to who thinks: a model's name, the folder of a checkpoint, or a backend."""

from __future__ import annotations

import os
from pathlib import Path

from keyeloop.model_backend.base import ModelBackend
from keyeloop.runtime.errors import ConfigError, InputError

EMBEDDED = ("keye-tiny",)
"""Models that come with the package."""
ModelLike = str | os.PathLike[str] | ModelBackend


def check_model(model: ModelLike) -> None:
    """Raise InputError, before anything heavy is imported, for a name that is unknown or a folder without weights."""
    if not isinstance(model, str | os.PathLike) or model in EMBEDDED:
        return
    folder = Path(model)
    if folder.is_file():
        raise InputError(f"model {folder} is a file: name the folder that holds its config.json and weights")
    if not folder.is_dir():
        raise InputError(f"no model {str(model)!r}: name {' or '.join(EMBEDDED)}, or the folder of a checkpoint")
    if not (folder / "config.json").is_file():
        raise InputError(f"model folder {folder} has no config.json: name the folder of a downloaded checkpoint")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"model folder {folder} has no weights (*.safetensors): download them into it")


def load_model(model: ModelLike) -> ModelBackend:
    """The backend behind ``model``; a name or a folder is loaded here, which imports torch and takes a while.

    Raises InputError as :func:`check_model` does, ConfigError where torch is not installed, CheckpointError for
    weights that do not fit.
    """
    check_model(model)
    if not isinstance(model, str | os.PathLike):
        return model
    try:
        from keyeloop.model_backend.local.engine import LocalBackend
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("keyeloop"):
            raise
        raise ConfigError(
            f"running {os.fspath(model)} here needs {error.name}: install it with pip install 'keyeloop[local]'"
        ) from None
    backend: ModelBackend = LocalBackend.load(os.fspath(model))
    return backend


def model_name(model: ModelLike) -> str:
    """What to call a model before it is loaded."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else model.capabilities().model
