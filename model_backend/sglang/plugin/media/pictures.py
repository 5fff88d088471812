"""From names to pictures: read where it is allowed, decoded once to be sure of them, and kept for the next turn."""

from __future__ import annotations

import hashlib
import os
import threading
from base64 import b64decode
from binascii import Error as Base64Error
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from keyeloop.model_backend.keye.cost import VisionLimits
from keyeloop.model_backend.sglang.plugin.media.asked import Asked, Budget
from keyeloop.model_backend.sglang.plugin.media.fitting import Size, clip_fit, still_fit
from keyeloop.model_backend.sglang.plugin.media.shown import Shown, ShownClip
from keyeloop.model_backend.sglang.plugin.media.store import STORE_VARIABLE, ReferencedStore
from keyeloop.model_backend.sglang.wire import REFERENCE, ClipFrame, read_clip, referenced
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import Pixels, decode_picture

KEPT_BYTES = 1 << 30
"""Picture files that are kept between requests; the longest unused go first."""
_VALUE = "data:image/"
Result = TypeVar("Result")


class PictureLoader:
    """Loads what requests name, and nothing else: data URIs, and references inside one media store."""

    def __init__(self, limits: VisionLimits, store: ReferencedStore | None, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._limits, self._store = limits, store
        self._threads = ThreadPoolExecutor(min(32, os.cpu_count() or 1), thread_name_prefix="keyeloop-pictures")
        self._kept: OrderedDict[tuple[str, Budget | Size, str], Shown] = OrderedDict()
        self._kept_bytes = kept_bytes
        self.held_bytes = 0
        """Of the files that are kept."""
        self._lock = threading.Lock()

    def load(self, stills: Iterable[Asked], clips: Iterable[Asked]) -> tuple[tuple[Shown, ...], tuple[ShownClip, ...]]:
        """All pictures and clips of a request, in order. InputError, naming the picture, for one that cannot be."""
        waiting = [self._threads.submit(self._still, asked) for asked in stills]
        shown = tuple(self._clip(asked, number) for number, asked in enumerate(clips, 1))
        return tuple(_named(f"picture {number}", one.result) for number, one in enumerate(waiting, 1)), shown

    def close(self) -> None:
        """Forget all pictures and end the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._kept.clear()

    def _still(self, asked: Asked) -> Shown:
        return self._shown(asked.url, asked.budget, "image")

    def _clip(self, asked: Asked, number: int) -> ShownClip:
        frames = read_clip(asked.url)

        def first() -> Size:
            return _size(decode_picture(self._bytes(frames[0].url)))

        size = _named(f"frame 1 of clip {number}", first)
        fit = clip_fit([frame.time_s for frame in frames], size, asked.budget, self._limits, videos=asked.videos)
        chosen = [(index + 1, frames[index]) for index in fit.indices]

        def one(place: int, frame: ClipFrame) -> Shown:
            return _named(f"frame {place} of clip {number}", lambda: self._shown(frame.url, fit.size, "frame", size))

        shown = tuple(self._threads.map(lambda pair: one(*pair), chosen))
        return ShownClip(shown, tuple(frame.time_s for _, frame in chosen))

    def _shown(
        self, url: str, fit: Budget | Size, kind: Literal["image", "frame"], source: Size | None = None
    ) -> Shown:
        data = b"" if url.startswith(REFERENCE) else self._bytes(url)
        digest = hashlib.sha256(data).hexdigest() if data else referenced(url)
        key = (digest, fit, kind)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data = data or self._bytes(url)
        size = _size(decode_picture(data))
        if source is not None and size != source:
            raise InputError(f"{size.width}x{size.height} pixels, where the clip's first is "
                             f"{source.width}x{source.height}: frames of a clip have one size")  # fmt: skip
        target = fit if isinstance(fit, Size) else still_fit(size, fit, self._limits)
        resampled = "" if target == size else kind
        told = f"keyeloop picture {digest} {target.width}x{target.height} {resampled}"
        return self._keep(key, Shown(data, target, kind, hashlib.sha256(told.encode()).digest()))

    def _keep(self, key: tuple[str, Budget | Size, str], shown: Shown) -> Shown:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = shown
                self.held_bytes += len(shown.data)
            while self.held_bytes > self._kept_bytes and self._kept:
                self.held_bytes -= len(self._kept.popitem(last=False)[1].data)
        return shown

    def _bytes(self, url: str) -> bytes:
        if url.startswith(REFERENCE):
            if self._store is None:
                raise InputError(f"this server has no media store: send it by value, or start it with {STORE_VARIABLE}")
            return self._store.read(url)
        return value_of(url)


def value_of(url: str) -> bytes:
    """The bytes of a ``data:image/...;base64,`` URI. InputError for every other address, which is never opened."""
    head, comma, body = url.partition(",")
    if not url.startswith(_VALUE) or not comma or not head.endswith(";base64"):
        raise InputError(f"{url[:60]!r} is refused: this server opens no path and no address; send pictures as "
                         f"{_VALUE}...;base64, or {REFERENCE}sha256 from its media store")  # fmt: skip
    try:
        return b64decode(body, validate=True)
    except (Base64Error, ValueError):
        raise InputError("a data URI is not sound base64") from None


def _size(pixels: Pixels) -> Size:
    return Size(pixels.shape[1], pixels.shape[0])


def _named(name: str, made: Callable[[], Result]) -> Result:
    try:
        return made()
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
