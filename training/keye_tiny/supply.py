"""Fixed-shape training batches as plain arrays, made in worker processes: rows of one length bucket and their pictures.

No torch in here, so that a worker starts quickly and its results travel as arrays.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

FRAME = (140, 252)
"""Height and width in pixels of the usual clip frame: 10 x 18 patches, 45 tokens."""
FRAME_TOKENS = 45
MIXED_TOKENS = 64
"""Tokens that any other picture is padded to."""

Ints = npt.NDArray[Any]


@dataclass(frozen=True)
class Buckets:
    """Static shapes: rows of ``(length, rows)``, readers, and how many pictures share one pass of the vision tower."""

    main: tuple[tuple[int, int], ...] = ((512, 192), (720, 128))
    reader: tuple[int, int] = (112, 768)
    probes: int = 48
    """Queries a row at which the indexer is compared with the attention."""
    frame_chunk: int = 256
    mixed_chunk: int = 108
    mixed_tokens: int = MIXED_TOKENS
    """Tokens that pictures of other sizes than ``FRAME`` are padded to."""


def small(rows: int) -> Buckets:
    """Buckets for a CPU: so many rows a step."""
    return Buckets(
        tuple((length, max(rows * 512 // length, 1)) for length in (352, 416, 512, 576, 640, 720)),
        (112, 4 * rows),
        frame_chunk=4,
        mixed_chunk=2,
    )


@dataclass(frozen=True)
class PictureGroup:
    """Pictures of one size, packed for the renderer."""

    height: int
    width: int
    packed: Any
    count: int
    real_at: Ints
    """[r] int64: pictures of the group that went through a real encoder, decoder and resize."""
    real: Ints
    """[r, height, width, 3] uint8: their pixels."""


@dataclass(frozen=True)
class Shard:
    """One micro-batch of ``rows`` sequences of ``length`` tokens, right-padded with zeros."""

    reader: bool
    length: int
    ids: Ints
    """[rows, length] int16"""
    positions: Ints
    """[3, rows, length] int16"""
    lengths: Ints
    """[rows] int32"""
    families: Ints
    """[rows] int64, index into the family names."""
    loss_from: Ints
    """[m] int64: flat place of the token that predicts."""
    loss_to: Ints
    """[m] int64: the id it should predict."""
    loss_row: Ints
    """[m] int64"""
    loss_answer: Ints
    """[m] bool: in the last reply of its row."""
    loss_kind: Ints
    """[m] uint8: what each is to the loss, a ``sample.Kind``."""
    probes: Ints
    """[rows, probes] int64"""
    frames: PictureGroup | None
    """The pictures of size ``FRAME``."""
    mixed: tuple[PictureGroup, ...]
    """All others by size."""
    seen_from: Ints
    """[n] int64: place in the pool of visual tokens (padded frames first, then mixed pictures of MIXED_TOKENS)."""
    seen_to: Ints
    """[n] int64: flat place in the rows."""
    letter_at: Ints
    """[g] int64: which of the n visual tokens holds a letter."""
    letter: Ints
    """[g] int64: which, a label of ``letters``."""


class Source(Protocol):
    """Where samples come from."""

    @property
    def families(self) -> Sequence[str]:
        """Names of the families, in the order of their numbers."""

    def make(self, rng: random.Random, difficulty: float) -> Any:
        """A trajectory as a Sample."""

    def make_reader(self, rng: random.Random, difficulty: float) -> Any:
        """A short "read this picture" Sample."""

    def pack(self, shown: Any) -> Any:
        """What the renderer needs of one picture."""

    def stack(self, packed: list[Any]) -> Any:
        """Packed pictures of one size as one object of arrays."""

    def label(self, shown: Any) -> Ints:
        """Letters [k, 2] of a picture: visual token, label."""

    def film(self, shown: list[Any]) -> list[Ints]:
        """Pixels [height, width, 3] uint8 of pictures that really go through a video file; slow."""


class _Job(NamedTuple):
    row: int
    start: int
    tokens: int
    height: int
    width: int
    shown: Any
    pixels: Ints | None


@dataclass
class Stock:
    """Draws samples and hands out full shards; one a worker."""

    source: Source
    buckets: Buckets
    seed: int
    real_share: float = 0.0
    """Part of the sequences whose pictures are filmed, not rendered."""
    dropped: int = 0
    _waiting: dict[int, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rng = random.Random(self.seed)
        self._draw = np.random.default_rng(self.seed)

    def main(self, difficulty: float) -> Shard:
        """The next full shard of trajectories, of whichever bucket fills first."""
        while True:
            sample = self.source.make(self._rng, difficulty)
            fitting = [bucket for bucket in self.buckets.main if len(sample.ids) <= bucket[0] and self._shows(sample)]
            if not fitting:
                self.dropped += 1
                continue
            length, rows = fitting[0]
            waiting = self._waiting.setdefault(length, [])
            waiting.append(sample)
            if len(waiting) == rows:
                self._waiting[length] = []
                return self.collate(waiting, length, reader=False)

    def reader(self, difficulty: float) -> Shard:
        """The next shard of reader samples."""
        length, rows = self.buckets.reader
        samples: list[Any] = []
        while len(samples) < rows:
            sample = self.source.make_reader(self._rng, difficulty)
            if len(sample.ids) <= length and self._shows(sample):
                samples.append(sample)
            else:
                self.dropped += 1
        return self.collate(samples, length, reader=True)

    def collate(self, samples: Sequence[Any], length: int, *, reader: bool) -> Shard:
        """Samples as one shard of rows of ``length``."""
        rows = len(samples)
        ids = np.zeros((rows, length), np.int16)
        positions = np.zeros((3, rows, length), np.int16)
        probes = np.zeros((rows, self.buckets.probes), np.int64)
        parts: list[tuple[Ints, ...]] = []
        jobs: list[_Job] = []
        filmed = self._film(samples)
        for row, sample in enumerate(samples):
            count = len(sample.ids)
            ids[row, :count] = sample.ids
            positions[:, row, :count] = sample.positions
            learned = np.flatnonzero(sample.loss_kind)
            learned = learned[learned > 0]
            last_run = len(learned) - np.flatnonzero(np.diff(learned, prepend=-9) != 1)[-1] if len(learned) else 0
            answer = np.arange(len(learned)) >= len(learned) - last_run
            parts.append(
                (
                    learned - 1 + row * length,
                    sample.ids[learned],
                    np.full(len(learned), row),
                    answer,
                    sample.loss_kind[learned],
                )
            )
            probes[row] = self._probes(learned - 1, count)
            for picture in sample.pictures:
                shown = picture.shown
                pixels = filmed.get(id(shown))
                jobs.append(_Job(row, picture.start, picture.tokens, shown.height, shown.width, shown, pixels))
        loss = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        frames, mixed, seen_from, seen_to, letters = self._group(jobs, length)
        return Shard(
            reader=reader,
            length=length,
            ids=ids,
            positions=positions,
            lengths=np.array([len(sample.ids) for sample in samples], np.int32),
            families=np.array([self.source.families.index(sample.family) for sample in samples], np.int64),
            loss_from=loss[0].astype(np.int64),
            loss_to=loss[1].astype(np.int64),
            loss_row=loss[2].astype(np.int64),
            loss_answer=loss[3],
            loss_kind=loss[4].astype(np.uint8),
            probes=probes,
            frames=frames,
            mixed=mixed,
            seen_from=seen_from,
            seen_to=seen_to,
            letter_at=letters[:, 0],
            letter=letters[:, 1],
        )

    def _film(self, samples: Sequence[Any]) -> dict[int, Ints]:
        """Pixels of the pictures of a random few samples, by the identity of their recipes."""
        chosen = [sample for sample in samples if self._rng.random() < self.real_share] if self.real_share else []
        shown = [picture.shown for sample in chosen for picture in sample.pictures]
        pixels = self.source.film(shown) if shown else []
        return {id(recipe): made for recipe, made in zip(shown, pixels, strict=True)}

    def _probes(self, predicting: Ints, count: int) -> Ints:
        """Half of the probes where the assistant speaks, half anywhere."""
        spoken = self.buckets.probes // 2 if len(predicting) else 0
        anywhere = self._draw.integers(0, count, self.buckets.probes - spoken)
        if not spoken:
            return anywhere
        return np.concatenate([self._draw.choice(predicting, spoken), anywhere])

    def _group(
        self, jobs: list[_Job], length: int
    ) -> tuple[PictureGroup | None, tuple[PictureGroup, ...], Ints, Ints, Ints]:
        by_size: dict[tuple[int, int], list[_Job]] = {}
        for job in jobs:
            by_size.setdefault((job.height, job.width), []).append(job)
        frames = by_size.pop(FRAME, [])
        mixed = [job for size in sorted(by_size) for job in by_size[size]]
        pool = -(-len(frames) // self.buckets.frame_chunk) * self.buckets.frame_chunk * FRAME_TOKENS
        seen_from: list[Ints] = []
        seen_to: list[Ints] = []
        for index, job in enumerate(frames):
            seen_from.append(np.arange(job.tokens) + index * FRAME_TOKENS)
            seen_to.append(np.arange(job.tokens) + job.row * length + job.start)
        for index, job in enumerate(mixed):
            most = self.buckets.mixed_tokens
            if job.tokens > most:
                raise ValueError(f"a picture of {job.width}x{job.height} px takes {job.tokens} tokens, over {most}")
            seen_from.append(np.arange(job.tokens) + pool + index * most)
            seen_to.append(np.arange(job.tokens) + job.row * length + job.start)
        letters: list[Ints] = [np.zeros((0, 2), np.int64)]
        before = 0
        for job in (*frames, *mixed):
            letters.append(self.source.label(job.shown) + np.array([before, 0]))
            before += job.tokens
        empty = [np.zeros(0, np.int64)]
        return (
            self._pictures(frames),
            tuple(group for size in sorted(by_size) if (group := self._pictures(by_size[size])) is not None),
            np.concatenate(seen_from or empty).astype(np.int64),
            np.concatenate(seen_to or empty).astype(np.int64),
            np.concatenate(letters).astype(np.int64),
        )

    def _pictures(self, jobs: list[_Job]) -> PictureGroup | None:
        if not jobs:
            return None
        packed = self.source.stack([self.source.pack(job.shown) for job in jobs])
        height, width = jobs[0].height, jobs[0].width
        real_at = np.array([index for index, job in enumerate(jobs) if job.pixels is not None], np.int64)
        real = np.zeros((len(real_at), height, width, 3), np.uint8)
        for place, index in enumerate(real_at):
            real[place] = jobs[index].pixels
        return PictureGroup(height, width, packed, len(jobs), real_at, real)

    def _shows(self, sample: Any) -> bool:
        """Whether every picture fits the vision tower's padded passes; long thin crops do not."""
        return all(picture.tokens <= self.buckets.mixed_tokens for picture in sample.pictures)
