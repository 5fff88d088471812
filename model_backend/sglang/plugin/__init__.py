"""The SGLang plugin: ``register``, its entry point (group ``sglang.srt.plugins``), is called in each server process.

SGLang logs a plugin's failure and goes on, so nothing here is trusted to have happened: the model and the attention
backend check what they find when they are built, and end the server otherwise. Imports of SGLang are inside functions
or in modules that only SGLang imports.
"""

from __future__ import annotations

import os

MODELS = f"{__name__}.models"
PROCESSORS = f"{__name__}.processors"
ARCHITECTURE = "KeyeVL2MoeForConditionalGeneration"


def register() -> None:
    """Tell SGLang of Keye: configuration, model, processor, attention backend, key/value pool, defaults and status.

    Raises ConfigError where another plugin holds a place that SGLang has only one of.
    """
    from keyeloop.model_backend.sglang.plugin import hooks
    from keyeloop.model_backend.sglang.plugin.config import register_config
    from keyeloop.model_backend.sglang.plugin.media import register_media

    _claim("SGLANG_EXTERNAL_MODEL_PACKAGE", MODELS)
    _claim("SGLANG_EXTERNAL_MM_PROCESSOR_PACKAGE", PROCESSORS)
    _claim("SGLANG_EXTERNAL_MM_MODEL_ARCH", ARCHITECTURE)
    register_config()
    hooks.register_hooks()
    register_media()


def _claim(variable: str, value: str) -> None:
    from keyeloop.runtime.errors import ConfigError

    held = os.environ.setdefault(variable, value)
    if held != value:
        raise ConfigError(f"{variable} is {held!r}: SGLang takes one only, and keyeloop needs {value!r}; unset it")
