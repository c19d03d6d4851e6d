import numpy as np
import pytest

from vocoder.data.segments import Segments, permute

FRAMES = np.array([8192, 100, 30000, 200_000, 8191, 8193])


# Files and first samples at some positions: what runs that have begun go on with.
KNOWN = {
    0: ([3, 2, 3, 3], [113408, 19968, 79872, 109312]),
    2**40: ([3, 3, 3, 1], [176896, 152832, 14848, 0]),
}


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 17, 256, 1000])
def test_permutation(size):
    orders = set()
    for key in range(20):
        keys = np.full(size, key, np.uint64)
        order = permute(np.arange(size, dtype=np.uint64), size, keys)
        np.testing.assert_array_equal(np.sort(order), np.arange(size))
        orders.add(tuple(order))
    assert len(orders) >= {1: 1, 2: 2, 3: 4, 4: 8, 5: 12}.get(size, 18)


def test_an_epoch_visits_every_slot_once():
    segments = Segments(FRAMES, 8192, 256, seed=0)
    slots = np.maximum(1, -(-FRAMES // 8192))
    assert segments.slots == slots.sum()
    for epoch in range(3):
        files, _, _ = segments.draw(epoch * segments.slots, segments.slots)
        np.testing.assert_array_equal(np.bincount(files, minlength=6), slots)


def test_segments_lie_within_their_files():
    segments = Segments(FRAMES, 8192, 256, seed=3)
    files, starts, gains = segments.draw(0, 4800)
    assert (starts % 256 == 0).all() and (starts >= 0).all()
    assert (starts + 8192 <= np.maximum(FRAMES[files], 8192)).all()
    assert (gains == 1).all()
    # Every possible start of a file comes, and none much more often than another.
    counts = np.bincount(starts[files == 2] // 256)
    assert len(counts) == (30000 - 8192) // 256 + 1 and counts.min() > 0
    long = starts[files == 3]
    assert abs(long.mean() / (200_000 - 8192) - 0.5) < 0.02


def test_is_a_function_of_seed_and_position():
    one, two = (Segments(FRAMES, 8192, 256, 7, (-6, 0)) for _ in range(2))
    two.draw(0, 80)
    for a, b in zip(one.draw(144, 16), two.draw(144, 16), strict=True):
        np.testing.assert_array_equal(a, b)
    other = Segments(FRAMES, 8192, 256, 8, (-6, 0))
    assert not np.array_equal(one.draw(144, 16)[1], other.draw(144, 16)[1])
    assert not np.array_equal(one.draw(144, 16)[1], one.draw(160, 16)[1])


def test_positions_of_runs_that_have_begun_keep_their_segments():
    segments = Segments(FRAMES, 8192, 256, 7)
    for first, (files, starts) in KNOWN.items():
        found = segments.draw(first, 4)
        assert (found[0].tolist(), found[1].tolist()) == (files, starts)


@pytest.mark.parametrize("seed", [0, 2, 2**63, 2**64 + 1])
def test_any_seed(seed):
    Segments(FRAMES, 8192, 256, seed).draw(10**10, 16)


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_positions_may_be_drawn_in_parts(workers):
    segments = Segments(FRAMES, 8192, 256, 0, (-6, 6))
    size = 16 // workers
    shares = [segments.draw(80 + w * size, size) for w in range(workers)]
    for whole, *parts in zip(segments.draw(80, 16), *shares, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(parts))


def test_gains():
    gains = Segments(FRAMES, 8192, 256, 0, (-6, 0)).draw(0, 3200)[2]
    decibels = 20 * np.log10(gains)
    assert -6 <= decibels.min() < -5.9 and -0.1 < decibels.max() <= 1e-5
    assert abs(decibels.mean() + 3) < 0.1
