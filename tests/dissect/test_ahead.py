"""Work one step ahead: same items, same errors, and never more than one step."""

from collections.abc import Iterator

import pytest

from dissect.ahead import ahead


def test_the_same_items_in_order() -> None:
    assert list(ahead(iter([3, None, 1]))) == [3, None, 1]
    assert list(ahead(iter([]))) == []


def test_one_step_and_not_two() -> None:
    made = []

    def items() -> Iterator[int]:
        for i in range(5):
            made.append(i)
            yield i

    for item in ahead(items()):
        assert len(made) <= item + 2


def test_an_error_comes_up_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("gone")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(OSError, match="gone"):
        next(found)
