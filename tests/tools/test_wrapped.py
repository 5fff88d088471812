"""Toolsets cut, renamed, limited and guarded: what a model is told, and what its calls meet."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from keyeloop.runtime.content import Image, Text, ToolCall
from keyeloop.runtime.errors import ConfigError, ToolDefinitionError, ToolError
from keyeloop.tools.base import Tool, ToolContext
from keyeloop.tools.decorate import tool
from keyeloop.tools.toolset import Toolset
from keyeloop.tools.wrapped.rules import Rules


@tool(timeout_s=9, concurrency=2)
def open_file(path: str) -> str:
    """Open a file."""
    return f"opened {path}"


@tool(in_order=True)
def delete_file(path: str, force: bool = False) -> str:
    """Delete a file."""
    return f"deleted {path}"


@tool
def draw() -> Any:
    """Draw."""
    return np.zeros((280, 280, 3), np.uint8)


FILES = Toolset([open_file, delete_file, draw])


async def text_of(made: Tool, context: ToolContext, **arguments: Any) -> str:
    (part,) = await made.call(arguments, context)
    assert isinstance(part, Text)
    return part.text


async def allow(tools: Toolset, name: str, context: ToolContext, **arguments: Any) -> str:
    approve = getattr(tools.find(name), "approve")  # noqa: B009
    allowed: str = await approve(ToolCall("call-1", name, arguments), context)
    return allowed


def names(tools: Toolset) -> list[str]:
    return [spec.name for spec in tools.specs]


def test_filtered_by_pattern_and_by_function() -> None:
    assert names(FILES.filtered("*_file")) == ["open_file", "delete_file"]
    assert names(FILES.filtered("draw", lambda spec: "Open" in spec.description)) == ["open_file", "draw"]
    with pytest.raises(ToolDefinitionError, match="no tool is called 'close_\\*'; tools: open_file"):
        FILES.filtered("close_*")


async def test_another_name_changes_nothing_else(context: ToolContext) -> None:
    made = FILES.prefixed("disk_").renamed({"disk_draw": "paint"})
    assert names(made) == ["disk_open_file", "disk_delete_file", "paint"]
    opened = made.find("disk_open_file")
    assert await text_of(opened, context, path="a") == "opened a" and opened.timeout_s == 9
    assert opened.spec.parameters == open_file.spec.parameters
    assert getattr(opened, "concurrency") == 2 and getattr(made.find("disk_delete_file"), "in_order")  # noqa: B009
    assert getattr(opened, "strict_schema") == open_file.strict_schema  # noqa: B009
    assert not hasattr(made.find("paint"), "nothing_of_the_kind")
    with pytest.raises(ToolDefinitionError, match="no tool is called 'close'"):
        FILES.renamed({"close": "shut"})
    with pytest.raises(ToolDefinitionError, match="'a/open_file' is no name"):
        FILES.prefixed("a/")
    with pytest.raises(ToolDefinitionError, match="two tools are called 'draw'"):
        FILES.renamed({"open_file": "draw"})


async def test_calls_are_counted_together_or_by_name(context: ToolContext) -> None:
    together = FILES.limited(2)
    assert await text_of(together.find("open_file"), context, path="a") == "opened a"
    assert await text_of(together.find("delete_file"), context, path="a") == "deleted a"
    with pytest.raises(ToolError, match="open_file may be called 2 times, and was; answer with what you have"):
        await together.find("open_file").call({"path": "b"}, context)
    each = FILES.limited({"open_file": 1})
    await text_of(each.find("open_file"), context, path="a")
    with pytest.raises(ToolError, match="open_file may be called once"):
        await each.find("open_file").call({"path": "b"}, context)
    for _ in range(3):
        await text_of(each.find("delete_file"), context, path="a")


async def test_less_time_and_smaller_pictures(context: ToolContext) -> None:
    made = FILES.limited(timeout_s=20, visual_tokens=9)
    assert [each.timeout_s for each in made] == [9, 20, 20]
    (picture,) = await made.find("draw").call({}, context)
    assert isinstance(picture, Image) and picture.media.width * picture.media.height <= 9 * 28 * 28
    assert context.visual_budget_tokens == 100


async def test_the_first_rule_that_fits_decides(context: ToolContext) -> None:
    made = FILES.approved(
        {"open_file(path=/public/*)": "allow", "delete_file(path=/tmp/*, force=true)": "allow", "delete_*": "deny"}
    )
    assert await allow(made, "open_file", context, path="/public/a") == "allowed: rule 'open_file(path=/public/*)'"
    assert await allow(made, "delete_file", context, path="/tmp/a", force=True)
    with pytest.raises(ToolError, match=r"delete_file with these arguments is not allowed \(rule 'delete_\*'\)"):
        await allow(made, "delete_file", context, path="/tmp/a", force=False)
    with pytest.raises(ToolError, match=r"open_file was not allowed: .* nobody to ask"):
        await allow(made, "open_file", context, path="/private/a")
    assert await text_of(made.find("open_file"), context, path="/x") == "opened /x", "who calls it knows why"


async def test_somebody_is_asked_and_may_say_why_not(context: ToolContext) -> None:
    asked: list[ToolCall] = []

    def plainly(call: ToolCall) -> bool | str:
        asked.append(call)
        return call.arguments["path"] == "yes" or ("not that one" if call.arguments["path"] == "why" else False)

    async def awaited(call: ToolCall) -> bool | str:
        return plainly(call)

    for ask in (plainly, awaited):
        made = FILES.approved({"draw": "allow"}, ask)
        assert await allow(made, "open_file", context, path="yes") == "allowed: asked, by no rule"
        with pytest.raises(ToolError, match=r"open_file was not allowed: not that one$"):
            await allow(made, "open_file", context, path="why")
        with pytest.raises(ToolError, match=r"open_file was not allowed$"):
            await allow(made, "open_file", context, path="no")
    assert len(asked) == 6 and asked[0].name == "open_file"


async def test_only_true_allows(context: ToolContext) -> None:
    for answer in (1, "yes", None, "", ["y"]):
        made = FILES.approved({}, lambda call, answer=answer: answer)  # type: ignore[misc]
        with pytest.raises(ToolError, match="was not allowed"):
            await allow(made, "open_file", context, path="a")


async def test_a_new_name_does_not_slip_past_a_rule(context: ToolContext) -> None:
    made = FILES.approved({"delete_file": "deny", "*": "allow"}).prefixed("disk_").limited(5)
    assert await allow(made, "disk_open_file", context, path="a") == "allowed: rule '*'"
    with pytest.raises(ToolError, match="delete_file with these arguments is not allowed"):
        await allow(made, "disk_delete_file", context, path="a")
    both = made.approved({"disk_open_file": "deny", "*": "allow"})
    with pytest.raises(ToolError, match="disk_open_file with these arguments"):
        await allow(both, "disk_open_file", context, path="a")


@pytest.mark.parametrize(
    "rule,problem",
    [
        (("a", "maybe"), "rule 'a' says 'maybe': write one of allow, ask, deny"),
        (("", "ask"), "'' is no pattern of calls"),
        (("open file", "ask"), "is no pattern of calls"),
        (("open(anything)", "ask"), "no argument=pattern between its brackets"),
    ],
)
def test_a_rule_that_cannot_be_read(rule: tuple[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Rules([rule])


def test_arguments_of_rules_may_hold_commas_and_any_type() -> None:
    rules = Rules({"look(box=[[]1, 2[]], note=a, b*)": "allow"})
    assert rules.decide(ToolCall("c", "look", {"box": [1, 2], "note": "a, b and c"}))[0] == "allow"
    assert rules.decide(ToolCall("c", "look", {"box": [1, 3], "note": "a, b"}))[0] == "ask"
    assert rules.decide(ToolCall("c", "look", {"note": "a, b"}))[0] == "ask"
