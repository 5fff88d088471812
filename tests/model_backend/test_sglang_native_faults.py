"""The native client and a server that aborts, refuses, counts otherwise, or speaks another protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.model_backend.served import sending
from keyeloop.runtime.errors import BackendError, ContextOverflow
from tests.model_backend.loopback_server import Play, Received, event, failed
from tests.model_backend.native_replies import events, generated, native_server, spoken
from tests.model_backend.test_sglang_native import THOUGHT, reply_to


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "FIRST_PAUSE_S", 0.01)


async def test_a_server_that_lays_pictures_out_in_its_own_way(tmp_path: Path) -> None:
    def play(request: Received) -> Play:
        return generated(THOUGHT, len(request.json["input_ids"]) + 7)

    with native_server(play) as server, pytest.raises(BackendError, match=r"read \d+ tokens where \d+ were sent"):
        await reply_to(server, tmp_path)


ABORT = {"type": "abort", "message": "out of memory", "status_code": 503}


def aborted(request: Received, kept: int = 0) -> Play:
    ids, prompt = spoken(THOUGHT), len(request.json["input_ids"])
    meta = {"finish_reason": ABORT, "prompt_tokens": prompt, "completion_tokens": kept}
    pieces = [*events(ids, prompt)[:kept], event({"output_ids": ids[: kept * 3], "meta_info": meta}), event("[DONE]")]
    return Play(pieces=tuple(pieces))


async def test_an_abort_before_the_first_token_is_tried_again(tmp_path: Path) -> None:
    def play(request: Received) -> Play:
        return aborted(request) if len(server.received) < 3 else generated(THOUGHT, len(request.json["input_ids"]))

    with native_server(play) as server:
        assert (await reply_to(server, tmp_path)).message.text == "4 boards"
    assert len(server.received) == 3


async def test_an_abort_in_the_middle_is_final(tmp_path: Path) -> None:
    with (
        native_server(lambda request: aborted(request, 1)) as server,
        pytest.raises(BackendError, match="out of memory; the reply had begun, so it was not asked again"),
    ):
        await reply_to(server, tmp_path)
    assert len(server.received) == 1


LONG = "The input (9000 tokens) is longer than the model's context length (8192 tokens)."


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_request_that_is_too_long(streamed: bool, tmp_path: Path) -> None:
    error = {"error": {"message": LONG, "type": "invalid_request_error", "code": 400}}
    play = Play(pieces=(event(error), event("[DONE]"))) if streamed else failed(400, LONG)
    with native_server(lambda _: play) as server, pytest.raises(ContextOverflow, match="too long"):
        await reply_to(server, tmp_path)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    "babble",
    [
        b"data: {not json}\n\n",
        b"data: [1]\n\n",
        b'data: {"output_ids": ["x"], "meta_info": {}}\n\n',
        b'data: {"output_ids": [5], "meta_info": {"completion_tokens": 1, "output_token_logprobs": 3}}\n\n',
        b'data: {"output_ids": [999999], "meta_info": {"completion_tokens": 1}}\n\n',
        b"data: \xff\n\n",
    ],
)
async def test_what_sglang_does_not_send(babble: bytes, tmp_path: Path) -> None:
    with (
        native_server(lambda _: Play(pieces=(babble,))) as server,
        pytest.raises(BackendError, match=r"sent|drew token 999999.*sglang://host:port#FOLDER"),
    ):
        await reply_to(server, tmp_path)
    assert len(server.received) == 1
