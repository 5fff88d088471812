"""A user's script beside a ``tools.py`` of its own: a model reads a number from a video and calls the user's tool.

    python hello.py VIDEO SECONDS [NUMBER]

Prints ``called NUMBER SHELF`` from inside the tool. The model is keye-tiny; with NUMBER it is a script that looks at
the same second and then calls the tool with that number.
"""

import sys

from keyeloop import Agent, tool
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools import ClipVideo
from tools import SHELVES


@tool
def file_number(number: int, shelf: str) -> str:
    """File a number under a shelf."""
    print("called", number, shelf)
    return f"filed {number} under {shelf}"


def scripted(at_s: float, number: int) -> ScriptedBackend:
    look = call("clip_video", video="video-1", start_s=at_s, end_s=at_s, max_frames=1)
    return ScriptedBackend([look, call("file_number", number=number, shelf=SHELVES[0]), "done [f1]"])


def main() -> None:
    print("made", file_number.spec.name, "for", *SHELVES)
    if len(sys.argv) > 2:
        video, seconds, *number = sys.argv[1:]
        model = scripted(float(seconds), int(number[0])) if number else "keye-tiny"
        agent = Agent(model, tools=[ClipVideo(), file_number])
        question = f'File the number on the board at {seconds} s under the shelf "{SHELVES[0]}".'
        answer = agent.run_sync(question, video=video)
        print("answered", answer.status, answer)


if __name__ == "__main__":
    main()
