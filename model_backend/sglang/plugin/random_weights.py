"""``--load-format dummy`` for Keye: random weights of proper size, made on the device, and named as such.

SGLang's own dummy weights are nearly zero: every logit is alike, and nothing computed with them says anything. The
seed is ``KEYELOOP_RANDOM_WEIGHTS``, 0 by default; the server's status says ``random, seed 0`` where a checkpoint's
would say ``checkpoint``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from keyeloop.runtime.errors import ConfigError

SEED = "KEYELOOP_RANDOM_WEIGHTS"
DUMMY = "sglang.srt.model_loader.weight_utils.initialize_dummy_weights"


def fill_randomly(original: Callable[..., Any], model: Any, *args: Any, **kwargs: Any) -> Any:
    """Instead of SGLang's: :func:`keye.random_weights.random_tensors`, by the way that a checkpoint takes."""
    if not hasattr(model, "keye") or not hasattr(model, "weights_from"):
        return original(model, *args, **kwargs)
    from keyeloop.model_backend.keye.random_weights import random_tensors

    seed = seed_of(os.environ.get(SEED, "0"))
    place = model.mlp_AR.linear_1.weight
    model.load_weights(random_tensors(model.keye, seed, device=place.device, dtype=place.dtype))
    model.weights_from = f"random, seed {seed}"
    return None


def seed_of(text: str) -> int:
    """The seed that a setting names. Raises ConfigError for what is no whole number."""
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{SEED}={text!r}: must be a whole number, the seed of random weights") from None
