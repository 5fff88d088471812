"""Text in pictures by rapidocr, whose wheel brings its models (PP-OCRv6, ONNX): nothing is ever fetched."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from keyeloop.runtime.errors import OperatorError
from keyeloop.runtime.picture import Pixels
from keyeloop.tools.perception.extras import require_extra
from keyeloop.tools.perception.text_reader import TextLine

MAX_THREADS = 4
LARGE_SHORT_PX, LARGE_LONG_PX = 736, 2_400
"""Of the large reading: the shorter side is at least the one, unless the longer then is more than the other."""
SMALL_LONG_PX = 640
LEAST_PX = 32
"""A picture that is lower than this is one line of text at most: it is read once."""


class RapidReader:
    """A TextReader of the extra ``ocr``: printed Latin and Chinese text. Its models are loaded at the first picture.

    A picture is read twice, large and small: small print is found in the one, letters as large as the picture in the
    other. What both find counts once.
    """

    def __init__(self) -> None:
        """Raises ConfigError where the extra is not installed."""
        require_extra("ocr", "read_text", "rapidocr", "onnxruntime")
        self._engine: Any = None
        self._turn = threading.Lock()

    def read(self, pixels: Pixels) -> Iterator[TextLine]:
        """The lines of text in an RGB picture, from its top down, with boxes around what may be slanted."""
        sides = pixels.shape[:2]
        large = min(max(1.0, LARGE_SHORT_PX / min(sides)), LARGE_LONG_PX / max(sides))
        with self._turn:
            if self._engine is None:
                self._engine = _engine()
            lines = self._lines(pixels, large)
            if min(sides) * large > LEAST_PX:
                found = self._lines(pixels, SMALL_LONG_PX / max(sides))
                lines += [line for line in found if not any(_overlap(line, other) for other in lines)]
        yield from sorted(lines, key=lambda line: line.box[1])

    def _lines(self, pixels: Pixels, scale: float) -> list[TextLine]:
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
        found = self._engine(np.ascontiguousarray(resized[:, :, ::-1]))
        if found.txts is None or found.boxes is None:
            return []
        lines = []
        for text, corners, confidence in zip(found.txts, found.boxes, found.scores, strict=True):
            (x0, y0), (x1, y1) = corners.min(axis=0) / scale, corners.max(axis=0) / scale
            lines.append(TextLine(str(text), (float(x0), float(y0), float(x1), float(y1)), float(confidence)))
        return lines


def _overlap(one: TextLine, other: TextLine) -> bool:
    """Whether a tenth of the smaller of two lines lies in the other."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = one.box, other.box
    both = max(0.0, min(ax1, bx1) - max(ax0, bx0)) * max(0.0, min(ay1, by1) - max(ay0, by0))
    return both > 0.1 * min((ax1 - ax0) * (ay1 - ay0), (bx1 - bx0) * (by1 - by0))


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
            "Global.max_side_len": LARGE_LONG_PX,
            "Det.limit_type": "max",
            "Det.limit_side_len": LARGE_LONG_PX,
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
