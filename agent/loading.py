"""A model that is loaded when a run first needs it, once, whoever comes first."""

from __future__ import annotations

import threading

from keyeloop.agent.models import ModelLike, load_model
from keyeloop.model_backend.base import ModelBackend


class Loading:
    """The way from a model's name to its backend; a backend is its own."""

    def __init__(self, model: ModelLike) -> None:
        self._model = model
        self._backend: ModelBackend | None = None
        self._unasked: ModelBackend | None = None
        """Loaded; what it can do is not known yet."""
        self._lock = threading.Lock()

    @property
    def loaded(self) -> ModelBackend | None:
        """The backend, once it has told what it can do."""
        return self._backend

    def load(self) -> ModelBackend:
        """The backend, its capabilities known: this may load weights or ask a server, so call it in a thread.

        Raises as :func:`load_model` does, and what the backend's capabilities raise; the next call tries again.
        """
        with self._lock:
            if self._backend is not None:
                return self._backend
            backend = self._unasked = self._unasked or load_model(self._model)
        backend.capabilities()  # may ask a server: outside the lock, and many runs at once
        with self._lock:
            if self._unasked is backend:
                self._backend, self._unasked = backend, None
        return backend

    async def close(self) -> None:
        """Free the model, if it was loaded here; idempotent."""
        backend, self._backend, self._unasked = self._backend or self._unasked, None, None
        if backend is not None and backend is not self._model:
            await backend.close()
