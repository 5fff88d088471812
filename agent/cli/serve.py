"""``keyeloop serve``: Keye-VL-2.0 behind an OpenAI-compatible address, on stock SGLang with keyeloop's plugin."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from keyeloop.model_backend.sglang.serve.launch import Running
    from keyeloop.model_backend.sglang.serve.plan import Plan

EVERY_S = 15.0
"""Between lines of progress where there is no terminal."""


def serve(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="keye-tiny, a checkpoint's folder, keye-vl-2.0-30b-a3b, or owner/name on the hub.")
    ],
    device: Annotated[str, typer.Option(help="auto, cuda, or cpu (for keye-tiny, in tests).")] = "auto",
    quantization: Annotated[str, typer.Option(help="none, or fp8: made from the weights at load.")] = "none",
    tensor_parallel: Annotated[int, typer.Option(help="GPUs to split the model over: 1, 2 or 4.", min=1)] = 1,
    context_length: Annotated[
        int | None, typer.Option(help="Tokens of one request (default: the most that fits).", min=1)
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen; other machines reach only other addresses.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    indexer: Annotated[str, typer.Option(help="How index keys are kept: exact, or fp8 (smaller).")] = "exact",
    memory_share: Annotated[float, typer.Option(help="Part of the free memory for weights and caches.")] = 0.85,
    picture_cache: Annotated[
        int | None, typer.Option(help="MiB for picture embeddings (default: the longest video and a quarter).", min=0)
    ] = None,
    media_store: Annotated[
        Path | None, typer.Option(help="A folder that clients here share with the server: pictures go there once.")
    ] = None,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Holds the key to ask for (default: KEYELOOP_API_KEY, else one that is made).")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model of the hub.")] = None,
    python: Annotated[str, typer.Option(help="The Python whose SGLang serves (default: this one).")] = sys.executable,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print everything; start nothing.")] = False,
) -> int:
    """Serve Keye-VL-2.0 here. What stands after -- goes to SGLang as it is."""
    from keyeloop.agent.cli import exit_code
    from keyeloop.agent.models import needs_local

    with needs_local("planning a server"):
        from keyeloop.model_backend.sglang.serve.command import writing_config_file
        from keyeloop.model_backend.sglang.serve.launch import Stopped, running
        from keyeloop.model_backend.sglang.serve.plan import make_plan
        from keyeloop.model_backend.sglang.serve.settings import read_settings
    settings = read_settings(
        model=model, device=device, quantization=quantization, tensor_parallel=tensor_parallel,
        context_tokens=context_length, host=host, port=port, index=indexer, memory_share=memory_share,
        picture_cache_mib=picture_cache, media_store=media_store, key_file=api_key_file, revision=revision,
        python=python, extra=tuple(context.args),
    )  # fmt: skip
    plan = make_plan(settings, os.environ)
    tell_plan(plan)
    if dry_run:
        if plan.command is not None:
            _say("by hand", f"a start writes {plan.config_file}, which holds the key, and takes it away again; to run "
                            f"the command yourself, first: {writing_config_file(plan.config_file)}")  # fmt: skip
        for problem in plan.problems:
            _say("stands in the way", str(problem))
        print("nothing was started" if plan.problems else "ready to start; nothing was started")
        return exit_code(plan.problems[0]) if plan.problems else 0
    for problem in plan.problems[1:]:
        _say("also in the way", str(problem))
    sys.stdout.flush()
    try:
        with _progress() as progress, running(plan, os.environ, progress) as server:
            progress(0.0, "")
            tell_ready(server)
            server.wait()
    except Stopped as stopped:
        print(f"stopped ({stopped})", flush=True)
        return 128 + stopped.number
    return 0


def tell_plan(plan: Plan) -> None:
    """What was found, what fits, and the exact command."""
    found, room = plan.checkpoint, plan.room
    hub = None if found is None else found.on_hub
    if found is None:
        _say("model", f"{plan.settings.model}: unknown here")
    else:
        where = found.folder or (f"{hub.repository} at {hub.commit[:12]}" if hub else "not looked up")
        _say("model", f"{found.name}, {found.description.parameters:,} parameters, {where}")
    if hub is not None:
        _say("download", f"{hub.missing_bytes / 1e9:,.1f} of {hub.size_bytes / 1e9:,.1f} GB")
    if plan.installed is not None and plan.installed.sglang is not None:
        have = plan.installed
        _say("versions", f"sglang {have.sglang}, torch {have.torch}, transformers {have.transformers}, "
                         f"Python {have.python}")  # fmt: skip
    if plan.device == "cuda":
        for gpu in plan.gpus[: plan.settings.tensor_parallel]:
            _say("GPU", f"{gpu.name}, {gpu.free_bytes / 1e9:,.1f} of {gpu.total_bytes / 1e9:,.1f} GB free")
    else:
        _say("CPU", "for tests: float32, no kernels of its own")
    if room is not None:
        each = " on each GPU" if plan.settings.tensor_parallel > 1 else ""
        _say("memory", f"{room.usable_bytes / 1e9:,.2f} GB to use{each}: weights {room.need.weights / 1e9:,.2f} GB, "
                       f"pictures {room.need.pictures / 1e9:,.2f} GB, a token {room.need.token:,} bytes "
                       f"(index keys {plan.settings.index})")  # fmt: skip
        _say(
            "fits", f"{room.largest_context:,} tokens of context; {room.cache_tokens:,} of cache, all requests together"
        )
        _say("context", f"{room.context_tokens:,} tokens")
    for remark in plan.remarks:
        _say("note", remark)
    if plan.command is not None:
        _say("command", plan.command.shell())
    sys.stdout.flush()


def tell_ready(running: Running) -> None:
    """Where it serves and how to ask it."""
    plan, sparse = running.plan, running.sparse
    print(f"ready after {running.ready_after_s:,.0f} s: sparse attention is on (index keys {sparse.indexer}, "
          f"{sparse.kernels} kernels)")  # fmt: skip
    if plan.settings.media_store is not None:
        print(f"  pictures of clients on this machine go through {plan.settings.media_store}, once each")
    if running.key_file is not None:
        print(f'  export KEYELOOP_API_KEY="$(cat {shlex.quote(running.key_file)})"')
    print(f'  keyeloop run "What happens?" --video VIDEO --model {plan.url}/v1')
    print(f"  log: {plan.log}; Ctrl-C stops it", flush=True)


def _say(what: str, text: str) -> None:
    from keyeloop.agent.wording import clean

    print(f"{what:<9} {clean(' '.join(text.split()))}")


@contextmanager
def _progress() -> Iterator[Callable[[float, str], None]]:
    """Tells how long it takes and the server's last line: in one place of a terminal, else now and then."""
    from rich.console import Console
    from rich.text import Text

    from keyeloop.agent.wording import clean

    console = Console()
    if not console.is_terminal:
        told_s = 0.0

        def now_and_then(waited_s: float, line: str) -> None:
            nonlocal told_s
            if line and waited_s - told_s >= EVERY_S:
                told_s = waited_s
                print(f"{waited_s:5.0f} s  {clean(line)[:160]}", flush=True)

        yield now_and_then
        return
    status = console.status("")

    def in_place(waited_s: float, line: str) -> None:
        if not line:
            status.stop()
            return
        status.start()
        status.update(Text(f"{waited_s:.0f} s  {clean(line)}"[: console.width - 4]))

    try:
        yield in_place
    finally:
        status.stop()
