"""Reading, working and writing at the same time, in order, with few boxes at once."""

import threading

import pytest

from dconv._pipeline import run_pipeline

BOXES = [(slice(number, number + 1),) for number in range(20)]
TIMEOUT = 30


def numbers(box):
    return box[0].start


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_every_box_once_in_order(n_workers):
    written = []
    run_pipeline(
        BOXES,
        lambda box: 10 * numbers(box),
        lambda box, pixels: pixels + numbers(box),
        lambda box, answers: written.append((numbers(box), answers)),
        n_workers,
    )
    assert written == [(number, 11 * number) for number in range(20)]


def test_the_next_box_is_read_and_the_last_written_while_one_is_worked_on():
    read = [threading.Event() for _ in BOXES]
    written = [threading.Event() for _ in BOXES]

    def compute(box, pixels):
        number = numbers(box)
        if number + 1 < len(BOXES):
            assert read[number + 1].wait(TIMEOUT)
        if number > 0:
            assert written[number - 1].wait(TIMEOUT)

    run_pipeline(BOXES, lambda box: read[numbers(box)].set(), compute, lambda box, _: written[numbers(box)].set(), 1)


@pytest.mark.parametrize("n_workers", [1, 3])
def test_few_boxes_are_held(n_workers):
    lock, held, most = threading.Lock(), set(), 0

    def read(box):
        nonlocal most
        with lock:
            held.add(numbers(box))
            most = max(most, len(held))

    def write(box, answers):
        with lock:
            held.remove(numbers(box))

    run_pipeline(BOXES, read, lambda box, pixels: None, write, n_workers)
    assert 1 < most <= n_workers + 2


@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_the_first_error_ends_the_work(stage):
    written, begun = [], []

    def failing(name, box):
        if name == stage and numbers(box) == 5:
            raise OSError("broken")

    def read(box):
        begun.append(numbers(box))
        failing("read", box)

    def write(box, answers):
        failing("write", box)
        written.append(numbers(box))

    with pytest.raises(OSError, match="broken"):
        run_pipeline(BOXES, read, lambda box, pixels: failing("compute", box), write, 2)
    assert written[:5] == [0, 1, 2, 3, 4]
    assert 5 not in written
    assert max(begun) < 12
