"""``keyeloop look``: exact frames and crops on disk, the model's addresses, one line for every wrong input."""

from __future__ import annotations

import base64
import io
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from keyeloop.agent.cli import main
from keyeloop.agent.look.terminal import cells, drawn, protocol_of
from keyeloop.agent.look.wishes import read_moment
from keyeloop.runtime.errors import InputError
from keyeloop.runtime.picture import decode_picture
from keyeloop.tools.video.sheet import GAP_PX, LABEL_PX, plan_sheet
from tests.agent.test_cli import BAD_VIDEOS, ROOT
from tests.tools.moving_pictures import Judge, read_bar_code, write_video

UNEVEN_MS = [0, 40, 47, 300, 301, 800, 1210, 1990, 2000, 3717]
"""Presentation times of a frame rate that varies wildly."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own, with a video of a variable frame rate."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_video(tmp_path / "uneven.mp4", UNEVEN_MS, options={"g": "4"})
    return tmp_path


def look(*arguments: str | Path) -> int:
    """Run ``keyeloop look`` here; its exit code."""
    with pytest.raises(SystemExit) as left:
        main(["look", *(str(argument) for argument in arguments)])
    return int(left.value.code or 0)


def told(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    """The one object that ``--json`` prints."""
    assert look(*arguments, "--json") == 0
    shown = capsys.readouterr()
    assert shown.out.count("\n") == 1 and shown.err == ""
    made: dict[str, Any] = json.loads(shown.out)
    return made


def pixels_of(path: str | Path) -> NDArray[np.uint8]:
    return decode_picture(Path(path).read_bytes())


def decoded(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame by a plain decoding of the whole file."""
    with av.open(str(path)) as file:
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in file.decode(video=0)]


@pytest.mark.parametrize("asked", ["0", "0.046", "0.299", "0:00.3", "0:01.99", "0:00:02", "3.7", "3.72"])
def test_one_frame_is_the_one_on_screen_to_the_pixel(
    asked: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judge = Judge.of(place / "uneven.mp4")
    time_s, number = judge.at(read_moment(asked, "--at"))
    (picture,) = told(capsys, "uneven.mp4", "--at", asked)["pictures"]
    assert picture["time_s"] == time_s and picture["handle"] == "f1"
    assert np.array_equal(pixels_of(picture["path"]), decoded(place / "uneven.mp4")[number])
    assert read_bar_code(pixels_of(picture["path"])) == number


def test_a_clip_has_distinct_frames_with_their_true_times(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge.of(place / "uneven.mp4")
    made = told(capsys, "uneven.mp4", "--from", "0.29", "--to", "2", "--frames", "9", "--out", "pictures")
    moments = [0.29 + (2 - 0.29) * step / 8 for step in range(9)]
    expected = sorted({judge.at(moment) for moment in moments})
    assert 3 < len(expected) < 9
    assert [picture["time_s"] for picture in made["pictures"]] == [time_s for time_s, _ in expected]
    assert [read_bar_code(pixels_of(picture["path"])) for picture in made["pictures"]] == [n for _, n in expected]
    assert [picture["handle"] for picture in made["pictures"]] == [f"f{n}" for n in range(1, len(expected) + 1)]
    assert {str(path) for path in Path("pictures").iterdir()} == {picture["path"] for picture in made["pictures"]}


def test_a_crop_is_the_source_frame_s_own_pixels(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (picture,) = told(capsys, "uneven.mp4", "--at", "1.3", "--zoom", "250,500,501,1000")["pictures"]
    assert picture["region"] == {"x0": 40, "y0": 48, "x1": 81, "y1": 96}
    assert (picture["handle"], picture["parent"], picture["time_s"]) == ("z1", "f1", 1.21)
    assert np.array_equal(pixels_of(picture["path"]), decoded(place / "uneven.mp4")[6][48:96, 40:81])


def test_lines_name_pictures_as_the_model_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert look("uneven.mp4", "--from", "0:00.5", "--to", "1.3", "--frames", "2") == 0
    assert look("uneven.mp4", "--at", "1.3", "--zoom", "250,500,501,1000") == 0
    assert capsys.readouterr().out.splitlines() == [
        "video-1: uneven.mp4, 0:00:03.757, 160x96",
        "video-1: f1 at 0.3 s (0:00:00.301), box 0,0 to 160,96 px, in uneven-0h00m00.301s.png",
        "video-1: f2 at 1.2 s (0:00:01.210), box 0,0 to 160,96 px, in uneven-0h00m01.210s.png",
        "video-1: uneven.mp4, 0:00:03.757, 160x96",
        "z1: f1 box 250,500,501,1000 at 1.2 s (0:00:01.210), box 40,48 to 81,96 px, "
        "in uneven-0h00m01.210s-box-250-500-501-1000.png",
    ]


def test_a_sheet_shows_every_frame_beside_its_label(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge.of(place / "uneven.mp4")
    made = told(capsys, "uneven.mp4", "--sheet", "--frames", "40")
    pictures, sheet = made["pictures"], pixels_of(made["sheet"]["path"])
    end_s = made["source"]["duration_s"]
    expected = sorted({judge.at(end_s * step / 39) for step in range(40)})
    assert sheet.shape[:2] == (made["sheet"]["height"], made["sheet"]["width"])
    assert [picture["time_s"] for picture in pictures] == [time_s for time_s, _ in expected]
    frames = decoded(place / "uneven.mp4")
    ground = sheet[0, 0]
    for picture, (_, number) in zip(pictures, expected, strict=True):
        left, right = picture["left"], picture["left"] + picture["width"]
        bottom = picture["top"] + picture["height"]
        assert np.array_equal(sheet[picture["top"] : bottom, left:right], frames[number]), "nothing is drawn over it"
        assert (sheet[bottom : bottom + LABEL_PX, left:right] != ground).any(), "the margin holds its label"
        assert (sheet[picture["top"] - GAP_PX : picture["top"], left:right] == ground).all()
    assert told(capsys, "uneven.mp4", "--frames", "40") == made, "a sheet is what a video alone means"
    assert look("uneven.mp4", "--sheet", "--frames", "3") == 0
    assert re.fullmatch(r"3 frames, \d+x\d+, in uneven-sheet-2\.png", capsys.readouterr().out.splitlines()[-1])


def test_a_sheet_shrinks_to_the_side_it_is_given(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = told(capsys, "uneven.mp4", "--sheet", "--from", "0.3", "--frames", "6", "--max-side", "400")["sheet"]
    assert max(sheet["width"], sheet["height"]) <= 400
    plan = plan_sheet(512, (1280, 720), 2048, "f512 0:59:59.999")
    corners = [plan.corner(index) for index in range(512)]
    assert len(set(corners)) == 512 and max(plan.size) <= 2048
    assert max(left for left, _ in corners) + plan.slot_width + GAP_PX == plan.size[0]


def test_pictures_shrink_only_when_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (small,) = told(capsys, "uneven.mp4", "--at", "2", "--max-side", "80")["pictures"]
    assert pixels_of(small["path"]).shape == (48, 80, 3) and small["region"]["x1"] == 160
    assert read_bar_code(pixels_of(small["path"])) == 8
    (whole,) = told(capsys, "uneven.mp4", "--at", "2", "--max-side", "8000")["pictures"]
    assert pixels_of(whole["path"]).shape == (96, 160, 3)


def test_no_file_is_replaced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("uneven-0h00m02.000s.png").write_text("mine")
    Path("uneven-0h00m02.000s-2.png").symlink_to("nowhere")
    paths = [told(capsys, "uneven.mp4", "--at", "2")["pictures"][0]["path"] for _ in range(2)]
    assert paths == ["uneven-0h00m02.000s-3.png"] * 2, "the same picture again is the same file"
    assert Path("uneven-0h00m02.000s.png").read_text() == "mine" and not Path("nowhere").exists()


def test_an_image_is_looked_at_too(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    cv2.imwrite("photo.png", noise[:, :, ::-1])
    (whole,) = told(capsys, "photo.png")["pictures"]
    assert (whole["text"], whole["time_s"], whole["path"]) == ("image-1: f1", None, "photo-whole.png")
    assert np.array_equal(pixels_of("photo-whole.png"), noise)
    (crop,) = told(capsys, "photo.png", "--zoom", "0,500,1000,1000", "--out", "a/b")["pictures"]
    assert crop["text"] == "z1: f1 box 0,500,1000,1000"
    assert np.array_equal(pixels_of(crop["path"]), noise[25:])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """One line on stderr, exit code 2, and no picture."""
    before = sorted(Path().rglob("*.png"))
    assert look(*arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and sorted(Path().rglob("*.png")) == before
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err


@pytest.mark.parametrize("name", BAD_VIDEOS)
def test_a_bad_file_is_one_line(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, expected = BAD_VIDEOS[name]
    make(Path(f"{name}.mp4"))
    said = refused(capsys, f"{name}.mp4", "--at", "0")
    assert expected in said and f"{name}.mp4" in said


def test_wrong_wishes_are_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite("photo.png", np.zeros((8, 8, 3), np.uint8))
    Path("taken").write_text("")
    cases: dict[tuple[str, ...], str] = {
        ("--at", "4"): "uneven.mp4 ends at 3.8 s; 4.0 s is past its end.",
        ("--from", "9", "--to", "12"): "uneven.mp4 ends at 3.8 s; 9.0 s is past its end.",
        ("--from", "2", "--to", "1"): "--to 1 is before --from 2: give the earlier time as --from",
        ("--at", "-1"): "--at '-1' is not a time",
        ("--at", "1:75"): "--at '1:75' is not a time",
        ("--to", "nan"): "--to 'nan' is not a time",
        ("--at", "1", "--sheet"): "choose one of them",
        ("--at", "1", "--from", "0"): "choose one of them",
        ("--at", "1", "--frames", "3"): "--at is one frame: leave out --frames",
        ("--from", "1", "--frames", "0"): "--frames 0 is out of range: ask for 1 to 512",
        ("--frames", "513"): "--frames 513 is out of range",
        ("--frames", "many"): "--frames",
        ("--zoom", "0,0,500,500"): "give its time with --at",
        ("--zoom", "0,0,500,500", "--sheet"): "give its time with --at",
        ("--at", "1", "--zoom", "0,0,500"): "--zoom '0,0,500' is not a box: write X0,Y0,X1,Y1",
        ("--at", "1", "--zoom", "0,0,500,1001"): "box 0,0,500,1001 of f1 is not x0,y0,x1,y1 with 0 <= x0 < x1 <= 1000",
        ("--at", "1", "--zoom", "500,0,500,9"): "box 500,0,500,9 of f1 is not",
        ("--at", "1", "--zoom", "-1,0,500,9"): "box -1,0,500,9 of f1 is not",
        ("--at", "1", "--zoom", "nan,0,500,9"): "box nan,0,500,9 of f1 is not",
        ("--at", "1", "--out", "taken"): "--out taken is a file: name a folder",
        ("--at", "1", "--out", "taken/below"): "no picture can be written in taken/below: Not a directory",
        ("--at", "1", "--max-side", "3"): "--max-side 3 is too small: give at least 16 px",
        ("--sheet", "--max-side", "60"): "a sheet of 20 frames does not fit 60 px",
        ("--at", "1", "--show", "--json"): "leave out one of them",
        ("--model", "keye-tiny"): "No such option",
    }
    for arguments, expected in cases.items():
        assert expected in refused(capsys, "uneven.mp4", *arguments), arguments
    assert "photo.png is an image, it has no moments: leave out --at" in refused(capsys, "photo.png", "--at", "1")
    assert "leave out --from and --sheet" in refused(capsys, "photo.png", "--from", "1", "--sheet")


def test_moments_are_seconds_or_a_clock() -> None:
    typed = {"83": 83, " 83.5": 83.5, ".5": 0.5, "83.": 83, "83s": 83, "1:23": 83, "1:02:03.5": 3723.5, "90:00": 5400}
    assert {text: read_moment(text, "--at") for text in typed} == typed
    for text in ("", "1:2", "1:60", "1:60:00", "1e3", "inf", "+1", "1,5", "-0:01", "soon"):
        with pytest.raises(InputError, match="is not a time"):
            read_moment(text, "--at")


def test_terminals_are_known_by_their_environment() -> None:
    cases: list[tuple[dict[str, str], str | None]] = [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/tmux"}, None),
        ({"TERM": "screen", "LC_TERMINAL": "iTerm2"}, None),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ]
    for environment, protocol in cases:
        assert protocol_of(environment) == protocol, environment


def test_protocols_carry_the_picture() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    kitty = drawn(noise, "kitty", 40, 100)
    chunks = re.findall(r"\x1b_G(?:a=T,f=100,q=2,c=40,)?m=([01]);([A-Za-z0-9+/=]*)\x1b\\", kitty)
    assert len(chunks) > 3 and [more for more, _ in chunks] == ["1"] * (len(chunks) - 1) + ["0"]
    assert all(len(chunk) <= 4096 for _, chunk in chunks)
    assert np.array_equal(decode_picture(base64.b64decode("".join(chunk for _, chunk in chunks))), noise)
    found = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+);width=40;\S*?:(\S+)\a\n", drawn(noise, "iterm2", 40, 99))
    assert found is not None
    data = base64.b64decode(found[2])
    assert len(data) == int(found[1]) and decode_picture(data).shape == noise.shape


def test_half_blocks_paint_two_pixels_a_cell() -> None:
    four = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]], np.uint8)
    assert drawn(four, "blocks", 2, 9) == ("\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[38;2;0;255;0;48;2;9;8;7m▀\x1b[0m\n")
    for shape in ((720, 1280, 3), (1280, 720, 3), (1, 500, 3), (500, 1, 3)):
        wide, high = cells(np.zeros(shape, np.uint8), 80, 22)
        assert 1 <= wide <= 80 and 1 <= high <= 22
    assert cells(np.zeros((720, 1280, 3), np.uint8), 80, 50) == (80, 22)


def in_terminal(*arguments: str, **environment: str) -> str:
    """What ``keyeloop look`` writes to a terminal of 30 x 12 cells."""
    ours, theirs = pty.openpty()
    code = "from keyeloop.agent.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "look", *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "30", "LINES": "12",
             "XDG_CACHE_HOME": str(Path("cache").absolute()), **environment},
        stdin=subprocess.DEVNULL, stdout=theirs,
    )  # fmt: skip
    os.close(theirs)
    said = io.BytesIO()
    try:
        while piece := os.read(ours, 65536):
            said.write(piece)
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(60) == 0
    return said.getvalue().decode()


def test_it_draws_in_a_terminal_and_nowhere_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = in_terminal("uneven.mp4", "--at", "0.3", "--show", TERM="xterm-256color")
    assert shown.count("▀") == 30 * 9 and shown.count("\x1b[0m") == 9
    assert "▀" not in in_terminal("uneven.mp4", "--at", "0.3", TERM="xterm-256color")
    assert "\x1b_Ga=T,f=100,q=2,c=30," in in_terminal("uneven.mp4", "--at", "0.3", TERM="xterm-kitty")
    assert "\x1b" not in in_terminal("uneven.mp4", "--at", "0.3", "--no-show", TERM="xterm-kitty")
    assert look("uneven.mp4", "--at", "0.3", "--show") == 0
    assert "\x1b" not in capsys.readouterr().out
