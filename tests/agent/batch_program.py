"""The command line with a scripted model behind it, for a test to kill: ``python -m tests.agent.batch_program ...``.

Answers at once until a task asks to wait, and writes every question it is asked to the file ``asked``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from keyeloop.agent import models
from keyeloop.agent.cli import main
from keyeloop.model_backend.base import Request
from keyeloop.model_backend.scripted import ScriptedBackend, Spoken
from keyeloop.runtime.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]


async def answer(request: Request) -> Spoken:
    """What the question asks for: ``slow``, ``broken``, or the question itself."""
    question = request.messages[1].text
    with Path("asked").open("a") as log:
        print(question.split()[-1], file=log)
    if "broken" in question:
        raise BackendError("the server is gone")
    if "slow" in question:
        await asyncio.sleep(float(os.environ.get("NAP", "0")))
    return f"you asked {question.split()[-1]}"


def start(command: str, *arguments: object, nap_s: float) -> subprocess.Popen[str]:
    """``keyeloop COMMAND ARGUMENTS`` in a process of its own, with this module's model behind it."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.agent.batch_program", command, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "NAP": str(nap_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell lets its children ignore Ctrl-C
    models.load_model = lambda model: ScriptedBackend(answer)
    main(sys.argv[1:])
