"""What a run may look at: declared files, examined before anything is recorded, named as the model will call them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy import uint8
from numpy.typing import NDArray

from keyeloop.agent.prompt import task_text
from keyeloop.runtime.content import Image, Part, Text
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Region, Source
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.base import ToolContext
from keyeloop.tools.search.index import DocumentIndex
from keyeloop.tools.video.child.errors import Unusable
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import open_source

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Task:
    """A question and the inputs it is about, all checked."""

    question: str
    sources: Mapping[str, Source]
    documents: Path | None


def open_task(
    question: str,
    videos: Sequence[PathLike],
    images: Sequence[PathLike],
    documents: PathLike | None,
    decoder: Decoder,
) -> Task:
    """Examine the inputs of a task: ``video-1``, ``video-2``, ..., ``image-1``, ...

    Raises InputError, one line with cause and cure, for an empty question or an input that cannot be used.
    """
    if not question.strip():
        raise InputError("the question is empty: say what you want to know")
    folder = None if documents is None else Path(documents)
    if folder is not None and not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"the documents folder {folder} {what}: name a folder of .txt or .md files")
    if folder is not None and not DocumentIndex(folder).has_documents():
        raise InputError(
            f"the documents folder {folder} holds no .txt or .md file: convert what it holds to one of them"
        )
    sources = [
        _open(path, f"{kind}-{number}", kind, decoder)
        for kind, paths in (("video", videos), ("image", images))
        for number, path in enumerate(paths, 1)
    ]
    return Task(question.strip(), {source.name: source for source in sources}, folder)


def read_images(task: Task, cost: VisualCost, decoder: Decoder) -> dict[str, NDArray[uint8]]:
    """Pixels of the image inputs by name, at the size that the model sees. InputError for one that is damaged."""
    pixels = {}
    for source in task.sources.values():
        if source.kind == "image":
            size = cost.image(source.width, source.height)
            try:
                cuts = decoder.cut(source.path, None, _whole(source), size.width, size.height)
            except Unusable as error:
                raise InputError(f"{source.path} {error}") from None
            pixels[source.name] = cuts[0].pixels
    return pixels


def opening_parts(task: Task, pixels: Mapping[str, NDArray[uint8]], context: ToolContext) -> tuple[Part, ...]:
    """The first user turn: every image input under its handle, then the sources and the question in words."""
    parts: list[Part] = []
    for name, picture in pixels.items():
        source = task.sources[name]
        view = context.views.frame(name, source.sha256, None, _whole(source))
        parts += [Text(f"{name}: {view.handle}"), Image(context.media.put_image(picture), view), Text("\n")]
    return (*parts, Text(task_text(task.question, task.sources.values())))


def _open(path: PathLike, name: str, kind: str, decoder: Decoder) -> Source:
    source = open_source(os.fspath(path), name, decoder=decoder)
    if source.kind != kind:
        found = source.kind
        raise InputError(f"{path} is {_a(found)}, not {_a(kind)}: pass it as --{found}, in Python as {found}s=[...]")
    return source


def _a(kind: str) -> str:
    return "an image" if kind == "image" else "a video"


def _whole(source: Source) -> Region:
    return Region(0, 0, source.width, source.height)
