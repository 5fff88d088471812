"""Every worked example of picture sizes and frame budgets, and the plans built on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyeloop.model_backend.keye.cost import KEYE_2_LIMITS, KEYE_TINY_LIMITS, KeyeVisualCost, VisionLimits
from keyeloop.model_backend.keye.sizing import plan_video, smart_resize
from keyeloop.runtime.errors import ConfigError, InputError

IMAGE_MIN, IMAGE_MAX = 4 * 784, 20480 * 784


@pytest.mark.parametrize(
    ("width", "height", "new_width", "new_height", "tokens"),
    [
        (1920, 1080, 1932, 1092, 2691),
        (1280, 720, 1288, 728, 1196),
        (1024, 1024, 1036, 1036, 1369),
        (640, 480, 644, 476, 391),
        (3840, 2160, 3836, 2156, 10549),
        (1654, 2339, 1652, 2352, 4956),
    ],
)
def test_published_image_sizes(width: int, height: int, new_width: int, new_height: int, tokens: int) -> None:
    assert smart_resize(height, width, min_pixels=IMAGE_MIN, max_pixels=IMAGE_MAX) == (new_height, new_width)
    assert KeyeVisualCost(KEYE_2_LIMITS).image(width, height) == (new_width, new_height, tokens)


HOUR = 3600


@pytest.mark.parametrize(
    ("seconds", "adaptive", "frames", "grid"),
    [
        (10, False, 20, (12, 21)), (10, True, 20, (12, 21)),
        (60, False, 120, (12, 21)), (60, True, 120, (8, 15)),
        (120, False, 240, (12, 21)), (120, True, 240, (6, 11)),
        (300, False, 600, (12, 21)), (300, True, 518, (6, 10)),
        (600, False, 1200, (9, 16)), (600, True, 1036, (6, 10)),
        (1036, False, 2072, (7, 12)), (1036, True, 1036, (6, 10)),
        (24 * 60, False, 2880, (6, 10)), (24 * 60, True, 2016, (6, 10)),
        (48 * 60, False, 2880, (6, 10)), (48 * 60, True, 2880, (6, 10)),
        (HOUR, False, 2880, (6, 10)), (HOUR, True, 2880, (6, 10)),
        (2 * HOUR, False, 2880, (6, 10)), (2 * HOUR, True, 2880, (6, 10)),
    ],
)  # fmt: skip
def test_published_video_budgets(seconds: int, adaptive: bool, frames: int, grid: tuple[int, int]) -> None:
    plan = plan_video(seconds * 30, 30.0, 1080, 1920, adaptive=adaptive)
    assert (len(plan.indices), (plan.height // 28, plan.width // 28)) == (frames, grid)
    assert plan.tokens == frames * grid[0] * grid[1]
    assert plan.indices[0] == 0 and plan.indices[-1] == seconds * 30 - 1
    assert plan.times_s[-1] == pytest.approx(seconds - 1 / 30)


def test_budget_is_shared_and_adaptive_is_for_one_video() -> None:
    whole = plan_video(600 * 30, 30.0, 1080, 1920)
    half = plan_video(600 * 30, 30.0, 1080, 1920, videos=2)
    assert half == plan_video(600 * 30, 30.0, 1080, 1920, total_pixels=184_320 * 784 // 2)
    assert half.tokens <= whole.tokens
    assert plan_video(600 * 30, 30.0, 1080, 1920, videos=2, adaptive=True) == half


def test_user_limits_of_a_video() -> None:
    plan = plan_video(600 * 30, 30.0, 1080, 1920, wanted_fps=1.0, max_frames=10, frame_max_pixels=1000 * 784)
    assert len(plan.indices) == 10 and 900 < plan.frame_tokens <= 1000
    assert len(plan_video(1, 30.0, 1080, 1920).indices) == 1
    with pytest.raises(InputError, match="nothing to show"):
        plan_video(0, 30.0, 1080, 1920)


def test_extreme_pictures() -> None:
    assert smart_resize(1, 1, min_pixels=IMAGE_MIN, max_pixels=IMAGE_MAX) == (56, 56)
    assert smart_resize(10, 2000, min_pixels=IMAGE_MIN, max_pixels=IMAGE_MAX)[0] == 28
    with pytest.raises(InputError, match="crop it"):
        smart_resize(10, 2001, min_pixels=IMAGE_MIN, max_pixels=IMAGE_MAX)
    with pytest.raises(InputError, match="empty"):
        smart_resize(0, 20, min_pixels=IMAGE_MIN, max_pixels=IMAGE_MAX)


def test_tiny_frames() -> None:
    cost = KeyeVisualCost(KEYE_TINY_LIMITS)
    assert cost.frame(1280, 720) == (252, 140, 45)
    assert cost.clip(1280, 720, 8, 10_000) == (8, (252, 140, 45))
    crowded = cost.clip(1280, 720, 1000, 10_000)
    assert crowded == (16, (252, 140, 45)), "fewer frames, never smaller ones"
    assert cost.clip(1280, 720, 5, 3).frames == 0
    assert cost.clip(1280, 720, 0, 500).frames == 0


sides = st.integers(20, 4000)


@given(sides, sides, st.integers(1, 3000), st.integers(1, 200_000), st.sampled_from([KEYE_2_LIMITS, KEYE_TINY_LIMITS]))
def test_a_clip_never_exceeds_its_budget(w: int, h: int, wanted: int, budget: int, limits: VisionLimits) -> None:
    plan = KeyeVisualCost(limits).clip(w, h, wanted, budget)
    assert plan.frames * plan.size.tokens <= min(budget, limits.clip_total_tokens)
    assert plan.frames <= wanted
    assert plan.size.width % 28 == 0 and plan.size.height % 28 == 0


@given(sides, sides, st.integers(1, 60))
def test_a_frame_keeps_to_the_lowered_limit_and_sizes_are_stable(w: int, h: int, most: int) -> None:
    cost = KeyeVisualCost(KEYE_TINY_LIMITS)
    once = cost.image(w, h)
    assert once.tokens <= 64
    if once.tokens >= KEYE_TINY_LIMITS.image_min_tokens:
        assert cost.image(once.width, once.height) == once
    assert 1 <= cost.frame(w, h, max_tokens=most).tokens <= min(most, 48)


def test_limits_must_not_cross() -> None:
    with pytest.raises(ConfigError, match="min <= max"):
        VisionLimits(9, 8, 1, 2, 3)
    with pytest.raises(ConfigError, match="clip total"):
        VisionLimits(1, 8, 1, 20, 3)
