"""Served by SGLang, the model computes what it computes in torch: text, pictures, clips, alone and together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from keyeloop.runtime.media import MediaStore
from tests.sglang.prompts import Painter, Prompt, Reference, long_text
from tests.sglang.served import CHUNK, Served

pytestmark = [pytest.mark.sglang, pytest.mark.timeout(600)]
BOUND = 1e-3
"""Holds where no query's last key and the next one score alike to rounding: of a thousand tokens one usually does."""
QUESTION = "What number stands on the board?"


def prompt_of(kind: str, painter: Painter) -> Prompt:
    return {
        "few tokens": lambda: painter.ask(QUESTION),
        "text": lambda: painter.ask(long_text(2)[:230], QUESTION),
        "picture": lambda: painter.ask(painter.picture(1), QUESTION),
        "pictures": lambda: painter.ask(
            painter.picture(2), "and", painter.picture(3, 224, 224), "and then", painter.picture(4, 140, 252), QUESTION
        ),
        "clip": lambda: painter.ask(painter.clip([5, 6, 7, 8, 9, 10, 11]), QUESTION),
        "clips and pictures": lambda: painter.ask(
            painter.clip([12, 13]), "a crop", painter.picture(14, 196, 168), painter.clip([15, 5], 90.5), QUESTION
        ),
    }[kind]()


KINDS = ("few tokens", "text", "picture", "pictures", "clip", "clips and pictures")


@pytest.mark.parametrize("kind", KINDS)
def test_distributions_equal_the_reference(kind: str, served: Served, reference: Reference, painter: Painter) -> None:
    prompt = prompt_of(kind, painter)
    expected = reference.distributions(prompt)
    shaken = max((reference.distributions(prompt, noise=1e-6, seed=n) - expected).abs().max().item() for n in range(3))
    assert shaken < BOUND, "here the reference itself hangs on a near tie of two keys: take other words"
    found = torch.tensor(served.distributions(prompt, reference.vocabulary))
    assert found.shape == expected.shape
    assert (found - expected).abs().max().item() < BOUND


def test_a_prompt_of_these_tests_takes_several_chunks_and_more_places_than_are_chosen(painter: Painter) -> None:
    assert len(prompt_of("clip", painter).ids) > CHUNK > 64


def test_fp8_serves_the_reference_in_fp8(served_fp8: Served, store: MediaStore, painter: Painter) -> None:
    """Equal where nothing is chosen yet; behind that, rounding decides near ties, and one different key moves logits.

    Noise of 1e-7 in the embeddings moves the reference itself by 0.01 on average here: no bound of 1e-3 can hold. The
    step that rounds is held exactly, with equal inputs, in ``test_layers``.
    """
    rounded, exact = Reference("fp8", store), Reference("exact", store)
    prompt = prompt_of("clip", painter)
    found = torch.tensor(served_fp8.distributions(prompt, rounded.vocabulary))
    apart = (found - rounded.distributions(prompt)).abs().amax(-1)
    modes_apart = (found - exact.distributions(prompt)).abs().amax(-1)
    assert apart[:64].max().item() < BOUND
    assert 3 * apart.mean().item() < modes_apart.mean().item()
    assert served_fp8.status()["indexer"] == "fp8"


@pytest.mark.parametrize("kind", ("text", "clips and pictures"))
def test_tensor_parallel_two_equals_the_reference(
    kind: str, served_by_two: Served, reference: Reference, painter: Painter
) -> None:
    prompt = prompt_of(kind, painter)
    found = torch.tensor(served_by_two.distributions(prompt, reference.vocabulary))
    assert (found - reference.distributions(prompt)).abs().max().item() < BOUND
    assert served_by_two.generate(prompt, 12).ids == reference.greedy(prompt, 12)


@pytest.mark.parametrize("kind", ("text", "pictures", "clip"))
def test_greedy_tokens_equal_the_reference(kind: str, served: Served, reference: Reference, painter: Painter) -> None:
    prompt = prompt_of(kind, painter)
    assert served.generate(prompt, 12).ids == reference.greedy(prompt, 12)


def test_ten_requests_at_once_equal_the_same_ten_alone(served: Served, painter: Painter) -> None:
    asked = [
        painter.ask(painter.picture(20 + number), long_text(number)[: 40 * number], QUESTION) for number in range(7)
    ]
    asked += [painter.ask(painter.clip([30, 31, 32 + number])) for number in range(3)]
    alone = []
    for prompt in asked:
        served.forget()
        alone.append(served.generate(prompt, 16).ids)
    served.forget()
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(lambda prompt: served.generate(prompt, 16).ids, asked))
    assert together == alone
