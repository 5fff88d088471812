"""Loading a checkpoint folder: config.json, and safetensors files with the published names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.indexer import IndexerMode
from keyeloop.model_backend.keye.layout import INT8, SCALE, Assignment, Stored, assign
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.runtime.errors import CheckpointError, InputError

INDEX_FILE = "model.safetensors.index.json"


class CheckpointFiles:
    """Headers of all safetensors files of a folder; tensors are read one at a time, on demand."""

    def __init__(self, folder: Path) -> None:
        """Read the headers. Raises InputError without weights, CheckpointError for files that cannot be read."""
        self.folder = folder
        self.stored: dict[str, Stored] = {}
        self._file: dict[str, Path] = {}
        for path in weight_files(folder):
            self._read_header(path)

    def read(self, name: str, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """One tensor in ``dtype`` on ``device``; int8 is multiplied by its scale."""
        if self.stored[name].dtype == INT8:
            values, scale = self._raw(name).to(device), self._raw(name + SCALE).to(device)
            return (values.float() * scale.float()).to(dtype)
        return self._raw(name).to(device=device, dtype=dtype, copy=True)  # a mapped file's memory is not aligned

    def _raw(self, name: str) -> Tensor:
        with safe_open(str(self._file[name]), framework="pt") as file:
            return file.get_tensor(name)  # type: ignore[no-any-return]

    def _read_header(self, path: Path) -> None:
        try:
            with safe_open(str(path), framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    if name in self._file:
                        raise CheckpointError(f"{name} is in both {self._file[name]} and {path}; remove one file")
                    part = file.get_slice(name)
                    self.stored[name] = Stored(tuple(part.get_shape()), part.get_dtype())
                    self._file[name] = path
        except (SafetensorError, OSError) as problem:
            cure = (
                "it is a Git LFS pointer: run `git lfs pull`" if _is_pointer(path) else f"{problem}; download it again"
            )
            raise CheckpointError(f"{path}: cannot be read as safetensors: {cure}") from None


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those its index names, or all. Raises InputError when there are none."""
    index = folder / INDEX_FILE
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{index}: no usable weight_map; download the file again") from None
        absent = [name for name in names if not (folder / name).is_file()]
        if absent:
            raise CheckpointError(f"{folder}: {len(absent)} of {len(names)} weight files missing: "
                                  f"{', '.join(absent[:4])}; download them again")  # fmt: skip
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError(f"{folder}: no *.safetensors weights; a model folder holds config.json, tokenizer.json and "
                         "*.safetensors")  # fmt: skip
    return files


def load_folder(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    indexer_mode: IndexerMode = "exact",
) -> KeyeModel:
    """Build the model of a checkpoint folder, in evaluation mode; all names and shapes are checked before reading.

    Raises InputError for a folder without config.json or weights, ConfigError for its config, CheckpointError for
    tensors that are missing, extra, wrongly shaped or of an unknown type.
    """
    config = KeyeConfig.from_folder(folder)
    files = CheckpointFiles(folder)
    with torch.device("meta"):
        model = KeyeModel(config, indexer_mode)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    for assignment in assign(shapes, files.stored, str(folder)):
        fill(model, assignment, files.read(assignment.name, device, dtype), shapes)
    return model.eval()


def fill(model: KeyeModel, assignment: Assignment, tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Put one tensor in its place; a parameter still on the meta device gets memory of the tensor's type and device."""
    owner, leaf = _owner(model, assignment.parameter)
    if assignment.expert is None:
        setattr(owner, leaf, nn.Parameter(tensor.contiguous()))
        return
    whole = getattr(owner, leaf)
    if whole.is_meta:
        empty = torch.empty(shapes[assignment.parameter], dtype=tensor.dtype, device=tensor.device)
        setattr(owner, leaf, nn.Parameter(empty))
        whole = getattr(owner, leaf)
    ffn = whole.shape[2] // 2
    columns = {"gate": slice(0, ffn), "up": slice(ffn, None), "down": slice(None)}[assignment.part or "down"]
    whole.data[assignment.expert, :, columns] = tensor.t()


def _owner(model: KeyeModel, parameter: str) -> tuple[nn.Module, str]:
    path, _, leaf = parameter.rpartition(".")
    return model.get_submodule(path), leaf


def _is_pointer(path: Path) -> bool:
    """Whether Git LFS left its pointer in place of the file."""
    with path.open("rb") as file:
        return file.read(40).startswith(b"version https://git-lfs")
