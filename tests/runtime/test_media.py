"""The media store: canonical bytes, checked pictures, atomic files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from keyeloop.runtime.errors import InputError, JournalError
from keyeloop.runtime.media import MediaStore
from keyeloop.runtime.picture import MAX_PIXELS, Pixels, decode_picture, read_header


def gradient(width: int = 64, height: int = 48) -> Pixels:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([columns * 3 % 256, rows * 5 % 256, (rows + columns) % 256], axis=2).astype(np.uint8)


def encoded(extension: str, pixels: Pixels | None = None) -> bytes:
    picture = gradient() if pixels is None else pixels
    order = [2, 1, 0, 3][: picture.shape[2]]
    return cv2.imencode(extension, picture[:, :, order])[1].tobytes()


def test_same_pixels_give_same_bytes_and_address(tmp_path: Path) -> None:
    first, second = MediaStore(tmp_path / "a"), MediaStore(tmp_path / "b")
    flipped = gradient()[::-1]  # a view with negative strides, the same pixels as its copy
    one, two = first.put_image(flipped), second.put_image(flipped.copy())
    assert one == two
    assert (one.mime, one.width, one.height) == ("image/jpeg", 64, 48)
    data = first.read(one.sha256)
    assert hashlib.sha256(data).hexdigest() == one.sha256 and len(data) == one.size_bytes
    assert (tmp_path / "a" / one.sha256[:2] / one.sha256).read_bytes() == data


def test_colours_survive_without_subsampling(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    stripes = np.zeros((32, 32, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    shown = store.pixels(store.put_image(stripes)).astype(int)
    assert np.abs(shown - stripes).max() < 40  # 4:2:0 would smear red and blue into violet: an error above 100


@pytest.mark.parametrize("extension,mime", [(".jpg", "image/jpeg"), (".png", "image/png")])
def test_encoded_pictures_are_kept_as_they_are(tmp_path: Path, extension: str, mime: str) -> None:
    store, data = MediaStore(tmp_path), encoded(extension)
    ref = store.put_bytes(data)
    assert ref.mime == mime and store.read(ref.sha256) == data and (ref.width, ref.height) == (64, 48)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    ref = store.put_bytes(encoded(".png", np.zeros((16, 16, 4), np.uint8)))
    assert ref.mime == "image/jpeg" and store.pixels(ref).min() >= 250


def test_webp_header_and_pixels_agree(tmp_path: Path) -> None:
    store, data = MediaStore(tmp_path), encoded(".webp")
    assert read_header(data)[1:] == (64, 48)
    ref = store.put_bytes(data)
    assert (ref.mime, ref.width, ref.height) == ("image/jpeg", 64, 48)


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_a_cut_picture_never_enters(tmp_path: Path, extension: str, keep: float) -> None:
    data = encoded(extension)
    with pytest.raises(InputError):
        MediaStore(tmp_path).put_bytes(data[: int(len(data) * keep)])
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("data", [b"", b"hello world", b"GIF89a" + bytes(40), b"\xff\xd8\xff" + bytes(100)])
def test_other_bytes_are_refused_by_name(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError):
        MediaStore(tmp_path).put_bytes(data)


def test_a_bomb_is_refused_before_decoding() -> None:
    data = bytearray(encoded(".png"))
    data[16:24] = (50_000).to_bytes(4, "big") * 2
    with pytest.raises(InputError, match=f"at most {MAX_PIXELS}"):
        decode_picture(bytes(data))


@pytest.mark.parametrize(
    "shape,kind", [((4, 4), np.uint8), ((4, 4, 4), np.uint8), ((4, 4, 3), float), ((0, 4, 3), np.uint8)]
)
def test_odd_arrays_are_refused(tmp_path: Path, shape: tuple[int, ...], kind: type) -> None:
    with pytest.raises(InputError, match="height x width x 3"):
        MediaStore(tmp_path).put_image(np.zeros(shape, kind))


def test_reading_checks_names_and_content(tmp_path: Path) -> None:
    store = MediaStore(tmp_path)
    ref = store.put_image(gradient())
    with pytest.raises(InputError, match="sha256"):
        store.read("../../etc/passwd")
    with pytest.raises(JournalError, match="no media"):
        store.read("0" * 64)
    store.path(ref.sha256).write_bytes(b"changed")
    with pytest.raises(JournalError, match="does not match"):
        store.pixels(replace(ref))
