"""What a server says of itself, and what it does with tools and pictures, asked once before the first task.

Tiny requests of one output token settle it, at most four. A history with a call is sent with its tool and without:
where the first is refused, or counts no more tokens than the second (the template lost the tool), calls go in words.
A picture in the tool's result comes next; where it is refused or not counted, a picture in a user turn. A server that
runs keyeloop's plugin says so itself, and none of this is asked of it.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from keyeloop.model_backend.openai_chat.address import Address
from keyeloop.model_backend.openai_chat.assembling import Assembly
from keyeloop.model_backend.openai_chat.messages import PATH, CallForm, PicturePlace
from keyeloop.model_backend.openai_chat.own_server import OwnServer, own_server
from keyeloop.model_backend.served.failures import RETRIED, Refused
from keyeloop.model_backend.served.pictures import data_url
from keyeloop.model_backend.served.sending import Sender
from keyeloop.runtime.errors import BackendError, InputError

DEFAULT_CONTEXT_TOKENS = 32_768
"""Where neither the server nor the settings say."""
CONTEXT_FIELDS = ("max_model_len", "context_length", "context_window", "n_ctx")
"""Under these names servers tell it, in their list of models (or its ``meta``)."""
PROBE_SIDE_PX = 112
PROBE_TOOL_TOKENS = 10
"""A probe's tool costs at least this many tokens wherever it is read."""
WORDS = "it is grey"
PROBE_PICTURE_TOKENS = 4
"""A probe's picture costs at least this many tokens wherever it is seen."""


@dataclass(frozen=True)
class Facts:
    """What is known of a served model."""

    name: str
    context_tokens: int
    pictures: PicturePlace | None
    """None: the server takes no pictures at all."""
    calls: CallForm
    own: OwnServer | None = None
    """It runs keyeloop's plugin, and nothing that was set by hand says otherwise."""
    listed: bool = True
    """The name was held against the server's list; False where nothing had to be asked."""


async def ask(
    sender: Sender,
    address: Address,
    context_tokens: int | None,
    pictures: PicturePlace | None,
    calls: CallForm | None,
    *,
    try_out: bool = True,
) -> Facts:
    """Ask a server what is not given; without ``try_out`` nothing but what it says of itself, the rest is guessed.

    Raises InputError where the address's ``#name`` is none that the server lists, or there is none and the server does
    not list exactly one model, BackendError where it cannot be asked.
    """
    unset = pictures is None and calls is None
    tried = try_out and (pictures is None or calls is None)
    if address.name is not None and context_tokens is not None and not unset and not tried:
        return Facts(address.name, context_tokens, pictures or "user", calls or "native", listed=False)
    name, entry = await named(sender, address)
    if context_tokens is None:
        context_tokens = _context_of(entry) or DEFAULT_CONTEXT_TOKENS
    own = await own_server(sender, entry) if unset else None
    if own is not None:
        return Facts(name, context_tokens, "tool", "native", own)
    if not try_out:
        return Facts(name, context_tokens, pictures or "user", calls or "native")
    words: int | None = None
    if calls is None:
        calls, words = await _call_form(sender, name)
    return Facts(name, context_tokens, pictures or await _place(sender, name, calls, words), calls)


async def named(sender: Sender, address: Address) -> tuple[str, Mapping[str, Any]]:
    """The name of the model that is asked for, and what the server lists of it. Raises as :func:`ask` does."""
    listed = await _listed(sender, required=address.name is None)
    name = address.name or _only(listed, address)
    return name, _entry(listed, name, address)


async def _listed(sender: Sender, required: bool) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(await sender.get("/models"))
    except Refused as error:
        if required or error.status in (401, 403):
            raise
        return []
    except ValueError:
        found = {}
    models = found.get("data") if isinstance(found, dict) else None
    return [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []


def _only(listed: Sequence[Mapping[str, Any]], address: Address) -> str:
    names = _names(listed)
    if len(names) == 1:
        return names[0]
    what = f"serves {len(names)} models ({_shown(names)})" if names else "lists no models"
    raise InputError(f"{address.base} {what}: write {address.base}#{names[0] if names else 'name'} to choose one")


def _entry(listed: Sequence[Mapping[str, Any]], name: str, address: Address) -> Mapping[str, Any]:
    """What the server lists of a model; nothing where it lists none. InputError for a name that is not among them.

    llama.cpp lists aliases, Ollama takes a name without ``:latest``, and SGLang an adapter behind its model's name.
    """
    for one in listed:
        aliases = one.get("aliases")
        known = [one.get("id"), *(aliases if isinstance(aliases, list) else [])]
        if name in known or f"{name}:latest" in known or name.partition(":")[0] in known:
            return one
    names = _names(listed)
    if names:
        alone = ", or leave #name out" if len(names) == 1 else ""
        raise InputError(
            f"{address.base} serves no model {name!r}; it lists {_shown(names)}: write {address.base}#{names[0]}{alone}"
        )
    return {}


def _names(listed: Sequence[Mapping[str, Any]]) -> list[str]:
    return [one["id"] for one in listed if isinstance(one.get("id"), str) and one["id"]]


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")


def _context_of(entry: Mapping[str, Any]) -> int | None:
    meta = entry.get("meta")
    for place in (meta if isinstance(meta, Mapping) else {}, entry):
        for field in CONTEXT_FIELDS:
            if isinstance(place.get(field), int) and place[field] > 0:
                return int(place[field])
    return None


async def _call_form(sender: Sender, name: str) -> tuple[CallForm, int | None]:
    """How calls travel, and what the server counted for a history with a tool and its result in words."""
    history = [*_called(), _result(WORDS)]
    try:
        told = await _tokens_of(sender, name, history)
    except BackendError as error:
        _raise_if_elsewhere(error)
        return "text", None
    try:
        bare = await _tokens_of(sender, name, history, tools=False)
    except BackendError as error:
        _raise_if_elsewhere(error)
        return "native", told
    lost = told is not None and bare is not None and told < bare + PROBE_TOOL_TOKENS
    return "text" if lost else "native", told


async def _place(sender: Sender, name: str, calls: CallForm, words: int | None) -> PicturePlace | None:
    url = data_url(grey_png(PROBE_SIDE_PX), "image/png").decode()
    shown: list[dict[str, Any]] = [
        {"type": "text", "text": WORDS},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    if calls == "native":
        try:
            if words is None:
                words = await _tokens_of(sender, name, [*_called(), _result(WORDS)])
            seen = await _tokens_of(sender, name, [*_called(), _result(shown)])
            if words is not None and seen is not None and seen >= words + PROBE_PICTURE_TOKENS:
                return "tool"
        except BackendError as error:
            _raise_if_elsewhere(error)
    try:
        await _tokens_of(sender, name, [{"role": "user", "content": shown}], tools=False)
    except BackendError as error:
        _raise_if_elsewhere(error)
        return None
    return "user"


def _raise_if_elsewhere(error: BackendError) -> None:
    """Raise an error that is not about what was tried out: no connection, no right, no such model, a busy server."""
    if not isinstance(error, Refused) or error.status in (401, 403, 429, 502, 503, 504):
        raise error


async def _tokens_of(sender: Sender, name: str, messages: list[dict[str, Any]], *, tools: bool = True) -> int | None:
    asked = {
        "model": name,
        "messages": messages,
        "temperature": 0,
        "max_tokens": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    body = json.dumps(asked | ({"tools": [_tool()]} if tools else {})).encode()
    retried = RETRIED - {500}  # how some servers say that they take no pictures
    reply = await sender.post(PATH, body, lambda: Assembly(sender.where, time.monotonic(), None, False), retried)
    return reply.prompt_tokens


def _tool() -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}
    return {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": parameters}}


def _called() -> list[dict[str, Any]]:
    call = {"id": "call-1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    return [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]


def _result(content: str | list[dict[str, Any]]) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": "call-1", "content": content}


def grey_png(side_px: int) -> bytes:
    """A grey square, as PNG."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress((b"\0" + b"\x80" * side_px) * side_px)
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", rows) + block(b"IEND", b"")
