"""From a model's name to the folder that holds it."""

from __future__ import annotations

from pathlib import Path

from keyeloop.runtime.errors import InputError

EMBEDDED_MODEL = "keye-tiny"
"""The model that comes with the package."""


def model_folder(name_or_path: str | Path) -> Path:
    """The folder of a model by its name or path, checked for config, tokenizer and weights.

    Raises InputError that says what is missing and what to do.
    """
    if name_or_path == EMBEDDED_MODEL:
        folder = Path(__file__).resolve().parent.parent / "keye_tiny"
        cure = "install keyeloop again, with its data files, or name another model"
    else:
        folder = Path(name_or_path)
        cure = f"give the folder of a downloaded checkpoint, or the name {EMBEDDED_MODEL}"
    if not folder.is_dir():
        raise InputError(f"no model folder {str(folder)!r}; {cure}")
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"model folder {folder} has no {name}; {cure}")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"model folder {folder} has no weights (*.safetensors); {cure}")
    return folder
