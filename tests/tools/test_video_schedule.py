"""Plans of whole videos: within their budget whatever the video, the model and its arithmetic, and evenly spread."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, KeyeVisualCost
from keyeloop.model_backend.scripted import PatchCost
from keyeloop.runtime.visual_cost import VisualCost
from keyeloop.tools.video.schedule import OVERVIEW, WHOLE, Film, Pace, schedule, schedule_all

COSTS: tuple[VisualCost, ...] = (KeyeVisualCost(KEYE_2_LIMITS), KeyeVisualCost(KEYE_TINY_LIMITS), PatchCost())
KEYE, TINY, PATCHES = COSTS
HOUR = Film(3600.0, 25.0, 1280, 720)

films = st.builds(
    Film,
    duration_s=st.floats(0.01, 20_000),
    fps=st.none() | st.floats(0.1, 240) | st.sampled_from([24000 / 1001, 25.0, 30000 / 1001, 60.0]),
    width=st.integers(40, 4096),
    height=st.integers(40, 4096),
)
paces = st.sampled_from([WHOLE, OVERVIEW]) | st.builds(
    Pace, most_frames=st.integers(1, 3000), most_fps=st.floats(0.5, 30), least_fps=st.floats(0.01, 0.5)
)
costs = st.sampled_from(COSTS)
budgets = st.integers(-100, 250_000)


@given(films, paces, budgets, costs, st.integers(0, 40), st.booleans())
def test_a_schedule_keeps_to_its_budget_and_its_video(
    film: Film, pace: Pace, budget: int, cost: VisualCost, text_tokens: int, as_images: bool
) -> None:
    made = schedule(film, pace, budget, cost, text_tokens, as_images=as_images)
    assert made.tokens == len(made.times_s) * (made.each_tokens + text_tokens) <= max(0, budget)
    assert len(made.times_s) <= min(pace.most_frames, film.frames)
    assert all(0 <= time_s < film.duration_s or time_s == 0 for time_s in made.times_s)
    assert all(one < other for one, other in pairwise(made.times_s))
    assert (
        all(one < moment < one + 1 / film.fps for one, moment in zip(made.times_s, made.moments_s, strict=True))
        if (film.fps)
        else made.moments_s == made.times_s
    )
    if made.times_s:
        counted = cost.image(made.size.width, made.size.height).tokens
        assert made.each_tokens == (max(counted, made.size.tokens) if as_images else made.size.tokens)


@given(st.lists(films, min_size=1, max_size=5), paces, budgets, costs, st.integers(0, 40))
def test_several_videos_share_one_budget(
    given_films: list[Film], pace: Pace, budget: int, cost: VisualCost, text_tokens: int
) -> None:
    made = schedule_all(given_films, pace, budget, cost, text_tokens)
    assert len(made) == len(given_films)
    assert sum(one.tokens for one in made) <= max(0, budget)


@given(films, paces, st.integers(1, 200_000), costs, st.integers(0, 40))
def test_a_larger_budget_never_shows_fewer_frames(
    film: Film, pace: Pace, budget: int, cost: VisualCost, text_tokens: int
) -> None:
    one, other = (schedule(film, pace, tokens, cost, text_tokens) for tokens in (budget, 2 * budget))
    assert len(one.times_s) <= len(other.times_s)


def test_an_hour_fills_256k_with_512_large_frames() -> None:
    made = schedule(HOUR, WHOLE, 170_000, KEYE, 25)
    assert (len(made.times_s), made.size.width, made.size.height, made.visual_tokens) == (512, 588, 336, 512 * 252)
    assert made.times_s[0] == 0.0 and made.times_s[-1] == pytest.approx(3600 - 0.04)
    assert made.step_s == pytest.approx(3599.96 / 511)
    gaps = [other - one for one, other in pairwise(made.times_s)]
    assert max(gaps) - min(gaps) < 0.0401, "evenly spread, to a frame"


def test_frames_come_less_often_before_they_shrink_and_shrink_before_they_are_fewer() -> None:
    minute = Film(60.0, 25.0, 1280, 720)
    seen = [schedule(minute, WHOLE, budget, KEYE, 0) for budget in (40_000, 20_000, 10_000, 3_000)]
    assert [(len(one.times_s), one.each_tokens) for one in seen] == [(120, 252), (78, 252), (60, 153), (50, 60)]


def test_an_overview_of_a_long_video_is_of_key_frames() -> None:
    for length_s, keys in ((3600.0, True), (100.0, False)):
        assert schedule(Film(length_s, 25.0, 1280, 720), OVERVIEW, 20_000, KEYE, 25).key_frames is keys
    assert not schedule(HOUR, Pace(most_frames=12), 20_000, KEYE, 25).key_frames


def test_squares_of_pixels_shrink_too() -> None:
    made = schedule(HOUR, WHOLE, 21_000, PATCHES, 25)
    assert len(made.times_s) > 200 and made.each_tokens <= 64
    assert len(schedule(HOUR, OVERVIEW, 2048, PATCHES, 25).times_s) == 12


def test_a_model_s_own_limit_of_a_clip_holds() -> None:
    made = schedule(HOUR, WHOLE, 20_000, TINY, 25)
    assert made.visual_tokens <= KEYE_TINY_LIMITS.clip_total_tokens
    for length_s, frames in ((7.0, 14), (10.0, 16), (60.0, 16), (3600.0, 16)):
        made = schedule(Film(length_s, 25.0, 1280, 720), WHOLE, 20_000, TINY, 25)
        assert (len(made.times_s), made.each_tokens) == (frames, 45)
    assert [TINY.clip(1280, 720, count, 10_000) for count in (1, 4, 8)] == [(n, (252, 140, 45)) for n in (1, 4, 8)]
    few = schedule(HOUR, OVERVIEW, 2048, TINY, 25)
    assert (len(few.times_s), few.each_tokens) == (12, 45)


def test_a_short_video_leaves_its_share_to_a_long_one() -> None:
    short = Film(4.0, 25.0, 1280, 720)
    first, second, third = schedule_all([HOUR, short, HOUR], WHOLE, 100_000, KEYE, 25)
    assert len(second.times_s) == 8 and second.each_tokens == 252
    assert len(first.times_s) == len(third.times_s) == 512
    assert 80_000 < first.tokens + second.tokens + third.tokens <= 100_000


def test_what_does_not_fit_has_no_frames() -> None:
    for film in (HOUR, Film(0.04, 25.0, 64, 64)):
        assert schedule(film, WHOLE, 20, KEYE, 25).times_s == ()
    assert schedule(Film(0.04, 25.0, 64, 64), WHOLE, 2000, KEYE, 25).times_s == (0.0,)
    assert math.isinf(Film(5.0, None, 64, 64).frames)
