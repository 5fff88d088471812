"""The whole check: a checkpoint's files, a running server, or both, as one report."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keyeloop.agent.verification.board import ProbeVideo
from keyeloop.agent.verification.counting import Counter
from keyeloop.agent.verification.looking import judge, not_asked, play
from keyeloop.agent.verification.telling import tell
from keyeloop.model_backend.keye.presets import KEYE_TINY
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.local.folder import model_folder
from keyeloop.model_backend.openai_chat.address import Address, is_address, parse_address
from keyeloop.model_backend.openai_chat.backend import KEY_VARIABLE, OpenAIChat
from keyeloop.model_backend.verification.finding import Finding, State, counts, settled
from keyeloop.model_backend.verification.known import Known, known_models
from keyeloop.model_backend.verification.reading import check_checkpoint
from keyeloop.model_backend.verification.server_status import check_status, server_status
from keyeloop.runtime.errors import BackendError, CheckpointError, InputError
from keyeloop.runtime.media import MediaStore

Progress = Callable[[str], None]
CAUSES = {
    "tools-live": "tools do not reach the model",
    "rope-live": "the server computes with another rope",
}
"""Findings that would spoil every run, by key."""


@dataclass(frozen=True)
class Report:
    """What was checked and found, in the order of the open points; what only a server shows stands last."""

    model: str | None
    """The known model that this seems to be."""
    folder: Path | None
    server: str | None
    findings: tuple[Finding, ...]

    @property
    def counts(self) -> dict[State, int]:
        """Findings of each state."""
        return counts(self.findings)

    @property
    def differs(self) -> bool:
        """Whether anything is not as our code takes it to be."""
        return self.counts["different"] > 0

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "model": self.model,
            "folder": None if self.folder is None else str(self.folder),
            "server": self.server,
            "counts": self.counts,
            "findings": [asdict(finding) for finding in self.findings],
        }


async def verify(targets: list[str], on_progress: Progress = lambda _: None, runs: Path | None = None) -> Report:
    """Check a checkpoint's folder (or ``keye-tiny``), a server's address, or both.

    Runs that the server is asked for are kept below ``runs``, else thrown away. Raises InputError for targets that
    are neither, or two of a kind, BackendError where the server cannot be asked at all.
    """
    folder, address = _split(targets)
    known: Known | None = None
    findings: list[Finding] = []
    if folder is not None:
        on_progress(f"reading {folder}")
        known, found = check_checkpoint(folder)
        findings += found
    if address is not None:
        if known is None and folder is None:
            known, folder_of_name = _known_by_name(await _served_name(address))
        else:
            folder_of_name = folder
        with tempfile.TemporaryDirectory() as scratch:
            server = _Server(address, known, folder_of_name, Path(scratch), runs or Path(scratch), on_progress)
            findings += [finding async for finding in server.findings()]
    shown = None if address is None else str(address)
    return Report(known.name if known else None, folder, shown, settled(findings))


def _split(targets: list[str]) -> tuple[Path | None, Address | None]:
    folders = [name for name in targets if not is_address(name)]
    addresses = [name for name in targets if is_address(name)]
    if not targets or len(folders) > 1 or len(addresses) > 1:
        raise InputError("name a checkpoint's folder, a server's address (http://host:port/v1), or one of each")
    folder = None
    if folders:
        folder = model_folder(KEYE_TINY) if folders[0] == KEYE_TINY else Path(folders[0])
    return folder, parse_address(addresses[0]) if addresses else None


async def _served_name(address: Address) -> str:
    """The model's name, asked of the server where the address has none. Raises as its client does."""
    return address.name or _client(address).capabilities().model.rpartition("#")[2]


def _known_by_name(name: str) -> tuple[Known | None, Path | None]:
    """What a served name says of its model; keye-tiny's files come with the package."""
    low = name.lower().replace("_", "-")
    for one in known_models():
        if one.name == KEYE_TINY and KEYE_TINY in low:
            return one, model_folder(KEYE_TINY)
        if one.name != KEYE_TINY and "keye-vl-2" in low:
            return one, None
    return None, None


def _client(address: Address, **fixed: Any) -> OpenAIChat:
    return OpenAIChat(str(address) if address.name else address.base, **fixed)


class _Server:
    def __init__(
        self, address: Address, known: Known | None, folder: Path | None, scratch: Path, runs: Path, say: Progress
    ) -> None:
        self._address, self._known, self._folder = address, known, folder
        self._scratch, self._runs, self._say = scratch, runs, say
        self._video = ProbeVideo()

    async def findings(self) -> AsyncIterator[Finding]:
        """Every finding of the server; runs are not asked for where they could show nothing else than the cause."""
        key = (os.environ.get(KEY_VARIABLE) or "").strip() or None
        cause = ""
        self._say(f"asking {self._address.base} what it runs")
        async for finding in self._before(await server_status(self._address, key)):
            if finding.state == "different":
                cause = CAUSES.get(finding.key, cause)
            yield finding
        if not cause:
            self._say(f"asking about a rendered video, {len(self._video.asked)} runs")
        for finding in not_asked(cause) if cause else await self._played():
            yield finding

    async def _before(self, status: Mapping[str, Any] | None) -> AsyncIterator[Finding]:
        for finding in check_status(status, self._known):
            yield finding
        self._say("counting requests of known size")
        client = _client(self._address)
        if not client.capabilities().native_video:  # another server: shown what it loses, not helped around it
            client = _client(self._address, call_form="native", pictures="tool")
        try:
            counter = Counter(client, MediaStore(self._scratch / "pictures"), self._tokenizer())
            async for finding in counter.findings(self._video):
                yield finding
        finally:
            await client.close()

    async def _played(self) -> tuple[Finding, ...]:
        client = _client(self._address)
        try:
            played = await play(client, self._video, self._scratch, self._runs)
            made = (*judge(played, self._video),)
            if self._known is None or self._known.tells_when:
                made += (await tell(client, self._video, self._scratch, self._runs),)
            return made
        except BackendError as error:
            return tuple(not_asked(str(error)[:160]))
        finally:
            await client.close()

    def _tokenizer(self) -> KeyeTokenizer | None:
        if self._folder is None:
            return None
        try:
            return KeyeTokenizer(self._folder / "tokenizer.json")
        except CheckpointError:
            return None
