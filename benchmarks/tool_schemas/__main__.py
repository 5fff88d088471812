"""The same twelve functions as tools of four frameworks: which arguments each takes and refuses.

Run ``python -m benchmarks.tool_schemas --peers PYTHON`` from the repository, where PYTHON has pydantic-ai-slim,
openai-agents, smolagents and jsonschema (a virtual environment that may be thrown away): prints the table and writes
``benchmarks/results/tool_schemas.json``. A case counts where the schema says what it should (arguments that the
function should get are valid, others are not), and where the framework's own way of calling does: the function runs
with values of its declared types, or does not run. Arguments are checked as JSON, as a model writes them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULT = ROOT / "benchmarks" / "results" / "tool_schemas.json"
NAMES = ("keyeloop", "pydantic-ai", "openai-agents", "smolagents")


def judged(name: str, python: str) -> dict[str, Any]:
    """What one framework says of every case."""
    path = str(ROOT / "src") if name == "keyeloop" else ""
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [python, "-m", "benchmarks.tool_schemas.judge", name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{name} with {python}: {done.stderr.strip().splitlines()[-1]}")
    made: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return made


def right(row: dict[str, Any], way: str) -> int:
    """Cases of a row where ``schema`` or ``call`` says what it should."""
    return sum(case[way] == case["good"] for case in row.get("cases", ()))


def cell(row: dict[str, Any]) -> str:
    """Schema and call of a row, or that there is no tool."""
    if "error" in row:
        return "no tool"
    total = len(row["cases"])
    note = " *" if row["note"] else ""
    return f"{right(row, 'schema')}/{total} · {right(row, 'call')}/{total}{note}"


def table(results: dict[str, Any]) -> str:
    """All of it as Markdown."""
    names = list(results)
    heads = [f"{name} {results[name]['version']}" if name != "keyeloop" else name for name in names]
    lines = [f"| function | {' | '.join(heads)} |", f"| --- |{' --- |' * len(names)}"]
    rows = {name: results[name]["rows"] for name in names}
    for function in rows["keyeloop"]:
        lines.append(f"| {function} | {' | '.join(cell(rows[name][function]) for name in names)} |")
    total = sum(len(row["cases"]) for row in rows["keyeloop"].values())
    sums = [
        " · ".join(f"{sum(right(row, way) for row in rows[name].values())}/{total}" for way in ("schema", "call"))
        for name in names
    ]
    said = [str(sum(row.get("described", 0) for row in rows[name].values())) for name in names]
    lines += [f"| **all cases** | {' | '.join(sums)} |", f"| parameters described | {' | '.join(said)} |"]
    return "\n".join(lines)


def behind(results: dict[str, Any]) -> list[str]:
    """Cases where another framework is right and keyeloop is not."""
    found = []
    for function, row in results["keyeloop"]["rows"].items():
        for index, case in enumerate(row.get("cases", ())):
            for other in (name for name in results if name != "keyeloop"):
                theirs = results[other]["rows"][function].get("cases", [])
                for way in ("schema", "call"):
                    if theirs and theirs[index][way] == case["good"] != case[way]:
                        found.append(f"{function}: {way} of {other} is right about {case['arguments']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="a Python that has the other three")
    given = parser.parse_args()
    results = {name: judged(name, sys.executable if name == "keyeloop" else given.peers) for name in NAMES}
    print(table(results))
    worse = behind(results)
    print("\n".join(worse) or "\nwherever one of the others is right, keyeloop is")
    RESULT.write_text(json.dumps({"date": datetime.now(UTC).date().isoformat(), "results": results}) + "\n")
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
