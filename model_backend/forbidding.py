"""The switch that keeps tests from asking a real model: every backend that asks one looks here first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from keyeloop.runtime.errors import ModelRequestForbidden

VARIABLE = "FORBID_KEYELOOP_MODEL_REQUESTS"
"""Set while requests are forbidden; in the environment, so that programs which a test starts are held to it too."""


@contextmanager
def forbid_model_requests() -> Iterator[None]:
    """Within this block no real model is asked, by any thread or child process: ModelRequestForbidden instead.

    Scripted and replayed models answer as ever. For a whole test suite, yield inside the block from an automatic
    fixture; as a decorator it guards one function that is not async.
    """
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


def require_requests_allowed(model: str) -> None:
    """Raise ModelRequestForbidden where requests are forbidden. First thing in ``generate`` of a real backend."""
    if os.environ.get(VARIABLE):
        raise ModelRequestForbidden(
            f"a request to {model} was about to be made where model requests are forbidden: give the agent a scripted "
            "model (keyeloop.testing.ScriptedBackend), or leave forbid_model_requests() for this test"
        )
