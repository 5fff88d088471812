"""The same run with a scripted model: it adds two readings of the bundled board video.

Needs no weights: `python scripted.py`, then `keyeloop show` with the folder that it prints.
"""

from importlib.resources import files

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call, calls

VIDEO = str(files("keyeloop.tools.demo_video") / "board.mp4")
LOOK = {"video": "video-1", "max_frames": 1}

if __name__ == "__main__":
    model = ScriptedBackend(
        [
            calls(
                ("clip_video", {**LOOK, "start_s": 2, "end_s": 2}),
                ("clip_video", {**LOOK, "start_s": 20, "end_s": 20}),
            ),
            call("python", code="print(383 + 821)"),
            "1204 [f1 350,230,650,490] [f2 350,230,650,490]",
        ]
    )
    answer = Agent(model).run_sync("What is the sum of the numbers at 2 s and at 20 s?", video=VIDEO)
    print(answer, answer.run)
