"""A run as chat messages with images, the form that fine-tuning takes: one JSON object a run."""

from __future__ import annotations

import json
from typing import Any

from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.model_backend.openai_chat.messages import Form, PicturePlace, conversation, tool_form, turn_of
from keyeloop.runtime.trajectory import Trajectory


def chat_record(run: Trajectory, pictures: ExportedPictures, *, place: PicturePlace = "user") -> dict[str, Any]:
    """``messages`` and ``tools`` as the chat completions protocol has them: the context as the model had it last.

    A tool's pictures stand in a user turn behind its result, as OpenAI takes them, or with ``place`` ``tool`` in its
    own turn. Thinking stands in ``<think>`` tags. JournalError for a picture that is missing.
    """
    form = Form(place)
    turns = [turn_of(message, form, pictures, run.media) for message in run.messages()]
    return {
        "messages": [json.loads(b"".join(turn.pieces)) for turn in conversation(turns, form)],
        "tools": [tool_form(tool) for tool in run.start.tools],
        "metadata": {"run_id": run.start.run_id, "model": run.start.model, "status": run.status},
    }
