"""Toolsets: order, unique names, helpful look-ups."""

from __future__ import annotations

import pytest

from keyeloop.runtime.errors import ToolDefinitionError, ToolError
from keyeloop.tools.decorate import tool
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.video.zoom import Zoom


@tool
def zoom(box: int) -> int:
    return box


@tool
def python(code: str) -> str:
    return code


def test_order_names_and_length() -> None:
    tools = Toolset([zoom]) + Toolset([python])
    assert [spec.name for spec in tools.specs] == ["zoom", "python"]
    assert len(tools) == 2 and "zoom" in tools and "open" not in tools
    assert tools.find("python") is python and list(tools) == [zoom, python]


def test_a_name_is_given_once() -> None:
    with pytest.raises(ToolDefinitionError, match="two tools are called 'zoom'"):
        Toolset([zoom, tool(name="zoom")(lambda: 1)])


def test_a_plain_function_is_told_to_be_decorated() -> None:
    def plain(x: int) -> int:
        return x

    with pytest.raises(ToolDefinitionError, match="plain is not a tool: put @tool above"):
        Toolset([plain])  # type: ignore[list-item]


def test_a_class_or_no_list_is_told_how_to_be_written() -> None:
    with pytest.raises(ToolDefinitionError, match=r"Zoom is a class, not a tool: write Zoom\(\)"):
        Toolset([Zoom])  # type: ignore[list-item]
    with pytest.raises(ToolDefinitionError, match=r"tools is Zoom, which is no list: write tools=\[\.\.\.\]"):
        Toolset(Zoom())  # type: ignore[arg-type]


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(ToolError, match="no tool 'pyton'; did you mean python"):
        Toolset([zoom, python]).find("pyton")
    with pytest.raises(ToolError, match="tools: none"):
        Toolset().find("x")
