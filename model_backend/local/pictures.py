"""Pictures to features, each encoded once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import Tensor

from keyeloop.model_backend.keye.model import KeyeModel
from keyeloop.model_backend.keye.tokenizer import Placed
from keyeloop.runtime.content import MediaRef
from keyeloop.runtime.errors import BackendError
from keyeloop.runtime.media import MediaStore

PICTURES_AT_ONCE = 8
KEPT_TOKENS = 65_536
"""Picture tokens whose features are kept; the longest unused go first."""


class PictureEncoder:
    """Runs the vision tower and projector, and keeps what they gave by the sha256 of the picture."""

    def __init__(self, model: KeyeModel) -> None:
        self._model = model
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._kept_tokens = 0

    def features(self, pictures: Sequence[Placed], media: MediaStore, check: Callable[[], None]) -> list[Tensor]:
        """Features [tokens, hidden] of each picture. ``check`` is called between batches and may raise to stop."""
        found = {sha256: self._kept[sha256] for sha256 in self._names(pictures) if sha256 in self._kept}
        missing = {placed.image.media.sha256: placed.image.media for placed in pictures}
        names = [sha256 for sha256 in missing if sha256 not in found]
        for first in range(0, len(names), PICTURES_AT_ONCE):
            check()
            batch = names[first : first + PICTURES_AT_ONCE]
            pixels = [media.pixels(missing[sha256]) for sha256 in batch]
            for sha256, array in zip(batch, pixels, strict=True):
                self._check_size(missing[sha256], array.shape[1], array.shape[0])
            found.update(zip(batch, self._model.encode_pictures(pixels), strict=True))
        self._keep(found)
        return [found[sha256] for sha256 in self._names(pictures)]

    def _keep(self, found: dict[str, Tensor]) -> None:
        for sha256, features in found.items():
            if sha256 not in self._kept:
                self._kept[sha256] = features
                self._kept_tokens += features.shape[0]
            self._kept.move_to_end(sha256)
        while self._kept_tokens > KEPT_TOKENS:
            _, dropped = self._kept.popitem(last=False)
            self._kept_tokens -= dropped.shape[0]

    @staticmethod
    def _names(pictures: Sequence[Placed]) -> list[str]:
        return [placed.image.media.sha256 for placed in pictures]

    @staticmethod
    def _check_size(ref: MediaRef, width: int, height: int) -> None:
        if (width, height) != (ref.width, ref.height):
            raise BackendError(
                f"picture {ref.sha256[:12]} is {width}x{height} pixels, its reference says {ref.width}x{ref.height}: "
                "take references from the media store that holds the picture"
            )
