"""Text in pictures by rapidocr, whose wheel brings its models (PP-OCRv6, ONNX): nothing is ever fetched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from keyeloop.runtime.errors import OperatorError
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.perception.extras import require_extra
from keyeloop.tools.perception.text_reader import TextLine

MAX_THREADS = 4


class RapidReader:
    """A TextReader of the extra ``ocr``: printed Latin and Chinese text. Its models are loaded at the first picture."""

    def __init__(self) -> None:
        """Raises ConfigError where the extra is not installed."""
        require_extra("ocr", "read_text", "rapidocr", "onnxruntime")
        self._engine: Any = None
        self._turn = threading.Lock()

    def read(self, pixels: Pixels) -> Iterator[TextLine]:
        """The lines of text in an RGB picture, with boxes around what may be slanted."""
        with self._turn:
            if self._engine is None:
                self._engine = _engine()
            found = self._engine(np.ascontiguousarray(pixels[:, :, ::-1]))
        if found.txts is None or found.boxes is None:
            return
        for text, corners, confidence in zip(found.txts, found.boxes, found.scores, strict=True):
            (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
            yield TextLine(str(text), (float(x0), float(y0), float(x1), float(y1)), float(confidence))


def _engine() -> Any:
    """The library with the models of its wheel named one by one: of a model without a path it would fetch one."""
    from rapidocr import RapidOCR

    threads = min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    wheel = find_spec("rapidocr")
    assert wheel is not None and wheel.origin is not None, "it was imported"
    models = Path(wheel.origin).parent / "models"
    return RapidOCR(
        params={
            "Global.log_level": "critical",
            "EngineConfig.onnxruntime.intra_op_num_threads": threads,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
            **{f"{part}.model_path": _model(models, f"*_{part.lower()}_*.onnx") for part in ("Det", "Cls", "Rec")},
        }
    )


def _model(folder: Path, pattern: str) -> str:
    found = sorted(folder.glob(pattern))
    if not found:
        raise OperatorError(
            f"the installed rapidocr has no model {pattern} in {folder}: pip install --force-reinstall rapidocr"
        )
    return str(found[0])
