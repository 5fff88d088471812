"""A task as it is asked: the question and everything that may be said beside it, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict, Unpack

from keyeloop.agent.answer_form import answer_form
from keyeloop.agent.inputs import Examination, PathLike, examine_task, listed
from keyeloop.agent.watching import Watch
from keyeloop.tools.video.decoder import Decoder


class Options(TypedDict, total=False):
    """What may be said beside a question, as keywords; each is told at :class:`Task`."""

    video: PathLike | None
    videos: Sequence[PathLike]
    images: Sequence[PathLike]
    documents: PathLike | None
    watch: Watch
    answer: Any
    deps: Any


@dataclass(frozen=True)
class Task:
    """One question, with what it may look at: the arguments of one :meth:`Agent.run`, which takes it in their place."""

    task: str
    """The question."""
    video: PathLike | None = None
    """``video-1``, before those of ``videos``."""
    videos: Sequence[PathLike] = ()
    images: Sequence[PathLike] = ()
    documents: PathLike | None = None
    """A folder of .txt and .md files for ``web_search``."""
    watch: Watch = "none"
    """Frames of the videos in the first message: ``whole`` as many as the model's context has room for, ``overview`` a
    few; ``none`` leaves all looking to tools."""
    id: str = ""
    """The caller's own name for it; not shown to the model."""
    answer: Any = None
    """The type of its answer: a pydantic model, int, list[str], ..."""
    deps: Any = field(default=None, repr=False)
    """For tools that read it from their ``ToolContext``; None leaves the agent's own."""

    @classmethod
    def of(cls, task: Task | str, **options: Unpack[Options]) -> Task:
        """A question with its options, or a task with some of its own replaced."""
        return replace(task, **options) if isinstance(task, Task) else cls(task, **options)


def examine(task: Task, decoder: Decoder, *, hashed: bool = True) -> Examination:
    """Examine what a task may look at, before anything is recorded.

    Raises InputError for an input that cannot be used, ConfigError for an answer of no type.
    """
    form, videos = answer_form(task.answer), [*([] if task.video is None else [task.video]), *listed(task.videos)]
    made = examine_task(task.task, videos, task.images, task.documents, decoder, hashed=hashed)
    return replace(made, form=form)
