"""All that a checkpoint's small files tell, as findings."""

from __future__ import annotations

from pathlib import Path

from keyeloop.model_backend.verification.chat_template import check_template
from keyeloop.model_backend.verification.checkpoint import Checkpoint
from keyeloop.model_backend.verification.configuration import check_configuration, check_readable
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import Known, recognise
from keyeloop.model_backend.verification.pictures import check_pictures
from keyeloop.model_backend.verification.tensors import check_tensors
from keyeloop.model_backend.verification.tokens import check_tokens


def check_checkpoint(folder: Path) -> tuple[Known | None, tuple[Finding, ...]]:
    """The model that ``folder`` seems to hold, and what was found, in the order of the points.

    Headers of weight files are read where they are; everything else are small files. Nothing of the checkpoint runs.
    Raises InputError where there is no config.json.
    """
    checkpoint = Checkpoint(folder)
    known = recognise(checkpoint.config)
    made = [
        *check_configuration(checkpoint, known),
        *check_tokens(checkpoint, known),
        *check_template(checkpoint, known),
        *check_pictures(checkpoint, known),
        *check_tensors(checkpoint, known),
    ]
    made += check_readable(checkpoint, tuple(made))
    if known is None or known.own_code:
        made.append(_union_buffer())
    return known, tuple(sorted(made, key=lambda one: one.point or 99))


def _union_buffer() -> Finding:
    """Stands in no checkpoint, and our kernels need none."""
    return judged("union-buffer", 9, None, expected="not needed: our kernels have none",
                  found="in no file of a checkpoint; nothing of ours depends on it",
                  source="Kwai-Keye/EffectiveKernels, whose source was not read",
                  change="model_backend/kernels/ops.py")  # fmt: skip
