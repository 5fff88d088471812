"""Tools of other people's making, and requests to call them: any name, any parameters, values from the request."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from keyeloop.runtime.content import ToolSpec
from keyeloop.tools.demo_video.words import number, word

VERBS = (
    "file store save record mail push register note archive report add post enter book mark track print announce"
).split()
"""All of them take ``-ed``."""
THINGS = "number value reading entry figure item result note record text word answer score mark code".split()
PLACES = (
    "shelf folder list ledger box channel room table group drawer page label name key topic account team queue".split()
)
COUNTS = "priority count level copies row index page rank".split()
VALUE_NAMES = "number value reading entry figure item result n x amount text word answer content what".split()


@dataclass(frozen=True)
class NamedCall:
    """A tool, the request that calls it with a reading, and what the call must be."""

    spec: ToolSpec
    ask: str
    """The request, with ``{what}`` where the reading and its time go."""
    value_name: str
    value_type: str
    """``integer``, ``number`` or ``string``: how the reading is passed."""
    others: dict[str, Any]
    """The other arguments, all named in the request."""
    reply: str
    """What the tool answers, with ``{value}`` for the reading."""

    def arguments(self, reading: str) -> dict[str, Any]:
        """The right arguments, in the order of the schema."""
        value: Any = int(reading) if self.value_type in ("integer", "number") else reading
        found = {self.value_name: value, **self.others}
        return {name: found[name] for name in self.spec.parameters["properties"]}


def sample_call(rng: random.Random, *, numeric: bool) -> NamedCall:
    """Draw a tool and a request; ``numeric`` when the reading is a number."""
    verb, thing, place = rng.choice(VERBS), rng.choice(THINGS), rng.choice(PLACES)
    name = _name(rng, verb, thing)
    value_type = rng.choice(("integer", "integer", "integer", "number", "string")) if numeric else "string"
    value_name = rng.choice((thing, *rng.choices(VALUE_NAMES, k=2)))
    properties: dict[str, Any] = {value_name: {"type": value_type}}
    others, said = _others(rng, properties, place)
    if rng.random() < 0.25:
        properties = dict(rng.sample(sorted(properties.items()), len(properties)))
    if rng.random() < 0.25:
        for key, schema in properties.items():
            schema["description"] = f"The {key}." if key == value_name else rng.choice((f"The {key}.", f"Which {key}."))
    required = [key for key, schema in properties.items() if "default" not in schema]
    spec = ToolSpec(
        name, _description(rng, verb, thing, place), {"type": "object", "properties": properties, "required": required}
    )
    return NamedCall(spec, _ask(rng, name, verb, said), value_name, value_type, others, _reply(rng, verb, said))


def sample_distractor(rng: random.Random) -> ToolSpec:
    """A tool that the request does not need."""
    return sample_call(rng, numeric=rng.random() < 0.7).spec


def _name(rng: random.Random, verb: str, thing: str) -> str:
    random_part = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 7)))
    return rng.choice(
        (f"{verb}_{thing}", f"{verb}_{thing}", f"{verb}_{thing}", f"{verb}_the_{thing}", f"{thing}_{verb}",
         f"{verb}{thing.title()}", verb, f"{verb}_{random_part}", f"{random_part}_{rng.randrange(100)}", f"my_{verb}")
    )  # fmt: skip


def _others(rng: random.Random, properties: dict[str, Any], place: str) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    others: dict[str, Any] = {}
    said: list[tuple[str, str]] = []
    for _ in range(rng.choice((0, 1, 1, 1, 2))):
        if rng.random() < 0.7:
            key = rng.choice((place, *rng.choices(PLACES, k=1)))
            value: Any = _label(rng)
            schema: dict[str, Any] = {"type": "string"}
        else:
            key, value, schema = rng.choice(COUNTS), rng.randrange(1, 100), {"type": "integer"}
        if key in properties:
            continue
        properties[key] = schema
        others[key] = value
        said.append((key, str(value)))
    return others, said


def _label(rng: random.Random) -> str:
    text = word(rng)
    return rng.choice(
        (text, text, text.lower(), f"{text}-{rng.randrange(10)}", f"{text} {word(rng).lower()}", text[0].upper())
    )


def _description(rng: random.Random, verb: str, thing: str, place: str) -> str:
    verb = verb.title()
    return rng.choice(
        (f"{verb} a {thing}.", f"{verb} a {thing} under a {place}.", f"{verb} the {thing} in a {place}.",
         f"{verb} something.", f"{verb} a {thing} for later.", f"{verb} a {thing} and confirm.", f"{verb}s a {thing}.",
         f"{verb} what was read.", "")
    )  # fmt: skip


def _ask(rng: random.Random, name: str, verb: str, said: list[tuple[str, str]]) -> str:
    ways = [_way(rng, key, value) for key, value in said]
    tail = rng.choice((" ", ", ")).join(ways[:1]) + "".join(
        f"{rng.choice((' and ', ', ', ' '))}{way}" for way in ways[1:]
    )
    tail = f" {tail}" if tail else ""
    return rng.choice(
        (f"{verb.title()} {{what}}{tail}.", f"{verb.title()} {{what}}{tail} with {name}.",
         f"Use {name} on {{what}}{tail}.",
         f"Call {name} with {{what}}{tail}.", f"Please {verb} {{what}}{tail}", f"Read {{what}} and {verb} it{tail}.",
         f"Read {{what}}, then call {name}{tail}.")
    )  # fmt: skip


def _way(rng: random.Random, key: str, value: str) -> str:
    quoted = rng.choice((value, f'"{value}"', f"'{value}'"))
    return rng.choice(
        (f"under {quoted}", f"with {key} {quoted}", f"{key} {quoted}", f"{key}: {quoted}", f"{key}={value}",
         f"under the {key} {quoted}", f"in {key} {quoted}", f"as {key} {quoted}", f"on {key} {quoted}")
    )  # fmt: skip


def _reply(rng: random.Random, verb: str, said: list[tuple[str, str]]) -> str:
    past = verb + ("d" if verb.endswith("e") else "ed")
    where = f" {said[0][0]} {said[0][1]}" if said else ""
    return rng.choice(
        (f"{past} {{value}}{where}", f"{past} {{value}} under{where}", "ok", "done", past, f"{past} {{value}}",
         f"stored as #{rng.randrange(10000)}", f'{{{{"id": {rng.randrange(1000)}}}}}', f"{past} on{where}",
         f"{rng.choice(VERBS)} {number(rng)} ok")
    )  # fmt: skip
