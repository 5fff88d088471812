"""Questions from files, all checked before the first of them is asked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from keyeloop.agent.batch.task_file import BadLines, line_problem, made_id, missing_inputs, task_of
from keyeloop.agent.evaluation.kinds import kind_of, problems, words_to_ask
from keyeloop.agent.evaluation.number import Tolerance
from keyeloop.agent.evaluation.question import Question, QuestionLine
from keyeloop.runtime.errors import InputError

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})
"""Files that are taken for videos where a question names none."""


def read_questions(files: Sequence[Path], videos: Path | None = None) -> list[Question]:
    """The questions of files, each a JSON list or one JSON object a line, in order.

    A question's files are looked for in ``videos``, without it beside the file of questions. A question that names
    neither video nor picture is about the video that has the file's name, else about the only video there is;
    ``"video": null`` says that there is none. ``videos`` may also be one video. Raises InputError where there are no
    questions, BadLines for all that cannot be used.
    """
    if videos is not None and not videos.exists():
        raise InputError(f"no such folder of videos: {videos}")
    reader = _Reader(videos)
    for file in files:
        reader.read(file)
    if reader.wrong:
        raise BadLines(files[0] if len(files) == 1 else files[0].parent, reader.wrong)
    if not reader.found:
        raise InputError(
            f"{', '.join(map(str, files)) or 'no file'} holds no question: write a list, or one JSON object a line, "
            'such as {"question": "...", "answer": "...", "video": "..."}'
        )
    return reader.found


@dataclass
class _Reader:
    """Reads one file after another; what is wrong is gathered, not raised."""

    videos: Path | None
    found: list[Question] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _named: dict[str, int] = field(default_factory=dict)
    _resolved: dict[str, Path] = field(default_factory=dict)

    def read(self, file: Path) -> None:
        for where, raw in _entries(file):
            try:
                line = QuestionLine.model_validate_json(raw)
            except ValidationError as error:
                said = dict.fromkeys(line_problem(dict(each), QuestionLine) for each in error.errors(include_url=False))
                self.wrong += [f"{where}: {each}" for each in said]
                continue
            self.wrong += [f"{where}: {each}" for each in self._add(line, file)]

    def _add(self, line: QuestionLine, file: Path) -> Iterator[str]:
        folder = self._folder(file)
        if not line.model_fields_set & {"video", "videos"} and not line.images:
            chosen = self._default_video(file)
            if isinstance(chosen, str):
                yield chosen
                return
            folder = chosen.parent
            line = line.model_copy(update={"video": chosen.name})
        wrong = [*problems(line), *missing_inputs(line, folder)]
        yield from wrong
        if wrong:
            return
        shown = {**line.asked(), "task": words_to_ask(line)}
        inputs = [*shown.get("videos", ()), *shown.get("images", ())]
        for name in inputs:
            if self._resolved.setdefault(name, (folder / name).resolve()) != (folder / name).resolve():
                yield f"{name} is another file than {self._resolved[name]}, of an earlier question: tell them apart"
        name = made_id(shown, self._named) if line.id is None else str(line.id).strip()
        if name in self._named:
            yield f"id {name!r} is that of question {self._named[name]} too: give each its own"
        self._named.setdefault(name, len(self.found) + 1)
        self.found.append(_question(line, name, folder, shown, inputs[0] if inputs else name))

    def _folder(self, file: Path) -> Path:
        if self.videos is None:
            return file.parent
        return self.videos.parent if self.videos.is_file() else self.videos

    def _default_video(self, file: Path) -> Path | str:
        """The video of a question that names none, or why there is none."""
        if self.videos is not None and self.videos.is_file():
            return self.videos
        folders = dict.fromkeys([self._folder(file), file.parent])
        for folder in folders:
            same = [path for path in _videos(folder) if path.stem == file.stem]
            if len(same) == 1:
                return same[0]
        every = _videos(self._folder(file))
        if len(every) == 1:
            return every[0]
        return f"it names no video, and {self._folder(file)} holds {len(every) or 'none'}, none of them {file.stem}.mp4"


def _question(line: QuestionLine, name: str, folder: Path, asked: dict[str, object], group: str) -> Question:
    task = task_of(line, words_to_ask(line), name, folder)
    return Question(
        id=name,
        kind=kind_of(line),
        family=line.family,
        text=(line.task or line.question or "").strip(),
        wanted=line.wanted(),
        options=line.lettered(),
        tolerance=Tolerance() if line.tolerance is None else Tolerance.parse(line.tolerance),
        start_s=line.start_s,
        end_s=line.end_s,
        task=task,
        asked=asked,
        group=group,
    )


def _entries(file: Path) -> Iterator[tuple[str, bytes]]:
    """Each entry of a list, or each line that is not empty, with its place."""
    try:
        data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"the questions in {file} cannot be read: {error.strerror}") from None
    if not data.lstrip().startswith(b"["):
        lines = enumerate(data.split(b"\n"), 1)
        yield from ((f"{file}:{number}", line) for number, line in lines if line.strip())
        return
    try:
        entries = json.loads(data)
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {error}") from None
    yield from ((f"{file}: question {number}", json.dumps(entry).encode()) for number, entry in enumerate(entries, 1))


def _videos(folder: Path) -> list[Path]:
    return sorted(path for path in _files(folder) if path.suffix.lower() in VIDEO_SUFFIXES)


def _files(folder: Path) -> Iterable[Path]:
    return (path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else ()
