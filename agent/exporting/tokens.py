"""A run as rows of tokens, for training: the very ids that were served and drawn, with what to learn from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from keyeloop.agent.exporting.pictures import ExportedPictures
from keyeloop.runtime.content import images_of
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.trajectory import Exchange, Step, Trajectory

Row = dict[str, Any]


def token_rows(run: Trajectory, pictures: ExportedPictures) -> list[Row]:
    """Rows of a run's tokens: one a question, and another one wherever a request did not begin with the one before.

    ``ids`` are prompt and replies in a row, ``loss_mask`` is 1 on what the model drew, ``logprobs`` are 0.0 elsewhere.
    Each of ``requests`` tells where it lies: ``ids[:prompt_tokens]`` is what the server read for that turn, the
    ``output_tokens`` behind it are what it drew. ``images`` are the pictures of the last request, in the order of the
    prompt. Raises InputError for a run whose tokens are not known.
    """
    rows: list[Row] = []
    for exchange in run.exchanges:
        rows += _of_question(run, exchange, pictures)
    if not rows:
        raise InputError(
            f"the run in {run.folder} records no tokens: they are known where a model is asked as sglang://host:port"
        )
    return rows


def _of_question(run: Trajectory, exchange: Exchange, pictures: ExportedPictures) -> list[Row]:
    rows: list[Row] = []
    sequence: tuple[int, ...] = ()
    last: Step | None = None
    for step in exchange.steps:
        tokens = step.reply.tokens if step.reply is not None else None
        if tokens is None:
            if rows and last is not None:
                rows[-1]["images"] = _images(run, last, pictures)
            sequence, last = (), None
            continue
        goes_on = last is not None and tokens.kept == len(sequence)
        if not goes_on:
            if rows and last is not None:
                rows[-1]["images"] = _images(run, last, pictures)
            rows.append(_begun(run, exchange, sequence[: tokens.kept]))
        sequence = tokens.sequence(sequence)
        row = rows[-1]
        _extend(row, tokens.prompt_ids, mask=0, logprobs=(0.0,) * len(tokens.prompt_ids))
        row["requests"].append({"turn": step.turn, "prompt_tokens": len(row["ids"]), "output_tokens": len(tokens.ids)})
        _extend(row, tokens.ids, mask=1, logprobs=tokens.logprobs)
        last = step
    if rows and last is not None:
        rows[-1]["images"] = _images(run, last, pictures)
    return rows


def _begun(run: Trajectory, exchange: Exchange, kept: tuple[int, ...]) -> Row:
    return {
        "run_id": run.start.run_id,
        "question": exchange.number,
        "model": exchange.asked.model,
        "ids": list(kept),
        "loss_mask": [0] * len(kept),
        "logprobs": [0.0] * len(kept),
        "requests": [],
        "images": [],
    }


def _extend(row: Row, ids: tuple[int, ...], *, mask: int, logprobs: tuple[float, ...]) -> None:
    row["ids"] += ids
    row["loss_mask"] += [mask] * len(ids)
    row["logprobs"] += logprobs


def _images(run: Trajectory, step: Step, pictures: ExportedPictures) -> list[Row]:
    """The pictures that the request of this step held."""
    assert step.request is not None
    before = run.events[: run.events.index(step.request)]
    made: list[Row] = []
    for place, message in enumerate(Trajectory(run.folder, before).messages()):
        for part in message.parts:
            for image in images_of(part):
                view = None if image.view is None else asdict(image.view)
                path = pictures.name(image.media, run.media)
                made.append({"path": path, "message": place, **asdict(image.media), "view": view})
    return made


def prompts_of(row: Row) -> list[list[int]]:
    """What the server read for each request of a row."""
    return [row["ids"][: request["prompt_tokens"]] for request in row["requests"]]


def outputs_of(row: Row) -> list[list[int]]:
    """What the model drew for each request of a row."""
    made = []
    for request in row["requests"]:
        begin = request["prompt_tokens"]
        made.append(row["ids"][begin : begin + request["output_tokens"]])
    return made
