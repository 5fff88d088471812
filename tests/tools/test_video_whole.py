"""Many frames in one pass: exactly those of a full decoding, stored at once, through a child whose limits grow."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from keyeloop.runtime.errors import InputError
from keyeloop.runtime.evidence import Source
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.views import ViewBook
from keyeloop.tools.video import whole
from keyeloop.tools.video.child import tape
from keyeloop.tools.video.decoder import Decoder
from keyeloop.tools.video.probe import open_source
from keyeloop.tools.video.readers import readers_for
from keyeloop.tools.video.schedule import Film, Pace, schedule
from keyeloop.tools.video.whole import Stored, show_frames, watch_frames
from tests.tools.conftest import TileCost
from tests.tools.moving_pictures import Judge, read_bar_code, write_video
from tests.tools.test_video_exact import CASES

NO_CUTS = "scenecut=0"
MANY_TOKENS = 1_000_000


async def watch(path: Path, decoder: Decoder, media: MediaStore, frames: int) -> tuple[Source, tuple[Stored, ...]]:
    facts = decoder.probe(str(path))
    film = Film(facts.duration_s or 0.0, facts.fps, facts.width, facts.height)
    plan = schedule(film, Pace(most_frames=frames), MANY_TOKENS, TileCost(), 0)
    source = open_source(path, "video-1", decoder=decoder)
    done: list[int] = []
    size = plan.size.width, plan.size.height
    stored = await watch_frames(source, plan.moments_s, size, decoder, media, done.append)
    assert done == list(range(1, len(plan.times_s) + 1))
    return source, stored


@pytest.mark.parametrize("name", ["constant.mp4", "open_groups.mp4", "one_key_frame.mp4", "mpeg2.ts", "vp9.webm"])
@pytest.mark.parametrize("frames", [7, 61, 400])
async def test_sparse_and_dense_passes_show_what_a_full_decoding_shows(name: str, frames: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / name, **CASES[name])
    judge, media = Judge.of(path), MediaStore(tmp_path / "media")
    with Decoder() as decoder:
        source, stored = await watch(path, decoder, media, frames)
    seen = [(one.time_s, read_bar_code(media.pixels(one.media))) for one in stored]
    assert seen == [judge.at(time_s) for time_s, _ in seen]
    assert len(seen) == len(set(seen)) and seen[0] == judge.at(0) and seen == sorted(seen)
    if name == "constant.mp4":
        film = Film(source.duration_s or 0.0, 25.0, 160, 96)
        plan = schedule(film, Pace(most_frames=frames), MANY_TOKENS, TileCost(), 0)
        assert [one.time_s for one in stored] == pytest.approx(list(plan.times_s)), "planned times are the real ones"
        assert len(seen) == min(frames, 200)


async def test_an_overview_of_key_frames_bears_their_times_or_is_exact(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "groups.mp4", [40 * n for n in range(200)], options={"g": "20", "x264-params": NO_CUTS}
    )
    judge, media = Judge.of(path), MediaStore(tmp_path / "media")
    done: list[int] = []
    with Decoder() as decoder:
        source = open_source(path, "video-1", decoder=decoder)
        for moments, expected in (
            ([0.5, 1.7, 3.3, 7.9], [0.0, 1.6, 3.2, 7.2]),
            ([0.5, 0.7, 3.3], [0.48, 0.68, 3.28]),  # two would be the same
        ):
            found = await watch_frames(source, moments, (140, 84), decoder, media, done.append, key_frames=True)
            seen = [(one.time_s, read_bar_code(media.pixels(one.media))) for one in found]
            assert seen == [judge.at(time_s) for time_s in expected]
    assert done == [4, 1, 2, 3] and len(list(media.root.rglob("*/*"))) == 7


async def test_frames_become_one_clip_with_handles(tmp_path: Path) -> None:
    path = write_video(tmp_path / "short.mp4", [0, 40, 80, 120])
    media, views = MediaStore(tmp_path / "media"), ViewBook()
    with Decoder() as decoder:
        source, stored = await watch(path, decoder, media, 3)
    clip = show_frames(source, stored, views)
    assert clip.times_s == tuple(one.time_s for one in stored) and len(clip.frames) == 3
    assert [frame.view for frame in clip.frames] == [views.find(f"f{number}") for number in (1, 2, 3)]
    assert all(frame.view and frame.view.region == source.whole for frame in clip.frames)


async def test_the_child_s_limit_of_processor_time_is_of_one_frame(tmp_path: Path) -> None:
    """A second a frame is enough for a pass that takes more than a second."""
    size = 1280, 720
    path = write_video(tmp_path / "large.mp4", [40 * n for n in range(150)], size=size, options={"g": "250"})
    with Decoder(cpu_s=1) as decoder:
        source = open_source(path, "video-1", decoder=decoder)
        media = MediaStore(tmp_path / "media")
        moments = [n / 25 + 0.02 for n in range(150)]
        stored = await watch_frames(source, moments, (1260, 700), decoder, media, lambda _: None)
        pid = decoder.pid
        spent = sum(int(field) for field in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])
    assert len(stored) == 150 and spent > 100, "hundredths of a second"


@pytest.mark.parametrize("name", ["groups.mp4", "groups.mkv", "groups.ts"])
async def test_several_readers_show_the_same_bytes_as_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"bf": "2", "g": "8", "x264-params": NO_CUTS}
    path = write_video(tmp_path / name, [40 * n for n in range(200)], options=options)
    found, threads = [], []
    for readers in (1, 6):
        monkeypatch.setattr(whole, "readers_for", lambda *_: readers)  # noqa: B023
        media = MediaStore(tmp_path / f"media-{readers}")
        with Decoder() as decoder:
            source, most = open_source(path, "video-1", decoder=decoder), 0

            def on_frame(done: int) -> None:
                nonlocal most
                most = max(most, len(list(Path(f"/proc/{decoder.pid}/task").iterdir())))

            moments = [n / 25 + 0.02 for n in range(0, 200, 3) for _ in range(2)]
            found.append(await watch_frames(source, moments, (140, 84), decoder, media, on_frame))
            threads.append(most)
            (again,) = decoder.cut(str(path), [1.0], source.whole, 140, 84)
    assert found[0] == found[1] and len(found[0]) == 67
    assert threads[1] >= 7, "a thread for each reader"
    assert again.time_s == 1.0, "the child goes on as before"


def test_how_many_readers_a_video_is_worth() -> None:
    def readers(width: int, height: int, duration_s: float, moments: int, cores: int) -> int:
        source = Source("video-1", "video", "0" * 64, "hour.mp4", width, height, duration_s)
        return readers_for(source, moments, cores)

    assert readers(1280, 720, 3600.0, 512, 1) == 1
    assert readers(1280, 720, 3600.0, 512, 2) == 2
    assert readers(1280, 720, 3600.0, 512, 64) == 13 and readers(1920, 1080, 3600.0, 512, 64) == 6, "memory is bounded"
    assert readers(3840, 2160, 3600.0, 512, 64) == 1
    assert readers(1280, 720, 59.0, 512, 8) == 1 and readers(1280, 720, 3600.0, 15, 8) == 1, "too short to be shared"
    assert readers(1280, 720, 100.0, 512, 8) == 3 and readers(1280, 720, 3600.0, 16, 8) == 2


@pytest.mark.parametrize("readers", [1, 3])
async def test_cancelling_stops_the_pass(readers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "readers_for", lambda *_: readers)
    path = write_video(tmp_path / "long.mp4", [40 * n for n in range(400)], options={"g": "12"})
    begun = asyncio.Event()
    here = asyncio.get_running_loop()
    seen: list[int] = []

    def on_frame(done: int) -> None:
        seen.append(done)
        here.call_soon_threadsafe(begun.set)

    with Decoder() as decoder:
        source = open_source(path, "video-1", decoder=decoder)
        media = MediaStore(tmp_path / "media")
        moments = [n / 25 + 0.02 for n in range(400)] * 10
        task = asyncio.create_task(watch_frames(source, moments, (140, 84), decoder, media, on_frame))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.3)
        stopped_at = len(seen)
        await asyncio.sleep(0.2)
        assert len(seen) == stopped_at < 4000


async def test_a_file_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = write_video(tmp_path / "gone.mp4", [0, 40])
    with Decoder() as decoder:
        source = open_source(path, "video-1", decoder=decoder)
        path.unlink()
        with pytest.raises(InputError, match=r"gone.mp4 does not exist"):
            await watch_frames(source, [0.0], (28, 28), decoder, MediaStore(tmp_path / "media"), lambda _: None)


def test_a_key_frame_just_ahead_is_read_on_to_and_a_far_one_is_sought(tmp_path: Path) -> None:
    path = write_video(tmp_path / "groups.mp4", [40 * n for n in range(200)], options={"g": "50", "bf": "0"})
    fd = os.open(path, os.O_RDONLY)
    try:
        reel = tape.Tape(fd, "mov")
        packets, second = reel.rewind(), round(1 / reel.tick)
        for _ in range(46):  # fed up to frame 45; key frames are 0, 50, 100, 150
            next(reel.decode(iter([next(packets)])), None)
        assert not reel.seek_is_nearer(round(52 / 25 * second)), "the key frame is five frames ahead"
        assert not reel.seek_is_nearer(round(30 / 25 * second)), "behind"
        assert reel.seek_is_nearer(round(104 / 25 * second))
        reel.close()
    finally:
        os.close(fd)
