"""Room that threads share."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from ddplug.data import images
from ddplug.utils.room import Room


class Watched(Room):
    """Notes what was in use at once."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.seen = list[int]()

    @property
    def used(self) -> int:
        return self._used

    @used.setter
    def used(self, value: int) -> None:
        self._used = value
        if hasattr(self, "seen"):
            self.seen.append(value)


def test_threads_never_take_more_than_there_is_and_all_get_their_turn() -> None:
    room = Watched(10)

    def take(amount: int) -> int:
        with room.taken(amount):
            return amount

    amounts = [4, 3, 10, 1, 25, 7] * 20
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(take, amounts)) == amounts
    assert {value for value in room.seen if value > 10} == {25}  # alone
    assert room.used == 0


def test_an_error_gives_back_what_was_taken() -> None:
    room = Room(10)
    with pytest.raises(ZeroDivisionError), room.taken(10):
        _ = 1 / 0
    with room.taken(10):
        assert room.used == 10


def test_pictures_are_decoded_in_the_room_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ant/0", "ant/1", "bee/0", "bee/1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (30, 20), 7).save(tmp_path / f"{name}.png")
    folder, room = images.Folder(tmp_path, size=(2, 2)), Watched(1500)
    monkeypatch.setattr(images, "_DECODING", room)
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(folder.read, [0, 1, 2, 3] * 10))
    assert {tuple(pixels.shape) for pixels, _ in read} == {(1, 2, 2)}
    assert 600 <= max(room.seen) <= 1200  # two pictures of 600 pixels, never three
