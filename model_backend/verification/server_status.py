"""What a server with our plugin says of itself at ``/server_info``: whether sparse attention runs, and with what."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from keyeloop.model_backend.openai_chat.address import Address
from keyeloop.model_backend.served.failures import Refused
from keyeloop.model_backend.served.sending import Sender, Timeouts
from keyeloop.model_backend.verification.finding import Finding, judged
from keyeloop.model_backend.verification.known import Known

INFO = "/server_info"
FIELD = "keyeloop"
BACKEND = "model_backend/sglang/plugin/backend.py"
CONFIG = "model_backend/sglang/plugin/config.py"
SOURCE = "what the running server reads from its own objects"


async def server_status(address: Address, key: str | None) -> Mapping[str, Any] | None:
    """Our plugin's part of the status; None where the server has none. BackendError where no server answers."""
    base = address.base.removesuffix("/v1")
    sender = Sender(base, key, Timeouts(read_s=60.0, total_s=120.0), 2, loopback=address.loopback)
    try:
        told = json.loads(await sender.get(INFO))
    except Refused as error:
        if error.status in (401, 403):
            raise
        return None
    except ValueError:
        return None
    finally:
        await sender.close()
    states = told.get("internal_states") if isinstance(told, Mapping) else None
    first = states[0] if isinstance(states, list) and states else {}
    found = first.get(FIELD) if isinstance(first, Mapping) else None
    return found if isinstance(found, Mapping) else None


def check_status(status: Mapping[str, Any] | None, known: Known | None) -> Iterator[Finding]:
    """Whether the sparse path is on, and whether its rope and indexer are those of the model."""
    expected = "sparse attention in every layer, keys chosen by the indexer"
    if status is None:
        yield judged("sparse-live", None, None, expected=expected, source=SOURCE, change=BACKEND,
                     found=f"{INFO} has no field {FIELD}: not served with our plugin")  # fmt: skip
        return
    on = status.get("sparse") is True
    topk = None if known is None else known.config.indexer.topk
    found = f"top {status.get('topk')} keys, indexer {status.get('indexer')}, kernels {status.get('kernels')}"
    yield judged("sparse-live", None, on and topk in (None, status.get("topk")), expected=expected, source=SOURCE,
                 found=found if on else "attention is dense", change=BACKEND)  # fmt: skip
    if known is not None:
        wanted = {"rope_theta": known.config.rope_theta, "mrope_section": list(known.config.mrope_section)}
        told = {name: status.get(name) for name in wanted}
        yield judged("rope-live", None, told == wanted, expected=_listed(wanted), found=_listed(told), source=SOURCE,
                     change=CONFIG)  # fmt: skip


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
