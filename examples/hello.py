"""A tool of your own in ten lines: keye-tiny reads a number from a video and files it.

keyeloop demo-video board.mp4
python hello.py board.mp4 8
"""

import sys

from keyeloop import Agent, tool
from keyeloop.tools import ClipVideo, Zoom


@tool
def file_number(number: int, shelf: str) -> str:
    """File a number under a shelf."""
    print(f"filing {number} under {shelf}")
    return f"filed {number} under {shelf}"


if __name__ == "__main__":
    video, second = sys.argv[1:]
    agent = Agent("keye-tiny", tools=[ClipVideo(), Zoom(), file_number])
    answer = agent.run_sync(f'File the number on the board at {second} s under the shelf "top".', video=video)
    print(answer.text, answer.status, answer.run)
