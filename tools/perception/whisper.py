"""Speech by faster-whisper, with a model that the user has: nothing is ever fetched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import ConfigError, ToolError
from keyeloop.tools.perception.extras import require_extra
from keyeloop.tools.perception.listener import Heard
from keyeloop.tools.video.sound import Samples

MAX_THREADS = 4
PAUSE_S = 0.8
"""A longer silence between two words begins a new line."""
FETCH = "python -c \"from faster_whisper import download_model; download_model('small', 'whisper-small')\""
"""What a person types, once, to have a model."""
_FILES = ("model.bin", "config.json", "tokenizer.json")


class WhisperListener:
    """A Listener of the extra ``listen``: a Whisper model in CTranslate2's form, loaded at the first call."""

    def __init__(self, model: str | Path, *, device: str = "auto") -> None:
        """``model`` is its folder, or a size or name that was fetched before: ``small``, ``Systran/...``.

        Raises ConfigError, with the command that fetches it, where there is no such model on this machine, and where
        the extra is not installed.
        """
        require_extra("listen", "listen", "faster_whisper")
        self.folder = _folder(str(model))
        self._device = device
        self._model: Any = None
        self._turn = threading.Lock()

    def listen(self, sound: Samples, language: str | None) -> Iterator[Heard]:
        """What is said, a line between two pauses; stretches without speech are left out before the model hears them.

        Raises ToolError for a language that the model does not know.
        """
        with self._turn:
            if self._model is None:
                self._model = _loaded(self.folder, self._device)
        known: Sequence[str] = self._model.supported_languages
        if language is not None and language not in known:
            few = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
            raise ToolError(f"this model does not know the language {language!r}; it knows {few}")
        segments, _ = self._model.transcribe(
            sound, language=language, vad_filter=True, word_timestamps=True, condition_on_previous_text=False
        )
        for segment in segments:
            yield from _lines(segment.words or ())


def _lines(words: Sequence[Any]) -> Iterator[Heard]:
    line: list[Any] = []
    for word in words:
        if line and word.start - line[-1].end > PAUSE_S:
            yield _heard(line)
            line = []
        line.append(word)
    if line:
        yield _heard(line)


def _heard(words: Sequence[Any]) -> Heard:
    text = "".join(word.word for word in words).strip()
    sure = sum(float(word.probability) for word in words) / len(words)
    return Heard(float(words[0].start), float(words[-1].end), text, sure)


def _folder(named: str) -> Path:
    """The folder of a model on this machine: as named, or in the cache where fetching puts it."""
    folder = Path(named).expanduser()
    if not folder.is_dir():
        folder = _fetched(named)
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"{folder} has no {' and no '.join(missing)}: a Whisper model in CTranslate2's form has {', '.join(_FILES)}"
        )
    return folder


def _fetched(named: str) -> Path:
    from faster_whisper.utils import download_model

    try:
        return Path(download_model(named, local_files_only=True))
    except Exception as error:  # of whatever the library looks it up with
        why = " ".join(str(error).split())[:300] if isinstance(error, ValueError) else "it was not fetched yet"
        raise ConfigError(
            f"there is no folder {named!r}, and no model of that name on this machine ({why}); fetch one, such as "
            f"small of 0.5 GB, and name its folder: {FETCH}"
        ) from None


def _loaded(folder: Path, device: str) -> Any:
    from faster_whisper import WhisperModel

    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    try:
        return WhisperModel(str(folder), device=device, compute_type="auto", cpu_threads=threads, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"{folder} cannot be loaded as a Whisper model: {' '.join(str(error).split())}") from None
