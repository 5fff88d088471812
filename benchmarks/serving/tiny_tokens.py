"""keye-tiny's greedy tokens from a server on a GPU, held against those of the torch reference on a CPU.

    python benchmarks/serving/tiny_tokens.py --make          # on a CPU: writes tiny_tokens.json beside this file
    python benchmarks/serving/tiny_tokens.py --out OUT       # on a GPU: serves keye-tiny and compares

The prompts are those of real runs of the agent on the bundled video (frames, tool calls and results included) up to
each of its turns, so they need neither a video decoder nor an agent to be asked again. Every expected token comes with
its lead over the second best; where a server's token differs, that lead says whether rounding explains it. Each case
is asked a second time with its calls held to their tools' schemas, which must change nothing that the model says
rightly by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import torch
from record import Record, Row, show
from servers import Serving, serving

from keyeloop.model_backend.base import Capabilities, Delta, ModelBackend, Reply, Request
from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.model_backend.keye.tokenizer import KeyeTokenizer
from keyeloop.model_backend.keye.weights import load_folder
from keyeloop.model_backend.local.folder import EMBEDDED_MODEL, model_folder
from keyeloop.model_backend.sglang.native.holding import structural_tag
from keyeloop.model_backend.sglang.native.naming import PictureNames
from keyeloop.model_backend.sglang.native.prompt import NativePrompts
from keyeloop.runtime.content import Usage
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.source import hash_file

EXPECTED = Path(__file__).with_name("tiny_tokens.json")
NEW_TOKENS = 80
"""At most: an expected reply ends with its turn."""
QUESTIONS = 3
"""Of the bundled video, one of each family that comes first."""
DTYPES = ("bfloat16", "float32")


class Keeping:
    """A backend that keeps every request that passes it."""

    def __init__(self, inner: ModelBackend) -> None:
        self._inner = inner
        self.kept: list[tuple[Request, MediaStore]] = []

    def capabilities(self) -> Capabilities:
        """The inner one's."""
        return self._inner.capabilities()

    def count_tokens(self, request: Request) -> Usage:
        """The inner one's."""
        return self._inner.count_tokens(request)

    async def generate(
        self, request: Request, media: MediaStore, on_delta: Callable[[Delta], None] | None = None
    ) -> Reply:
        """The inner one's answer."""
        self.kept.append((request, media))
        return await self._inner.generate(request, media, on_delta)

    async def close(self) -> None:
        """Closes the inner one."""
        await self._inner.close()


def make() -> None:
    """Run the agent, lay its requests out, and compute what follows them in float32."""
    import tempfile

    import keyeloop.tools.demo_video as home
    from keyeloop.agent.agent import Agent
    from keyeloop.model_backend.local.engine import LocalBackend

    video = Path(home.__file__).parent / "board.mp4"
    asked = json.loads(video.with_suffix(".json").read_text(encoding="utf-8"))
    first = {one["family"]: one["question"] for one in reversed(asked)}
    folder = model_folder(EMBEDDED_MODEL)
    model, tokenizer = load_folder(folder), KeyeTokenizer(folder / "tokenizer.json")
    prompts, names, cases = NativePrompts(tokenizer), PictureNames(None), []
    with tempfile.TemporaryDirectory() as runs:
        backend = Keeping(LocalBackend.load(folder))
        agent = Agent(backend, runs=runs)
        for family, question in list(first.items())[:QUESTIONS]:
            before = len(backend.kept)
            agent.run_sync(question, video=video)
            for turn, (request, media) in enumerate(backend.kept[before:], 1):
                prompt = prompts.build(request)
                body: dict[str, Any] = {"input_ids": list(prompt.ids)}
                if prompt.stills:
                    body["image_data"] = [json.loads(names.still(one, media)) for one in prompt.stills]
                if prompt.clips:
                    body["video_data"] = [json.loads(names.clip(one, media)) for one in prompt.clips]
                pictures = [media.pixels(one) for one in in_order(request)]
                tokens, leads = greedy(model, list(prompt.ids), pictures, tokenizer.id_of("<|im_end|>"))
                case = {"name": f"{family}, turn {turn}", "body": body, "tokens": tokens, "leads": leads}
                case["tag"] = structural_tag(request.tools) if request.tools else None
                cases.append(case)
                print(f"{case['name']}: {len(prompt.ids)} tokens, {len(pictures)} pictures, least lead "
                      f"{min(leads):.3f}: {tokenizer.decode(tokens)!r}")  # fmt: skip
        asyncio.run(agent.close())
    EXPECTED.write_text(json.dumps({"weights": weights(), "cases": cases}) + "\n", encoding="utf-8")
    print(f"{EXPECTED}: {EXPECTED.stat().st_size / 1e3:.0f} kB")


def weights() -> str:
    """Which weights of keye-tiny these are: the sha256 of their file."""
    return hash_file(next(model_folder(EMBEDDED_MODEL).glob("*.safetensors")))


def in_order(request: Request) -> list[Any]:
    """Pictures of a request as they stand in its prompt, frames of clips among them."""
    from keyeloop.model_backend.keye.template import Picture, render

    return [chunk.image.media for chunk in render(request.messages, request.tools) if isinstance(chunk, Picture)]


@torch.inference_mode()
def greedy(model: KeyeModel, ids: list[int], pictures: list[Any], end: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens after a prompt, each read anew with all before it, and their leads over the second best."""
    features = model.encode_pictures(pictures)
    grids = [(1, picture.shape[0] // 14, picture.shape[1] // 14) for picture in pictures]
    found: list[int] = []
    leads: list[float] = []
    for _ in range(NEW_TOKENS):
        whole = [*ids, *found]
        positions, _ = rope_positions(whole, grids, model.config.tokens.pictures)
        logits = model(model.embed(whole, features), positions)
        best = torch.log_softmax(logits[-1], -1).topk(2)
        found.append(int(best.indices[0]))
        leads.append(round(float(best.values[0] - best.values[1]), 4))
        if found[-1] == end:
            break
    return found, leads


def compare(server: Serving, cases: list[dict[str, Any]]) -> list[Row]:
    """Every case alone and cold, free and with its calls held."""
    rows: list[Row] = []
    for case in cases:
        expected = case["tokens"]
        row: Row = {"case": case["name"], "tokens": len(expected)}
        same = row["equal"] = agreeing(server, case, None)
        row["held"] = agreeing(server, case, case["tag"])
        row["lead where they part"] = "" if same == len(expected) else case["leads"][same]
        rows.append(row)
    return rows


def agreeing(server: Serving, case: dict[str, Any], tag: str | None) -> int:
    """How many tokens from the first on are the expected ones; with ``tag`` calls are held to it."""
    server.forget()
    body = dict(case["body"])
    told = server.ask(body.pop("input_ids"), len(case["tokens"]), tag=tag, **body)
    found, expected = told["output_ids"], case["tokens"]
    shared = min(len(found), len(expected))
    return next((n for n in range(shared) if found[n] != expected[n]), shared)


def main() -> int:
    """Make, or serve and compare; 1 where a token differs."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--make", action="store_true")
    options.add_argument("--out", type=Path, default=Path("out"))
    options.add_argument("--seconds", type=float, default=180)
    options.add_argument("--dtypes", nargs="*", choices=DTYPES, default=["bfloat16"])
    options.add_argument("--name", default="tiny_tokens")
    options.add_argument("--flags", default="", help="more flags for SGLang, such as '--tp-size 2'")
    options.add_argument("--cpu", action="store_true")
    given = options.parse_args()
    if given.make:
        make()
        return 0
    record = Record(given.out / f"{given.name}.json", given.seconds, flags=given.flags)
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))
    if expected["weights"] != weights():
        raise SystemExit(f"{EXPECTED} is of other weights than those of keye-tiny now: run this with --make on a CPU")
    cases = expected["cases"]
    good = True
    for dtype in given.dtypes:
        flags = ["--context-length", "32768", "--max-total-tokens", "40000", "--cuda-graph-max-bs-decode", "2",
                 "--dtype", dtype, *given.flags.split()]  # fmt: skip
        log = given.out / f"{given.name}-{dtype}.log"
        try:
            with serving(
                "keye", model_folder(EMBEDDED_MODEL), record, log, flags=flags, dummy=False, cpu=given.cpu
            ) as up:
                rows = compare(up, cases)
                record.put(dtype, {"rows": rows, "keyeloop": up.info().get("keyeloop")})
        except (BackendError, httpx.HTTPError) as error:
            record.put(dtype, {"error": str(error)})
            record.say(f"{dtype}: {error}")
            good = False
            continue
        show(f"greedy tokens equal to the CPU's in float32, served in {dtype}", rows)
        good &= all(row["equal"] == row["held"] == row["tokens"] for row in rows)
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
