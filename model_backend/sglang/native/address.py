"""``sglang://host:port#name``: an SGLang server that is asked in token ids, and whose tokenizer to use."""

from __future__ import annotations

from keyeloop.model_backend.openai_chat.address import Address, parse_address

SCHEMES = {"sglang": "http", "sglang+https": "https"}
FORM = "sglang://host:port#name"


def is_native(model: str) -> bool:
    """Whether a model's name is an address of this kind."""
    return model.split("://", 1)[0].lower() in SCHEMES and "://" in model


def parse_native(text: str) -> Address:
    """Read an address; ``sglang+https`` is for a server behind TLS. InputError, one line with the cure, for a bad one.

    The name is ``keye-tiny`` or the folder of a checkpoint, of which ``config.json`` and ``tokenizer.json`` are read.
    """
    return parse_address(text, schemes=SCHEMES, form=FORM, path="")
