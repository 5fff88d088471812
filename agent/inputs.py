"""What a run may look at: declared files, examined before anything is recorded, named as the model will call them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.prompt import task_text
from keyeloop.runtime.content import Image, Part, Text, Video, images_of
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.picture import Pixels
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.base import ToolContext
from keyeloop.tools.search.index import DocumentIndex
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import Examined, examine
from keyeloop.tools.video.still import read_still, show_still
from keyeloop.tools.video.whole import Stored, show_frames
from keyeloop.tools.video.wording import clip_text

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class CheckedTask:
    """A question and the inputs it is about, all checked."""

    question: str
    sources: Mapping[str, Source]
    documents: Path | None
    form: AnswerForm | None = None
    """What the answer has to be; None leaves it free."""

    @property
    def asked(self) -> str:
        """The question as the model reads it."""
        return self.question if self.form is None else f"{self.question}\n\n{self.form.instructions}"


@dataclass(frozen=True)
class Examination:
    """A question and inputs that can be used, while their files are still being hashed."""

    question: str
    inputs: tuple[Examined, ...]
    documents: Path | None
    form: AnswerForm | None = None

    def task(self) -> CheckedTask:
        """The task; waits for the hashes. Raises InputError for a file that changed meanwhile."""
        return CheckedTask(self.question, {one.name: one.source() for one in self.inputs}, self.documents, self.form)


def examine_task(
    question: str,
    videos: Sequence[PathLike],
    images: Sequence[PathLike],
    documents: PathLike | None,
    decoder: Decoder,
    *,
    hashed: bool = True,
) -> Examination:
    """Examine the inputs of a task: ``video-1``, ``video-2``, ..., ``image-1``, ...

    Unless ``hashed``, which a plan needs not, their hashes stay empty. Raises InputError, one line with cause and cure,
    for an empty question or an input that cannot be used.
    """
    if not question.strip():
        raise InputError("the question is empty: say what you want to know")
    folder = None if documents is None else Path(documents)
    if folder is not None and not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"the documents folder {folder} {what}: name a folder of .txt, .md, .html or .pdf files")
    if folder is not None and not DocumentIndex(folder).has_documents():
        raise InputError(
            f"the documents folder {folder} holds no .txt or .md file (nor .html or .pdf, "
            'which pip install "keyeloop[pages]" reads): convert what it holds to one of them'
        )
    inputs = tuple(
        _examine(path, f"{kind}-{number}", kind, decoder, hashed)
        for kind, paths in (("video", videos), ("image", images))
        for number, path in enumerate(listed(paths), 1)
    )
    return Examination(question.strip(), inputs, folder)


def listed(paths: Sequence[PathLike]) -> Sequence[PathLike]:
    """``paths`` as they are; InputError for a single path, whose letters would be taken for files."""
    if isinstance(paths, str | os.PathLike):
        raise InputError(f"videos and images are lists of files: write [{os.fspath(paths)!r}]")
    return paths


def read_images(task: CheckedTask, cost: VisualCost, decoder: Decoder) -> dict[str, Pixels]:
    """Pixels of the image inputs by name, at the size that the model sees. InputError for one that is damaged."""
    images = (source for source in task.sources.values() if source.kind == "image")
    return {source.name: read_still(source, cost, decoder) for source in images}


def opening_parts(
    task: CheckedTask,
    pixels: Mapping[str, Pixels],
    context: ToolContext,
    watched: Mapping[str, Sequence[Stored]] | None = None,
) -> tuple[Part, ...]:
    """The first user turn: watched videos and image inputs under their handles, then sources and question in words."""
    clips = {name: show_frames(task.sources[name], kept, context.views) for name, kept in (watched or {}).items()}
    stills = {name: show_still(task.sources[name], picture, context) for name, picture in pixels.items()}
    return shown_parts(task, {**clips, **stills})


def shown_parts(task: CheckedTask, shown: Mapping[str, Image | Video]) -> tuple[Part, ...]:
    """The first user turn, with ``shown`` for some of the sources by name."""
    parts: list[Part] = []
    for name, part in shown.items():
        views = [image.view for image in images_of(part) if image.view is not None]
        label = clip_text(name, views) if isinstance(part, Video) else f"{name}: {''.join(v.handle for v in views)}"
        parts += [Text(label), part, Text("\n")]
    return (*parts, Text(task_text(task.asked, task.sources.values())))


def _examine(path: PathLike, name: str, kind: str, decoder: Decoder, hashed: bool) -> Examined:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"{name} is {path!r}, which is no path: name a file")
    examined = examine(os.fspath(path), name, decoder, hashed=hashed)
    if (found := examined.facts.kind) != kind:
        raise InputError(f"{path} is {_a(found)}, not {_a(kind)}: pass it as --{found}, in Python as {found}s=[...]")
    return examined


def _a(kind: str) -> str:
    return "an image" if kind == "image" else "a video"
