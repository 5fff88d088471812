"""Sources of a run that goes on later: opened only when they are looked at again, and only if they are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.source import hash_file
from keyeloop.tools.confined.errors import Unusable
from keyeloop.tools.video.decoder import Decoder, require_file


class RecordedDecoder(Decoder):
    """A decoder for sources that were declared earlier. Every other file is opened as it is.

    A source that is gone or that has other bytes than recorded is Unusable; the text names its file.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        super().__init__()
        self._recorded = {source.path: source for source in sources}

    def _converse(self, path: str, request: dict[str, Any], on_reply: Callable[[dict[str, Any], bytes], bool]) -> None:
        source = self._recorded.get(path)
        if source is not None:
            _require_same(source)
            self._recorded.pop(path, None)  # from here on it is watched as a file of any run
        super()._converse(path, request, on_reply)


def _require_same(source: Source) -> None:
    try:
        require_file(source.path)
        found = hash_file(Path(source.path))
    except Unusable as error:
        raise Unusable(f"cannot be looked at again: {source.path} {error}") from None
    except InputError as error:
        raise Unusable(f"cannot be looked at again: {error}") from None
    if found != source.sha256:
        raise Unusable(
            f"cannot be looked at again: {source.path} is not the file that this run has looked at "
            f"(sha256 {found[:12]}, recorded {source.sha256[:12]}); put that one back, or begin a new run"
        )
