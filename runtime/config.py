"""Settings of a run: an argument wins over the environment (``KEYELOOP_*``), that over ``keyeloop.toml``."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keyeloop.runtime.budget import Limits
from keyeloop.runtime.errors import ConfigError
from keyeloop.runtime.prices import Prices

FILE = "keyeloop.toml"
PREFIX = "KEYELOOP_"
SECRETS = frozenset({"KEYELOOP_API_KEY"})
"""Read from the environment where they are needed, and nowhere else: no settings, so that nothing writes them down."""


class Config(BaseModel):
    """Every setting, checked. The names are those of the file, of arguments and, in capitals, of the environment."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str = "keye-tiny"
    """``keye-tiny``, the folder of a checkpoint, ``http://host:port/v1#name``, ``sglang://host:port#name`` or
    ``replay:RUN``."""
    runs: Path = Path("runs")
    """Folder under which every run gets a folder of its own."""
    documents: Path | None = None
    """Folder of .txt, .md, .html and .pdf files that ``web_search`` looks into."""
    search: str | None = None
    """Who ``web_search`` asks, by name: ``brave,searxng`` the next where one fails, ``brave+exa`` both at once. None
    leaves it to the documents."""
    searxng_url: str | None = None
    """Where the provider ``searxng`` is."""
    search_cache: Literal["on", "any", "only", "off"] = "on"
    """Kept answers of searches and pages: ``on`` young ones are used, ``any`` also old ones, ``only`` nothing else."""
    search_cache_seconds: float = Field(default=86_400.0, ge=0, allow_inf_nan=False)
    """How old an answer may be that is used again."""
    pages: bool | None = None
    """Whether the model gets ``open_page``; None: where ``search`` asks anybody outside."""
    allow_hosts: str | None = None
    """Hosts of this machine or a private network whose pages may be opened: ``localhost:8000,wiki.lan``."""
    turns: int | None = Field(default=24, gt=0)
    tool_calls: int | None = Field(default=64, gt=0)
    total_tokens: int | None = Field(default=None, gt=0)
    visual_tokens: int | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)
    cost: float | None = Field(default=None, gt=0)
    """In the currency of the prices."""
    result_visual_tokens: int | None = Field(default=None, gt=0)
    """Picture tokens that one tool result may add; None leaves it to the model's context."""
    temperature: float = Field(default=0.0, ge=0)
    """0 is greedy."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Above a temperature of 0, only the likeliest tokens that together have this share are drawn from."""
    top_k: int = Field(default=0, ge=0)
    """Above a temperature of 0, only so many of the likeliest tokens are drawn from; 0 is all."""
    max_tokens: int = Field(default=1024, gt=0)
    """Longest reply."""
    seed: int | None = None
    price_input: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Of a million tokens, as the other prices."""
    price_cached: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Left out, cached input costs as much as other input."""
    price_output: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    context_tokens: int | None = Field(default=None, gt=0)
    """What a served model takes, where its server does not say."""
    pictures: Literal["tool", "user", "omit"] | None = None
    """Where a tool's pictures stand in requests to a server; None tries it out."""
    call_form: Literal["native", "text"] | None = None
    """How tool calls travel to a server; None tries it out."""
    connect_seconds: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """How long a server may take to accept a connection."""
    read_seconds: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    """How long a server may send nothing, before a reply's first piece and between two."""
    reply_seconds: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    """How long one reply may take, with all its tries and pauses."""
    on_tool_crash: Literal["end", "continue"] = "end"
    """What an exception of a tool that is no ToolError does: it ends the run, or is told to the model."""
    tries: int = Field(default=5, gt=0)
    """How often a request is sent at most; never again once a reply has begun."""

    @property
    def limits(self) -> Limits:
        """The budget part."""
        return Limits(self.turns, self.tool_calls, self.total_tokens, self.visual_tokens, self.seconds, self.cost)

    @property
    def prices(self) -> Prices | None:
        """None where none are given. ConfigError where only some of them are."""
        given = (self.price_input, self.price_output)
        if self.price_input is not None and self.price_output is not None:
            return Prices(self.price_input, self.price_output, self.price_cached)
        if any(price is not None for price in (*given, self.price_cached)):
            raise ConfigError("prices need both price_input and price_output, each of a million tokens")
        return None


def load_config(
    arguments: Mapping[str, Any] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> Config:
    """Settings from arguments (None means not given), environment and file, in this order of precedence.

    ``environment`` defaults to the process's own, ``file`` to ``keyeloop.toml`` in the working folder, which may be
    missing; a named one must exist. In the environment an empty value or ``none`` stands for no limit. Raises
    ConfigError for an unknown name, with the nearest known one, and for a value that does not fit, with its origin.
    """
    origins: dict[str, str] = {}
    values: dict[str, Any] = {}
    for origin, layer in (
        (str(file or FILE), _from_file(file)),
        ("the environment", _from_environment(os.environ if environment is None else environment)),
        ("an argument", {name: value for name, value in (arguments or {}).items() if value is not None}),
    ):
        for name, value in layer.items():
            if name not in Config.model_fields:
                if isinstance(value, dict):
                    raise ConfigError(f"unknown table [{name}] in {origin}: settings stand at its top, outside tables")
                raise ConfigError(_unknown(name, origin))
            values[name], origins[name] = value, origin
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        shown = _variable(name) if origins[name] == "the environment" else name
        raise ConfigError(f"setting {shown} from {origins[name]} is {first['input']!r}: {first['msg']}") from None


def _from_file(file: Path | None) -> dict[str, Any]:
    path = file or Path(FILE)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if file is None:
            return {}
        raise ConfigError(f"no such settings file: {file}") from None
    except OSError as error:
        raise ConfigError(f"settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"settings file {path} is not TOML: {error}") from None


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        name.removeprefix(PREFIX).lower(): None if value.lower() in ("", "none") else value
        for name, value in environment.items()
        if name.startswith(PREFIX) and name not in SECRETS
    }


def _unknown(name: str, origin: str) -> str:
    def shown(known: str) -> str:
        return _variable(known) if origin == "the environment" else known

    bare = name.removeprefix("max_")  # as the command line says: --max-turns
    near = difflib.get_close_matches(bare, Config.model_fields, n=1, cutoff=0.4)
    hint = f"did you mean {shown(near[0])}?" if near else f"known are {', '.join(map(shown, Config.model_fields))}"
    return f"unknown setting {shown(name)} from {origin}: {hint}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()
