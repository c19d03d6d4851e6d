"""Which segment is at which position: a pure function of (seed, position).

The batch of a step has the positions from step times batch size on.

An epoch visits every slot of the corpus once, in an order that is computed and not stored. A file
of `n` samples has `ceil(n / segment_length)` slots, so long files count by their duration.
"""

import dataclasses

import numpy as np

ROUNDS = 4


@dataclasses.dataclass(frozen=True)
class Segments:
    """Draws segments of a set of files.

    Args:
        frames: (files,) samples of each file, at the rate of training.
        segment_length, hop_length: Samples; segments begin at multiples of the hop.
        seed: Another seed, another order.
        gain_db: (lowest, highest) gain in dB, or None.
    """

    frames: np.ndarray
    segment_length: int
    hop_length: int
    seed: int
    gain_db: tuple[float, float] | None = None
    # Of the slots of file i, the last is ends[i] - 1.
    ends: np.ndarray = dataclasses.field(init=False, repr=False)

    def __post_init__(self):
        slots = np.maximum(1, -(-self.frames // self.segment_length))
        object.__setattr__(self, "ends", np.cumsum(slots, dtype=np.int64))

    @property
    def slots(self) -> int:
        """How many segments an epoch has."""
        return int(self.ends[-1])

    def draw(self, first: int, count: int):
        """The segments at some positions.

        Args:
            first, count: Positions, from 0 on.

        Returns:
            Files, first samples, and linear gains, (count,) each.
        """
        position = np.uint64(first) + np.arange(count, dtype=np.uint64)
        epoch, place = np.divmod(position, np.uint64(self.slots))
        seed = _mix(np.array([self.seed % 2**64], np.uint64))
        slot = permute(place, self.slots, _mix(epoch ^ seed))
        files = np.searchsorted(self.ends, slot.astype(np.int64), side="right")
        starts = np.maximum(0, (self.frames[files] - self.segment_length) // self.hop_length) + 1
        noise = _mix(_mix(position) ^ seed)
        begin = (noise % starts.astype(np.uint64)).astype(np.int64) * self.hop_length
        gains = np.ones(count, np.float32)
        if self.gain_db is not None:
            low, high = self.gain_db
            uniform = (_mix(noise) >> np.uint64(11)).astype(np.float64) / 2.0**53
            gains = (10 ** ((low + (high - low) * uniform) / 20)).astype(np.float32)
        return files, begin, gains

    def redraw(self, position: int, attempt: int) -> tuple[int, int]:
        """What comes instead of a segment that turned out bad.

        Args:
            position: Where it is.
            attempt: From 1 on; another number, another segment.

        Returns:
            File and first sample.
        """
        key = np.array([position, attempt, self.seed % 2**64], np.uint64)
        noise = _mix(key[:1] ^ _mix(key[1:2] ^ _mix(key[2:])))
        slot = int(noise[0] % np.uint64(self.slots))
        file = int(np.searchsorted(self.ends, slot, side="right"))
        starts = max(0, int(self.frames[file]) - self.segment_length) // self.hop_length + 1
        return file, int(_mix(noise)[0] % np.uint64(starts)) * self.hop_length


_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mix(x):
    """SplitMix64's finaliser (Steele et al. 2014): well-spread 64 bits of any 64 bits."""
    with np.errstate(over="ignore"):
        x = x + _ODD
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(place, size: int, key):
    """Where a pseudo-random permutation of `range(size)` takes some of its places.

    A Feistel network permutes a power of four that covers `size`; what falls outside goes through
    it again until it falls inside (cycle walking, Black and Rogaway 2002).

    Args:
        place: uint64 array, all below `size`.
        size: At least 1.
        key: uint64 array of the same shape; equal keys make one permutation.
    """
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    mask = (np.uint64(1) << half) - np.uint64(1)
    place, outside = place.copy(), np.ones(place.shape, bool)
    while outside.any():
        left, right = place[outside] >> half, place[outside] & mask
        for turn in range(ROUNDS):
            mixed = _mix(right ^ _mix(key[outside] ^ np.uint64(turn)))
            left, right = right, left ^ (mixed & mask)
        place[outside] = (left << half) | right
        outside = place >= np.uint64(size)
    return place
