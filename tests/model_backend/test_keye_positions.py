"""Rope positions: the published trace, and the rules of text, stills and frames."""

from __future__ import annotations

import pytest
import torch

from keyeloop.model_backend.keye.positions import rope_positions
from keyeloop.runtime.errors import InputError

IMAGE, VIDEO = 900, 901
PADS = (IMAGE, VIDEO)


def test_published_trace() -> None:
    frame = [VIDEO] * 60
    ids = list(range(19)) + frame + list(range(4)) + frame + list(range(5))
    positions, delta = rope_positions(ids, [(1, 12, 20), (1, 12, 20)], PADS)
    assert len(ids) == 148 and delta == -100
    for axis in range(3):
        assert positions[axis, :19].tolist() == list(range(19))
        assert positions[axis, 79:83].tolist() == [29, 30, 31, 32]
        assert positions[axis, 143:].tolist() == [43, 44, 45, 46, 47]
    for start, base in ((19, 19), (83, 33)):
        block = positions[:, start : start + 60]
        assert set(block[0].tolist()) == {base}
        assert block[1].tolist() == [base + row for row in range(6) for _ in range(10)]
        assert block[2].tolist() == [base + column for _ in range(6) for column in range(10)]


def test_text_only_counts() -> None:
    positions, delta = rope_positions(list(range(7)), [], PADS)
    assert positions.tolist() == [list(range(7))] * 3 and delta == 0


def test_frame_advances_by_its_longer_side() -> None:
    ids = [1, *[VIDEO] * 252, 2]
    positions, delta = rope_positions(ids, [(1, 24, 42)], PADS)
    assert positions[:, -1].tolist() == [22, 22, 22]
    assert len(ids) + delta == 23


def test_several_frames_in_one_grid_advance_in_time() -> None:
    positions, _ = rope_positions([IMAGE] * 12 + [5], [(3, 4, 4)], PADS)
    assert positions[0, :12].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert positions[:, 12].tolist() == [3, 3, 3]


def test_pictures_may_touch_and_start_may_be_later() -> None:
    ids = [IMAGE] * 2 + [VIDEO] * 4 + [7]
    positions, delta = rope_positions(ids, [(1, 2, 4), (1, 4, 4)], PADS, start=10)
    assert positions[2].tolist() == [10, 11, 12, 13, 12, 13, 14]
    assert len(ids) + delta == 15


def test_split_prompt_continues() -> None:
    ids = [1, 2, *[IMAGE] * 6, 3, 4, *[IMAGE] * 4, 5]
    whole, delta = rope_positions(ids, [(1, 4, 6), (1, 4, 4)], PADS)
    head, head_delta = rope_positions(ids[:9], [(1, 4, 6)], PADS)
    tail, tail_delta = rope_positions(ids[9:], [(1, 4, 4)], PADS, start=9 + head_delta)
    assert torch.equal(torch.cat((head, tail), 1), whole)
    assert len(ids) + delta == len(ids[9:]) + tail_delta


@pytest.mark.parametrize(
    "ids", [[1, IMAGE], [IMAGE, IMAGE, 1, IMAGE, IMAGE], [IMAGE] * 5, [IMAGE, VIDEO, IMAGE, IMAGE]]
)
def test_disagreement_is_an_error(ids: list[int]) -> None:
    with pytest.raises(InputError, match="picture"):
        rope_positions(ids, [(1, 4, 4)], PADS)
