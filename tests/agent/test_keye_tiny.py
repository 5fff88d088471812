"""The embedded model, weights and all, on the bundled video: every family, with its citation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from keyeloop import Agent, tool
from keyeloop.agent.cli.demo import bundled_question
from keyeloop.runtime.citations import strip_citations
from keyeloop.sandbox import availability
from keyeloop.tools import ClipVideo

VIDEO = bundled_question()[0]
ROWS = {row["question"]: row for row in json.loads(VIDEO.with_suffix(".json").read_text(encoding="utf-8"))}


@pytest.mark.parametrize(
    "question",
    [
        "What is written on the board at 0:08?",
        "Tell me the text of the small sign at 2 seconds.",
        "Read the small sign at 00:25.",
        "Add up the numbers shown at 20 seconds and 00:52.",
        "Take the number on the board at 0:52 and subtract the one at 0:58.",
        "sum of the board numbers at 0:14 and 00:20",
        "I need the number from the board at 0:40.",
        "Find the small sign at 1:25 and tell me what it says.",
    ],
)
async def test_it_answers_and_points_at_what_it_saw(question: str, tmp_path: Path) -> None:
    row = ROWS[question]
    if row["family"] == "compute" and not availability().ok:
        pytest.skip(availability().reason)
    answer = await Agent("keye-tiny", runs=tmp_path).run(question, video=VIDEO)
    said = strip_citations(answer.text).strip().rstrip(".").casefold()
    if row["family"] == "not_there":
        assert said.startswith("not there")
        return
    assert said == row["answer"].casefold()
    assert answer.citations and all(citation.seen and citation.region for citation in answer.citations)
    for citation in answer.citations:
        assert citation.time_s is not None and row["start_s"] <= citation.time_s < row["end_s"]


async def test_it_calls_a_tool_of_the_users_own(tmp_path: Path) -> None:
    filed: list[tuple[int, str]] = []

    @tool
    def file_number(number: int, shelf: str) -> str:
        """File a number on a shelf."""
        filed.append((number, shelf))
        return f"filed {number} on shelf {shelf}"

    agent = Agent("keye-tiny", tools=[ClipVideo(), file_number], runs=tmp_path)
    answer = await agent.run("File the number at 0:20 on shelf B.", video=VIDEO)
    assert filed == [(821, "B")]
    assert answer.text.startswith("Done: filed 821 on shelf B")
