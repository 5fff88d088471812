"""Text in a frame and what is said, by engines of the extras; a scripted model needs no weights.

python read_and_listen.py VIDEO [WHISPER_FOLDER]
"""

import re
import sys

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.runtime.errors import ConfigError
from keyeloop.tools import Listen, ReadText, Tool


def heard_by(model: ScriptedBackend) -> list[str]:
    """What the tools told the model."""
    return [message.text for message in model.requests[-1].messages if message.role == "tool"]


def main(video: str, whisper: str | None = None) -> int:
    """Read what is written at two seconds, cite it, and hear the first minute where a model for that is named."""
    try:
        tools: list[Tool] = [ReadText(), *([Listen(whisper)] if whisper else [])]
    except ConfigError as error:  # an extra or a model is missing: it says how to get it
        print(error, file=sys.stderr)
        return 2
    wanted = [call("read_text", video="video-1", time_s=2)]
    if whisper:
        wanted.append(call("listen", video="video-1", start_s=0))
    model = ScriptedBackend([*wanted, "read [f1]"])
    Agent(model, tools=tools).run_sync("What is written, what is said?", video=video)
    for told in heard_by(model):
        print(told)

    box = re.search(r"\[f1 ([\d,]+)\]", heard_by(model)[0])  # each line of text tells its place, as an answer cites it
    if box is not None:
        cited = ScriptedBackend([*wanted[:1], f"That is written here [f1 {box[1]}]."])
        answer = Agent(cited, tools=tools).run_sync("Where?", video=video)
        (citation,) = answer.citations
        print(answer, citation.region, "seen" if citation.seen else "not seen")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
