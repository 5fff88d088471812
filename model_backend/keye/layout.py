"""Which stored tensor fills which parameter: the published names, one to one, and what else a checkpoint may hold.

Parameter names of :class:`KeyeModel` are the published ones, so a fused checkpoint maps by identity. Experts may
also be stored one by one (``experts.7.gate_proj.weight`` [ffn, hidden]). A tensor ``X`` stored as int8 needs a
companion ``X.scale`` that broadcasts over it. Pooling-head weights and rope tables are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from keyeloop.model_backend.keye.config import KeyeConfig
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.runtime.errors import CheckpointError

FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
INT8 = "I8"
SCALE = ".scale"
_IGNORED = re.compile(r"visual\.vision_model\.head\..*|.*rotary.*\.inv_freq|.*\.packing_position_embedding\.weight")
_ONE_EXPERT = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
_LISTED = 6


@dataclass(frozen=True)
class Stored:
    """A tensor's header: shape and safetensors type name."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Assignment:
    """Copy stored tensor ``name`` into ``parameter``, or into one expert's part of it, transposed."""

    name: str
    parameter: str
    expert: int | None = None
    part: str | None = None
    """``gate``, ``up`` or ``down`` of that expert."""


@dataclass
class _Problems:
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def raise_any(self, source: str) -> None:
        kinds = (("missing", self.missing), ("not part of the model", self.extra), ("wrong", self.wrong))
        found = [f"{len(names)} {kind}: {_listing(names)}" for kind, names in kinds if names]
        if found:
            raise CheckpointError(f"{source}: the weights do not fit the model. " + ". ".join(found)
                                  + ". Check that config.json and weights come from the same checkpoint.")  # fmt: skip


def published_shapes(config: KeyeConfig) -> dict[str, tuple[int, ...]]:
    """Every parameter's published name and shape, from the model built on the meta device."""
    with torch.device("meta"):
        model = KeyeModel(config)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def assign(shapes: Mapping[str, tuple[int, ...]], stored: Mapping[str, Stored], source: str) -> tuple[Assignment, ...]:
    """Match stored tensors with parameters, each filled exactly once.

    Raises CheckpointError that lists every tensor missing, extra, doubly given or wrongly shaped.
    """
    problems = _Problems()
    assignments: list[Assignment] = []
    filled: dict[str, str] = {}
    for name, tensor in stored.items():
        found = _place(name, shapes)
        if found is None:
            if not (_IGNORED.fullmatch(name) or _is_scale(name, stored)):
                problems.extra.append(name)
            continue
        fault = _fault(found, tensor, shapes[found.parameter], stored.get(name + SCALE))
        if fault:
            problems.wrong.append(f"{name} {fault}")
        keys = _filled_by(found, shapes[found.parameter])
        problems.wrong += [f"{name} stores again what {filled[key]} holds" for key in keys[:1] if key in filled]
        filled.update(dict.fromkeys(keys, name))
        assignments.append(found)
    problems.missing = [key for name, shape in shapes.items() for key in _missing(name, shape, filled)]
    problems.raise_any(source)
    return tuple(assignments)


def _place(name: str, shapes: Mapping[str, tuple[int, ...]]) -> Assignment | None:
    if name in shapes:
        return Assignment(name, name)
    one = _ONE_EXPERT.fullmatch(name)
    if one is None:
        return None
    parameter = f"{one[1]}.{'down_proj' if one[3] == 'down' else 'gate_up_proj'}"
    if parameter not in shapes or int(one[2]) >= shapes[parameter][0]:
        return None
    return Assignment(name, parameter, int(one[2]), one[3])


def _is_scale(name: str, stored: Mapping[str, Stored]) -> bool:
    owner = stored.get(name.removesuffix(SCALE)) if name.endswith(SCALE) else None
    return owner is not None and owner.dtype == INT8


def _fault(place: Assignment, tensor: Stored, shape: tuple[int, ...], scale: Stored | None) -> str:
    wanted = shape if place.expert is None else _expert_shape(place, shape)
    if tensor.shape != wanted:
        hint = ""
        if len(wanted) == 3 and tensor.shape == (wanted[0], wanted[2], wanted[1]):
            hint = " (that is the layout expert, out, in; the published one is expert, in, out)"
        return f"has shape {list(tensor.shape)}, the model needs {list(wanted)}{hint}"
    if tensor.dtype == INT8:
        if scale is None:
            return f"is int8 without its {place.name}{SCALE}"
        fits = len(scale.shape) == len(wanted) and all(s in (1, w) for s, w in zip(scale.shape, wanted, strict=True))
        return "" if fits else f"has a scale of shape {list(scale.shape)}, which does not broadcast over {list(wanted)}"
    return "" if tensor.dtype in FLOAT_TYPES else f"is stored as {tensor.dtype}, which this loader cannot read"


def _expert_shape(place: Assignment, shape: tuple[int, ...]) -> tuple[int, ...]:
    _, inputs, outputs = shape
    return (outputs, inputs) if place.part == "down" else (outputs // 2, inputs)


def _filled_by(place: Assignment, shape: tuple[int, ...]) -> list[str]:
    """Units of bookkeeping: one for a whole parameter, one a part and expert where experts are stored one by one."""
    if place.expert is not None:
        return [place.name]
    return [place.name, *_expert_names(place.parameter, shape)]


def _expert_names(parameter: str, shape: tuple[int, ...]) -> list[str]:
    stem, _, leaf = parameter.rpartition(".")
    parts = {"gate_up_proj": ("gate", "up"), "down_proj": ("down",)}.get(leaf, ())
    return [f"{stem}.{expert}.{part}_proj.weight" for expert in range(shape[0]) for part in parts]


def _missing(parameter: str, shape: tuple[int, ...], filled: Mapping[str, str]) -> Iterable[str]:
    if parameter in filled:
        return ()
    absent = [name for name in _expert_names(parameter, shape) if name not in filled]
    whole = len(absent) == len(_expert_names(parameter, shape))
    return [parameter] if whole else absent


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
