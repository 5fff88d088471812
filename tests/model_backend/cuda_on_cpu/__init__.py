"""The kernels in CUDA C++ as a library for the host: their text, on :file:`machine.h`."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import Any

from torch import Tensor

from keyeloop.model_backend.kernels.cuda import compiled

MACHINE = Path(__file__).with_name("machine.h")
ASSEMBLY = re.compile(r'asm(?: volatile)?\("fence.*?\);|asm\("max.NaN.*?\);', re.DOTALL)
POSITIVE = "part = dot != dot ? dot : dot > 0 ? dot : 0;"
PRIMITIVES = ("u32 shared_address(", "void copy_16(", "void copy_4(", "void copies_end(", "void copies_wait(",
              "void multiply(", "void held(", "void begin_product(", "void products_wait(",
              "void group_waits(")  # fmt: skip


def built(files: str, name: str, folder: Path, **macros: int) -> Any:
    """``name`` of ``files`` as a function of its grid's sides, its threads, then what it is given."""
    text = "".join((compiled.HERE / file).read_text(encoding="utf-8") for file in files.split())
    for primitive in PRIMITIVES:  # a definition ends with a brace on its last line's margin, or on its only line
        text = re.sub(
            rf"(?:^template <[^\n]*>\n)?^__device__ __forceinline__ {re.escape(primitive)}(?:[^\n]*\}}\n|.*?^\}}\n)",
            "", text, flags=re.DOTALL | re.MULTILINE,
        )  # fmt: skip
    text = re.sub(r"#define FENCE asm[^\n]*", "#define FENCE", text)
    text = ASSEMBLY.sub(lambda found: POSITIVE if "max.NaN" in found[0] else "", text)
    text = re.sub(r"extern __shared__ (.*?) room\[\];", r"alignas(1024) static \1 room[65536];", text)
    assert "asm" not in text
    given = re.search(rf"{name}\((.*?)\) \{{", text, re.DOTALL)
    assert given is not None
    names = ", ".join(re.findall(r"(\w+)(?:,|$)", given[1].strip()))
    kernel = f'extern "C" void run(int columns, int rows_, int threads, {given[1]}) {{\n' + (
        f"launch(columns, rows_, threads, [=] {{ {name}({names}); }});\n}}\n"
    )
    file, library = folder / f"{name}.cpp", folder / f"{name}-{abs(hash(frozenset(macros.items())))}.so"
    file.write_text(f'#include "{MACHINE}"\n{text}\n{kernel}', encoding="utf-8")
    options = ["-O1", "-std=c++17", "-shared", "-fPIC", "-pthread", "-w", *(f"-D{k}={v}" for k, v in macros.items())]
    made = subprocess.run(["g++", *options, str(file), "-o", str(library)], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[:3000]
    run = ctypes.CDLL(str(library)).run

    def call(grid: tuple[int, int], threads: int, *values: Tensor | int) -> None:
        run(*grid, threads, *(ctypes.c_void_p(x.data_ptr()) if isinstance(x, Tensor) else x for x in values))

    return call
