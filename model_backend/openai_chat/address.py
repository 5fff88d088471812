"""``http://host:port/v1#name``: where a model is served, and under which name."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from keyeloop.runtime.errors import InputError

SCHEMES = ("http", "https")
FORM = "http://host:port/v1#name"


@dataclass(frozen=True)
class Address:
    """A served model. ``str()`` gives the form that :func:`parse_address` reads."""

    base: str
    """Such as ``http://127.0.0.1:8000/v1``, without a slash at its end."""
    name: str | None
    """None until the server is asked what it serves."""
    loopback: bool
    """The server is on this machine; no proxy is asked."""

    def __str__(self) -> str:
        return f"{self.base}#{self.name or ''}"


def is_address(model: str) -> bool:
    """Whether a model's name is an address: whatever begins with a scheme, so that a mistyped one is told."""
    return "://" in model


def parse_address(text: str) -> Address:
    """Read an address. Without a path ``/v1`` is meant.

    Raises InputError, one line with the cure, for another scheme, no host, a bad port, a query, or a user and password
    (which are not repeated).
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"model address cannot be read ({error}): write {FORM}") from None
    if parts.username is not None or parts.password is not None:
        raise InputError(f"model address holds a user or password: write {FORM} and set KEYELOOP_API_KEY")
    if parts.query:
        raise InputError(f"model address holds a query after '?': write {FORM} and set KEYELOOP_API_KEY for a key")
    if parts.scheme.lower() not in SCHEMES:
        raise InputError(f"model address {text!r} begins with {parts.scheme}://: write {FORM}")
    if not host or any(char.isspace() or not char.isprintable() for char in text):
        raise InputError(f"model address {text!r} {'holds white space' if host else 'names no host'}: write {FORM}")
    place = f"[{host}]" if ":" in host else host
    path = parts.path.rstrip("/") or "/v1"
    base = f"{parts.scheme.lower()}://{place}{'' if port is None else f':{port}'}{path}"
    return Address(base, parts.fragment or None, _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
