"""A model that is loaded when a run first needs it, once, whoever comes first."""

from __future__ import annotations

import os
import threading

from keyeloop.agent.counting import Counting, counting_model, planning_model
from keyeloop.agent.models import ModelLike, check_model, configured_model, load_model, model_name
from keyeloop.model_backend.base import ModelBackend
from keyeloop.model_backend.openai_chat.address import is_address
from keyeloop.runtime.config import Config


class Loading:
    """The way from a model's name, and what settings say of its server, to its backend; a backend is its own."""

    def __init__(self, model: ModelLike | None, settings: Config) -> None:
        """``model`` left out is that of the settings. Raises InputError for what can be no model."""
        named = settings.model if model is None else model
        check_model(named)
        self._given: ModelBackend | None = None
        if isinstance(named, str | os.PathLike):
            settings = settings.model_copy(update={"model": os.fspath(named)})
        else:
            self._given = named
        self._settings = settings
        self._backend: ModelBackend | None = None
        self._unasked: ModelBackend | None = None
        """Loaded; what it can do is not known yet."""
        self._lock = threading.Lock()

    @property
    def name(self) -> str | None:
        """The name under which it can be loaded again; None for a backend, and where its capabilities tell it."""
        return None if self._given is not None else model_name(self._settings.model)

    def load(self) -> ModelBackend:
        """The backend, its capabilities known: this may load weights or ask a server, so call it in a thread.

        Raises as :func:`load_model` does, and what the backend's capabilities raise; the next call tries again.
        """
        with self._lock:
            if self._backend is not None:
                return self._backend
            backend = self._unasked = self._unasked or self._given or load_model(configured_model(self._settings))
        backend.capabilities()  # may ask a server: outside the lock, and many runs at once
        with self._lock:
            if self._unasked is backend:
                self._backend, self._unasked = backend, None
        return backend

    def counting(self) -> Counting:
        """Who counts a request that is only planned; this may ask a server what it says of itself."""
        return self._backend or counting_model(self._given or planning_model(self._settings))

    def pictures_note(self, counter: Counting) -> str:
        """What a plan by ``counter`` has to say of pictures at a server, at which it tries nothing out."""
        if self._backend is not None or self._given is not None or not is_address(self._settings.model):
            return ""
        if self._settings.pictures == "omit":
            return "pictures are left out (pictures = omit): the model reads their addresses and sees nothing"
        if self._settings.pictures is None and not counter.capabilities().native_video:
            return "whether this server takes pictures was not tried: a run tries that first"
        return ""

    async def close(self) -> None:
        """Free the model, if it was loaded here; idempotent."""
        backend, self._backend, self._unasked = self._backend or self._unasked, None, None
        if backend is not None and backend is not self._given:
            await backend.close()
