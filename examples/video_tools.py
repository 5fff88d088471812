"""The video tools that are offered when they are named, and cutting a clip file; a scripted model needs no weights.

python video_tools.py FOLDER
"""

import sys
from importlib.resources import files
from pathlib import Path
from shutil import copy

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools import ClipVideo, Compare, ContactSheet, Transcript, Zoom, cut_clip

WORDS = """1
00:00:01,000 --> 00:00:04,500
We begin with three eight three.

2
00:00:19,000 --> 00:00:22,000
Later it says eight two one.
"""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    video = Path(copy(str(files("keyeloop.tools.demo_video") / "board.mp4"), folder / "talk.mp4"))
    (folder / "talk.en.srt").write_text(WORDS)

    model = ScriptedBackend(
        [
            call("transcript", video="video-1", contains="eight"),
            call("contact_sheet", video="video-1", max_frames=8),
            call("compare", video="video-1", first_s=2, second_s=20),
            call("zoom", view="f10", box=[300, 200, 700, 500]),
            "From 383 to 821 [f9] [z1].",
        ]
    )
    tools = [ClipVideo(), Zoom(), Compare(), ContactSheet(), Transcript()]
    answer = Agent(model, tools=tools, runs=folder / "runs").run_sync("What changes on the board?", video=video)
    print(answer)
    for citation in answer.citations:
        print(f"{citation.handle}: {citation.source} at {citation.time_s:.3f} s")

    clip = cut_clip(video, 19.0, 22.0, folder / "clip.mp4")
    print(f"{clip.frames} frames, {clip.start_s:.3f} to {clip.end_s:.3f} s, {'copied' if clip.copied else 'encoded'}")
