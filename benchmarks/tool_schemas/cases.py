"""Arguments as models write them: those that each function should get, and those that should be refused."""

from __future__ import annotations

from typing import Any

Arguments = dict[str, Any]

LINE = {"points": [{"x": 1}]}
ORDER = {"customer": "a", "items": [{"name": "pen"}]}
SHELF = {"board": "top", "shape": {"kind": "circle", "radius": 1.5}}

GOOD: dict[str, list[Arguments]] = {
    "plain types": [
        {"text": "a", "count": 2, "ratio": 0.5},
        {"text": "", "count": -2, "ratio": 1, "exact": True},
    ],
    "Literal": [{"mode": "fast"}, {"mode": "exact", "level": 3}],
    "Enum": [{"colour": "red", "others": []}, {"colour": "blue", "others": ["red", "blue"]}],
    "Optional": [{}, {"limit": 3}, {"limit": None, "note": None}, {"note": "a"}],
    "unions": [{"key": 1, "value": [1, 2]}, {"key": "a", "value": {"b": 1}}],
    "dataclasses": [
        {"line": LINE, "origin": {"x": 0}},
        {"line": {**LINE, "colour": "blue", "tags": {"a": "b"}}, "origin": {"x": 0, "y": 1, "label": None}},
    ],
    "pydantic models": [{"order": ORDER}, {"order": {**ORDER, "day": "2026-11-22"}, "urgent": True}],
    "Annotated bounds": [{"count": 9, "code": "AB1"}, {"count": 1, "code": "XY99", "share": 0.9}],
    "containers": [
        {"names": ["a"], "table": {"a": 1.5}, "pair": [1, "m"], "tags": ["x", "y"]},
        {"names": [], "table": {}, "pair": [0, ""], "tags": []},
    ],
    "async, NumPy docstring": [{"name": "a", "day": "2026-11-22"}, {"name": "a", "day": "2026-01-01", "times": 3}],
    "bound method, Sphinx docstring": [{"item": "pen"}, {"item": "pen", "number": 2, "colour": "blue"}],
    "closure with local types": [
        {"what": "a", "shelf": SHELF},
        {"what": "a", "shelf": {"board": "low", "shape": {"kind": "square", "side": 2}}, "rest": [SHELF]},
    ],
}

BAD: dict[str, list[Arguments]] = {
    "plain types": [
        {"text": "a", "count": 2},
        {"text": "a", "count": "2", "ratio": 0.5},
        {"text": "a", "count": 2.5, "ratio": 0.5},
        {"text": 3, "count": 2, "ratio": 0.5},
        {"text": "a", "count": 2, "ratio": None},
        {"text": "a", "count": 2, "ratio": 0.5, "exact": "yes"},
        {"text": "a", "count": 2, "ratio": 0.5, "exakt": True},
        {"text": "a", "count": True, "ratio": 0.5},
    ],
    "Literal": [{"mode": "slow"}, {"mode": "fast", "level": 4}, {"mode": "fast", "level": "1"}, {"mode": None}, {}],
    "Enum": [
        {"colour": "green", "others": []},
        {"colour": "RED", "others": []},
        {"colour": "red", "others": ["green"]},
        {"colour": "red", "others": "red"},
        {"colour": "red"},
    ],
    "Optional": [{"limit": "3"}, {"limit": 2.5}, {"note": 3}, {"limits": 3}],
    "unions": [
        {"key": None, "value": []},
        {"key": [1], "value": []},
        {"key": 1, "value": ["a"]},
        {"key": 1, "value": {"b": "c"}},
        {"key": 1, "value": 3},
        {"key": 1},
    ],
    "dataclasses": [
        {"line": {}, "origin": {"x": 0}},
        {"line": {"points": [{"y": 1}]}, "origin": {"x": 0}},
        {"line": {"points": [{"x": "a"}]}, "origin": {"x": 0}},
        {"line": {**LINE, "colour": "green"}, "origin": {"x": 0}},
        {"line": {**LINE, "color": "blue"}, "origin": {"x": 0}},
        {"line": LINE, "origin": {"x": 0, "z": 1}},
        {"line": LINE, "origin": [0, 1]},
        {"line": {**LINE, "tags": {"a": 1}}, "origin": {"x": 0}},
    ],
    "pydantic models": [
        {"order": {"customer": "a"}},
        {"order": {"customer": "a", "items": [{"number": 1}]}},
        {"order": {"customer": "a", "items": [{"name": "pen", "number": 0}]}},
        {"order": {**ORDER, "day": "tomorrow"}},
        {"order": {**ORDER, "days": 3}},
        {"order": "a pen"},
        {"customer": "a", "items": []},
    ],
    "Annotated bounds": [
        {"count": 0, "code": "AB1"},
        {"count": 10, "code": "AB1"},
        {"count": 1, "code": "ab1"},
        {"count": 1, "code": "AB1", "share": 1},
        {"count": 1, "code": "AB1", "share": 0},
        {"count": 1, "code": "AB"},
    ],
    "containers": [
        {"names": "a", "table": {}, "pair": [1, "m"], "tags": []},
        {"names": [1], "table": {}, "pair": [1, "m"], "tags": []},
        {"names": [], "table": {"a": "b"}, "pair": [1, "m"], "tags": []},
        {"names": [], "table": [], "pair": [1, "m"], "tags": []},
        {"names": [], "table": {}, "pair": [1], "tags": []},
        {"names": [], "table": {}, "pair": [1, "m", 2], "tags": []},
        {"names": [], "table": {}, "pair": ["m", 1], "tags": []},
        {"names": [], "table": {}, "pair": [1, "m"], "tags": "x"},
    ],
    "async, NumPy docstring": [
        {"name": "a", "day": "soon"},
        {"name": "a", "day": 3.5},
        {"name": "a"},
        {"name": "a", "day": "2026-11-22", "times": "often"},
    ],
    "bound method, Sphinx docstring": [
        {},
        {"item": "pen", "number": "two"},
        {"item": "pen", "colour": "green"},
        {"item": "pen", "self": 1},
    ],
    "closure with local types": [
        {"what": "a", "shelf": {"board": "middle", "shape": SHELF["shape"]}},
        {"what": "a", "shelf": {"board": "top", "shape": {"kind": "square", "radius": 1}}},
        {"what": "a", "shelf": {"board": "top", "shape": {"kind": "oval", "radius": 1}}},
        {"what": "a", "shelf": "top"},
        {"what": "a", "shelf": SHELF, "rest": ["top"]},
    ],
}
