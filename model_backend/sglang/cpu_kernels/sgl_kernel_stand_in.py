"""keyeloop's stand-in for the package ``sgl_kernel``: enough for SGLang to start on a CPU, no kernel of its own.

SGLang imports ``sgl_kernel`` on every platform, yet the published ``sglang-kernel`` wheels hold CUDA libraries only.
Here every name exists and raises NotImplementedError when it is called, so that a path that would need a kernel fails
loudly. Serving Keye through keyeloop's plugin calls none of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

__version__ = "0.0.0+keyeloop.cpu.stand.in"


def _missing(name: str) -> Callable[..., NoReturn]:
    def kernel(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: keyeloop's CPU stand-in holds no kernels; run this on a GPU")

    return kernel


def __getattr__(name: str) -> Callable[..., NoReturn]:
    if name.startswith("__"):
        raise AttributeError(name)
    return _missing(name)
