"""What bounds the scoring kernel in CUDA C++: its time without its products, its sums or its stores, and the clock."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from unittest.mock import patch

import torch
from index_case import IndexCase
from scoring_rows import attempted, spelled
from timing import DEVICE

from keyeloop.model_backend.kernels.cuda import compiled, scoring
from keyeloop.model_backend.kernels.cuda.scoring import Walk

PRODUCT = "    multiply<{0}>(d, keys{1}, queries{1});\n"
SUM = "for (int i = 0; i < HEADS; i++) {"
STORE = "__stcs((float2*)to, sum[g]);"
LESS: dict[str, tuple[tuple[str, str], ...]] = {
    "whole": (),
    "no products": ((PRODUCT.format(0, ""), ""), (PRODUCT.format(1, " + 2"), "")),
    "one head's sums": ((SUM, SUM.replace("HEADS", "1")),),
    "no stores": ((STORE, "if (sum[g].x == 1e30f) " + STORE),),
    "no products, no stores": ((PRODUCT.format(0, ""), ""), (PRODUCT.format(1, " + 2"), ""),
                               (STORE, "if (sum[g].x == 1e30f) " + STORE)),
    "one head's sums, no stores": ((SUM, SUM.replace("HEADS", "1")), (STORE, "if (sum[g].x == 1e30f) " + STORE)),
}  # fmt: skip


def rows(case: IndexCase, walks: tuple[Walk, ...]) -> Iterator[dict[str, object]]:
    """One row a part that is left out; results are wrong then, and not looked at."""
    out = torch.empty(len(case.q), case.context, device=DEVICE)
    for walk in walks:
        for name, changes in LESS.items():
            source = b"".join((compiled.HERE / file).read_bytes() for file in ("hopper.cu", "scoring.cu")).decode()
            for old, new in changes:
                assert old in source, old
                source = source.replace(old, new)
            defined = {"STEP": 1, "MARK": 0, "TILES": walk.tiles, "STAGES": walk.stages, "LESS": walk.less}
            macros = tuple((defined | {"FENCED": int(walk.fenced)}).items())
            kernel = compiled.loaded(source.encode(), "score_keys", torch.cuda.current_device(), macros)
            with patch.object(compiled, "kernel", lambda *_, k=kernel: k):
                taken = attempted(
                    lambda w=walk: scoring.score(*case.given, out, width=case.context, walk=w), lambda: None
                )  # type: ignore[misc]
                clock = clock_said(lambda w=walk: scoring.score(*case.given, out, width=case.context, walk=w))  # type: ignore[misc]
            yield {"kernel": "what bounds scoring", "variant": f"{spelled(walk)}: {name}"} | taken | {"clock": clock}


def clock_said(work: object) -> str:
    """Clock in MHz and power in W while ``work`` runs for about half a second."""
    tool = shutil.which("nvidia-smi")
    if tool is None or not callable(work):
        return "unknown"
    for _ in range(300):
        work()
    ask = [tool, "--query-gpu=clocks.sm,power.draw", "--format=csv,noheader"]
    said = subprocess.run(ask, capture_output=True, text=True).stdout.strip()
    torch.cuda.synchronize()
    return said
