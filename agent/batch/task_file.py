"""Tasks written down, one JSON object a line, all checked before the first of them runs."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from keyeloop.agent.answer_form import AnswerForm
from keyeloop.agent.answer_schema import read_schema
from keyeloop.agent.task import Task
from keyeloop.agent.watching import Watch
from keyeloop.runtime.errors import ConfigError, InputError


class TaskLine(BaseModel):
    """One line: the question as ``task`` or ``question``, its inputs, and a name of the writer's own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str | int | None = None
    task: str | None = None
    question: str | None = None
    video: str | None = Field(default=None, min_length=1)
    videos: list[str] = []
    images: list[str] = []
    documents: str | None = Field(default=None, min_length=1)
    watch: Watch = "none"

    @model_validator(mode="after")
    def _asks_once(self) -> Self:
        if self.task is not None and self.question is not None:
            raise ValueError("it has a task and a question: they are two names for the same thing, keep one")
        if not (self.task or self.question or "").strip():
            raise ValueError("it asks nothing: give it a task (or question)")
        if self.id is not None and not str(self.id).strip():
            raise ValueError("its id is empty: name it, or leave the id out")
        return self

    def asked(self) -> dict[str, Any]:
        """What is asked of what, as written: two lines that ask the same are the same task."""
        videos = [*([self.video] if self.video else []), *self.videos]
        wanted: dict[str, Any] = {
            "task": (self.task or self.question or "").strip(),
            "videos": videos,
            "images": self.images,
        }
        wanted |= {"documents": self.documents, "watch": None if self.watch == "none" else self.watch}
        return {name: value for name, value in wanted.items() if value}


class BatchLine(TaskLine):
    """One line of a batch: also what its answer has to be, as a JSON schema or the name of a file with one."""

    answer_schema: dict[str, Any] | str | None = None


@dataclass(frozen=True)
class FileTask:
    """One task of a file."""

    task: Task
    """Its paths resolved against the file's folder; its ``id`` is unique in the file."""
    asked: dict[str, Any]
    """As written, under the names ``task``, ``videos``, ``images``, ``documents``, ``watch`` and ``answer_schema``; a
    schema as it is in its file."""


class BadLines(InputError):
    """Raised when lines of a file cannot be used; ``problems`` has ``FILE:LINE: what is wrong`` for each of them."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        bad = "line" if len(problems) == 1 else "lines"
        super().__init__(f"{len(problems)} bad {bad} in {path}: nothing was run")
        self.problems = problems


def read_tasks(path: Path) -> list[FileTask]:
    """The tasks of a file, in order; empty lines are passed over.

    A task without an id gets one that its words and inputs make, so that it stays the same when the file is sorted or
    grows. Raises InputError where there is no such file or no task in it, BadLines for all that cannot be used.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"the tasks in {path} cannot be read: {error.strerror}") from None
    found: list[FileTask] = []
    named: dict[str, int] = {}
    problems: list[str] = []
    for number, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            line = BatchLine.model_validate_json(raw)
        except ValidationError as error:
            said = dict.fromkeys(line_problem(dict(each), BatchLine) for each in error.errors(include_url=False))
            problems += [f"{path}:{number}: {each}" for each in said]
            continue
        wrong = list(missing_inputs(line, path.parent))
        asked, form = line.asked(), None
        try:
            form = schema_form(line.answer_schema, path.parent)
        except (ConfigError, InputError) as error:
            wrong.append(f"answer_schema: {error}")
        if form is not None:
            asked["answer_schema"] = form.schema
        name = made_id(asked, named) if line.id is None else str(line.id).strip()
        if name in named:
            wrong.append(f"id {name!r} is that of line {named[name]} too: give each task its own")
        named.setdefault(name, number)
        problems += [f"{path}:{number}: {each}" for each in wrong]
        task = task_of(line, (line.task or line.question or "").strip(), name, path.parent)
        found.append(FileTask(replace(task, answer=form), asked))
    if problems:
        raise BadLines(path, problems)
    if not found:
        raise InputError(
            f'{path} holds no task: write one JSON object a line, such as {{"task": "...", "video": "..."}}'
        )
    return found


def task_of(line: TaskLine, words: str, name: str, folder: Path) -> Task:
    """The task of a line, asked in ``words``; paths are taken from ``folder``."""
    return Task(
        words,
        video=None if line.video is None else folder / line.video,
        videos=tuple(folder / video for video in line.videos),
        images=tuple(folder / image for image in line.images),
        documents=None if line.documents is None else folder / line.documents,
        watch=line.watch,
        id=name,
    )


def schema_form(schema: dict[str, Any] | str | None, folder: Path) -> AnswerForm | None:
    """What an answer has to be, by a schema or the file of one. InputError and ConfigError where it is none."""
    if schema is None:
        return None
    return AnswerForm(read_schema(folder / schema) if isinstance(schema, str) else schema)


def missing_inputs(line: TaskLine, folder: Path) -> list[str]:
    """Inputs that are not there. What they hold is found out when they are opened."""
    wrong = []
    for kind, paths in (("video", [line.video, *line.videos]), ("image", line.images)):
        for path in paths:
            if path is not None and not (folder / path).is_file():
                wrong.append(f"no such {kind}: {folder / path}")
    if line.documents is not None and not (folder / line.documents).is_dir():
        wrong.append(f"no such folder of documents: {folder / line.documents}")
    return wrong


def made_id(asked: dict[str, Any], taken: dict[str, int]) -> str:
    """A name made of what is asked; the same task a second time gets ``-2``."""
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:12]
    name, copy = digest, 1
    while name in taken:
        copy += 1
        name = f"{digest}-{copy}"
    return name


def line_problem(error: dict[str, Any], form: type[BaseModel]) -> str:
    """One of pydantic's findings in a line of ``form``, in words of our own."""
    where = [str(step) for step in error["loc"]]
    if where[:1] == ["id"]:
        return "id: give it as text or as a whole number"
    if error["type"] == "extra_forbidden":
        known = list(form.model_fields)
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.6)
        return f"unknown key {where[-1]!r}: " + (
            f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        )
    said = str(error["msg"]).removeprefix("Value error, ").replace("at line 1 column", "at column")
    return f"{'.'.join(where)}: {said}" if where else said
