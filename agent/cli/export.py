"""``keyeloop export``: recorded runs in the forms that other programs read."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyeloop.agent.exporting.pictures import ExportedPictures
    from keyeloop.runtime.trajectory import Trajectory


class Form(StrEnum):
    """What a run may become."""

    ATIF = "atif"
    MESSAGES = "messages"
    TOKENS = "tokens"
    OTEL = "otel"


_OR_SEND = ", or a collector, as --endpoint URL or in OTEL_EXPORTER_OTLP_ENDPOINT"


def export(
    form: Annotated[Form, typer.Argument(help="ATIF 1.8, chat messages, token rows, or OpenTelemetry spans.")],
    run: Annotated[list[Path], typer.Argument(help="Runs: folders, or names below the folder of runs.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where to; pictures go to images beside it.")
    ] = None,
    inline: Annotated[bool, typer.Option("--inline", help="Write pictures into the file, as data URLs.")] = False,
    tool_images: Annotated[
        bool, typer.Option("--tool-images", help="messages: leave a tool's pictures in its own turn.")
    ] = False,
    content: Annotated[bool, typer.Option("--content", help="otel: the texts too.")] = False,
    endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="otel: send to a collector (OTLP over HTTP) in place of a file; OTEL_EXPORTER_OTLP_ENDPOINT names one "
            "too.",
        ),
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Where runs are kept (default: runs).")] = None,
) -> int:
    """Write runs as ATIF documents, as chat messages or token rows for training, or as OpenTelemetry spans.

    ATIF takes one run; the others write a line for each run, row or span.
    """
    from keyeloop.agent.cli.show import read_run
    from keyeloop.agent.exporting.pictures import ExportedPictures
    from keyeloop.runtime.config import load_config
    from keyeloop.runtime.errors import InputError

    below = load_config({"runs": runs}).runs
    read = [read_run(one, below) for one in run]
    if endpoint is not None and (form is not Form.OTEL or out is not None):
        raise InputError("--endpoint is for otel, in place of --out")
    if form is Form.OTEL and out is None:
        from keyeloop.agent.exporting.sending import endpoint_in_environment, send_spans

        collector = endpoint or endpoint_in_environment()
        if collector is not None:
            print(f"{send_spans(read, endpoint, content=content)} spans sent to {collector}")
            return 0
    if out is None:
        raise InputError("name the file to write, as --out FILE" + _OR_SEND * (form is Form.OTEL))
    if form is Form.ATIF and len(read) > 1:
        raise InputError("an ATIF document holds one run: name one, or export them one by one")
    out.parent.mkdir(parents=True, exist_ok=True)
    lines = _lines(form, read, ExportedPictures(None if inline else out.parent), tool_images, content)
    out.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    print(f"{out}: {len(lines)} {'document' if form is Form.ATIF else 'lines'}, {out.stat().st_size / 1e6:.2f} MB")
    return 0


def _lines(
    form: Form, read: list[Trajectory], pictures: ExportedPictures, tool_images: bool, content: bool
) -> list[str]:
    from keyeloop.agent.exporting.atif import atif_document
    from keyeloop.agent.exporting.chat import chat_record
    from keyeloop.agent.exporting.tokens import token_rows

    if form is Form.ATIF:
        return [json.dumps(atif_document(read[0], pictures), ensure_ascii=False, indent=1)]
    if form is Form.MESSAGES:
        records = [chat_record(run, pictures, place="tool" if tool_images else "user") for run in read]
        return [json.dumps(record, ensure_ascii=False) for record in records]
    if form is Form.TOKENS:
        return [json.dumps(row, ensure_ascii=False) for run in read for row in token_rows(run, pictures)]
    from keyeloop.agent.exporting.sending import spans_as_json

    return spans_as_json(read, content=content)
