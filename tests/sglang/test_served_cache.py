"""The radix cache keeps what was read, index keys included, and never takes one picture for another."""

from __future__ import annotations

import pytest
import torch

from keyeloop.runtime.content import Message, Text
from tests.sglang.prompts import Painter, Prompt, Reference, long_text
from tests.sglang.served import Served

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]
BOUND = 1e-3


def test_every_turn_finds_the_turns_before_it_in_the_cache(
    served: Served, reference: Reference, painter: Painter
) -> None:
    served.forget()
    prompt = painter.lay_out([Message("system", (Text(long_text(3)),)), Message("user", (Text("Look at it."),))])
    read = 0
    for turn in range(4):
        reply = served.generate(prompt, 6)
        assert reply.cached_tokens >= read - 1, f"turn {turn}"  # the last token of a reply is read with the next turn
        assert reply.ids == reference.greedy(prompt, 6), f"turn {turn}"
        read = len(prompt.ids) + len(reply.ids)
        seen = painter.ask("The board:", painter.clip([40 + 2 * turn, 41 + 2 * turn], 10.0 * turn))
        prompt = behind(prompt, reply.ids, seen)
    assert len(prompt.ids) > 4 * 90


def test_a_cached_prefix_changes_no_distribution(served: Served, reference: Reference, painter: Painter) -> None:
    served.forget()
    first = painter.ask(painter.clip([50, 51, 52]), long_text(5))
    served.generate(first, 4)
    longer = behind(first, [], painter.ask(painter.picture(53), "again"))
    reply = served.generate(longer, 1, return_logprob=True, token_ids_logprob=list(range(reference.vocabulary)))
    assert reply.cached_tokens >= len(first.ids)
    found = torch.tensor([entry[0] for entry in reply.meta["output_token_ids_logprobs"][0]])
    assert (found - reference.distributions(longer)[-1]).abs().max().item() < BOUND


@pytest.mark.parametrize("kind", ("picture", "clip"))
def test_two_pictures_in_the_same_place_share_nothing(
    kind: str, served: Served, reference: Reference, painter: Painter
) -> None:
    served.forget()
    one, other = (
        painter.ask("This:", painter.picture(seed) if kind == "picture" else painter.clip([60, seed]), "What is it?")
        for seed in (61, 62)
    )
    assert one.ids == other.ids
    served.generate(one, 4)
    reply = served.generate(other, 4)
    assert reply.cached_tokens <= other.pictures[-1].start
    assert reply.ids == reference.greedy(other, 4)
    again = served.generate(one, 4)
    assert again.cached_tokens == len(one.ids) - 1
    assert again.ids == reference.greedy(one, 4)


def behind(prompt: Prompt, reply: list[int], more: Prompt) -> Prompt:
    """A conversation that goes on: what was read, the reply, and a further turn."""
    ids = [*prompt.ids, *reply]
    shifted = tuple(placed._replace(start=placed.start + len(ids)) for placed in more.pictures)
    return Prompt([*ids, *more.ids], (*prompt.pictures, *shifted), (*prompt.media, *more.media))
