"""A user's script beside a ``tools.py`` of its own: keye-tiny reads a number from a video and calls the user's tool.

    python hello.py VIDEO SECONDS

Prints ``called NUMBER SHELF`` from inside the tool. Without arguments it only shows that both modules import.
"""

import sys

from keyeloop import Agent, tool
from keyeloop.tools import ClipVideo
from tools import SHELVES


@tool
def file_number(number: int, shelf: str) -> str:
    """File a number under a shelf."""
    print("called", number, shelf)
    return f"filed {number} under {shelf}"


def main() -> None:
    print("made", file_number.spec.name, "for", *SHELVES)
    if len(sys.argv) > 2:
        video, seconds = sys.argv[1:]
        agent = Agent("keye-tiny", tools=[ClipVideo(), file_number])
        question = f'File the number on the board at {seconds} s under the shelf "{SHELVES[0]}".'
        answer = agent.run_sync(question, video=video)
        print("answered", answer.status, answer)


if __name__ == "__main__":
    main()
