"""The variables of code: a few plain ones and those of the spec, nothing of the host's."""

from __future__ import annotations

import math

from keyeloop.sandbox.spec import SandboxSpec


def plain_environment(spec: SandboxSpec) -> dict[str, str]:
    """What every engine that isolates sets, whatever its Python."""
    threads = str(math.ceil(spec.limits.cpus))
    return {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LOGNAME": "sandbox",
        "MPLBACKEND": "Agg",
        "PYTHONHASHSEED": "0",  # equal code shows sets in equal order, so that a run can be repeated
        "PYTHONSAFEPATH": "1",
        "TMPDIR": "/tmp",
        "USER": "sandbox",
        **dict.fromkeys(("MKL_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        **spec.env,
    }
