"""A model's arithmetic of picture tokens as a run's record keeps it, so that a replay plans the same pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from keyeloop.model_backend.keye.cost import KeyeVisualCost, VisionLimits
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.visual_cost import VisualCost


def cost_to_record(cost: VisualCost) -> dict[str, Any] | None:
    """JSON for the arithmetics of this package; None for one of somebody else's."""
    if isinstance(cost, KeyeVisualCost):
        return {"kind": "keye", **asdict(cost.limits)}
    if isinstance(cost, PatchCost):
        return {"kind": "patch", **asdict(cost)}
    return None


def cost_from_record(record: Mapping[str, Any] | None) -> KeyeVisualCost | PatchCost | None:
    """The arithmetic that was written down; None where none was, or by a version that this one does not know."""
    facts = dict(record or {})
    kind = facts.pop("kind", None)
    try:
        if kind == "keye":
            return KeyeVisualCost(VisionLimits(**facts))
        return PatchCost(**facts) if kind == "patch" else None
    except TypeError:
        return None
