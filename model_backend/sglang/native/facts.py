"""What an SGLang server says of itself: its model, how much that reads, how it streams, where pictures are shared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.openai_chat.address import Address
from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.sending import Sender
from keyeloop.model_backend.sglang.shared_store import shared_store
from keyeloop.runtime.errors import BackendError, InputError

FILES = ("config.json", "tokenizer.json")
STATUS = "keyeloop"
"""Under this name our plugin speaks in what ``/server_info`` says of every scheduler."""


GRAMMARS_ON_CPU = (0, 5, 21)
"""The first release of SGLang that was seen to hold a reply to a grammar on a CPU; 0.5.17 asks for pinned memory."""


@dataclass(frozen=True)
class Facts:
    """What is known of a server."""

    context_tokens: int | None
    """None where it does not say."""
    model_path: str
    new_tokens_only: bool
    """Each event of a stream has the tokens since the one before, not all of them."""
    media_store: Path | None
    """A folder of pictures that the server reads by their sha256."""
    grammars: bool
    """Replies can be held to a grammar there."""


async def ask(sender: Sender, address: Address) -> Facts:
    """Ask a server. BackendError where it cannot be asked, InputError where it serves no Keye model."""
    model = await _object(sender, "/model_info")
    served = model.get("architectures")
    names = [name for name in served if isinstance(name, str)] if isinstance(served, list) else []
    if names and not any("keye" in name.lower() for name in names):
        raise InputError(
            f"{address.shown} serves {', '.join(names)}, which has no template here: ask it as "
            f"{address.base}/v1 instead"
        )
    server = await _object(sender, "/server_info")
    states = server.get("internal_states")
    first = states[0] if isinstance(states, list) and states and isinstance(states[0], dict) else {}
    status = first.get(STATUS)
    counts = [server.get("context_length"), server.get("max_total_num_tokens"), server.get("max_req_input_len")]
    known = [count for count in counts if isinstance(count, int) and count > 0]
    return Facts(
        context_tokens=min(known, default=None),
        model_path=str(model.get("tokenizer_path") or model.get("model_path") or ""),
        new_tokens_only=server.get("incremental_streaming_output") is True,
        media_store=shared_store(status) if isinstance(status, dict) and address.loopback else None,
        grammars=_has_grammars(server),
    )


def _has_grammars(server: Mapping[str, Any]) -> bool:
    """Whether a request with a grammar can be asked of it: on a CPU, older releases end with the first one."""
    if server.get("grammar_backend") == "none":
        return False
    release = tuple(map(int, re.findall(r"\d+", str(server.get("version") or ""))[:3]))
    return server.get("device") != "cpu" or release >= GRAMMARS_ON_CPU


def tokenizer_folder(address: Address, model_path: str = "") -> Path:
    """The folder whose ``config.json`` and ``tokenizer.json`` are those of the served model.

    Taken from the address, else from what the server says where that is on this machine. InputError where there is
    none.
    """
    if address.name == EMBEDDED_MODEL:
        return model_folder(EMBEDDED_MODEL)
    name = address.name or (model_path if address.loopback else "")
    folder = Path(name).expanduser()
    missing = [file for file in FILES if not (folder / file).is_file()]
    if not name or missing:
        what = f"{name!r} has no {' and no '.join(missing)}" if name else "no folder of its model is known here"
        raise InputError(
            f"{address.shown}: {what}. Name the folder that holds the {' and '.join(FILES)} of the served model: "
            f"{address.shown}#FOLDER"
        )
    return folder


async def _object(sender: Sender, path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(await sender.get(path))
    except Refused as error:
        if error.status == 404:
            raise InputError(f"{sender.where} has no {path}: is it an SGLang server? Ask others as http://") from None
        raise
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BackendError(f"{sender.where}{path} is no JSON object: is it an SGLang server?")
    return found
