"""What is kept by the identity of objects, and for how long."""

from __future__ import annotations

from keyeloop.model_backend.served.remembered import Remembered


class Turn:
    """Something with an identity."""


def test_the_same_objects_are_made_of_once() -> None:
    made: list[int] = []
    kept: Remembered[int] = Remembered(10)
    one, other = Turn(), Turn()

    def make() -> int:
        made.append(len(made))
        return made[-1]

    assert [kept.get((one,), make), kept.get((one,), make)] == [0, 0]
    assert kept.get((other,), make) == 1 and kept.get((one, other), make) == 2
    assert kept.get((one,), make, "in words") == 3 and kept.get((one,), make) == 0
    kept.clear()
    assert kept.get((one,), make) == 4


def test_the_oldest_goes_and_its_place_in_memory_deceives_nobody() -> None:
    kept: Remembered[str] = Remembered(2)
    for number in range(50):
        assert kept.get((Turn(),), lambda: f"made {number}") == f"made {number}"  # noqa: B023  called at once
    assert len(kept._kept) == 2
