"""Settings of a mel spectrogram, and their checks. Nothing here imports Keras."""

import dataclasses

from vocoder.kinds import (
    Flag,
    Number,
    Text,
    Whole,
    check_bool,
    check_number,
    check_whole,
    either,
)


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """How waveforms and their mel spectrograms are made; librosa's names.

    Attributes:
        sample_rate: Hz.
        n_fft, hop_length, win_length: Samples.
        n_mels: Number of mel bands.
        fmin, fmax: Hz; `fmax=None` is half the sample rate.
        log: "natural" (HiFi-GAN, Vocos, BigVGAN) or "log10" (DAC).
        floor: Smallest mel magnitude before the logarithm.
        power: Exponent of the magnitude spectrogram: 1 or 2.
        padding: "same": (n_fft - hop_length) / 2 samples reflected on each side, so that there are
            samples / hop_length frames (HiFi-GAN). "center": n_fft / 2, as in librosa and torch;
            the one more frame that this gives at the end is left out.
        htk: HTK's mel scale instead of Slaney's.
        norm: "slaney" for bands of equal area, None for bands of equal height.
        magnitude_epsilon: Added to the squared magnitude before the root, which keeps gradients
            finite at silence (1e-9 in HiFi-GAN).

    Raises:
        ValueError: "argument: reason".
    """

    sample_rate: Whole = 22050
    n_fft: Whole = 1024
    hop_length: Whole = 256
    win_length: Whole = 1024
    n_mels: Whole = 80
    fmin: Number = 0.0
    fmax: Number | None = 8000.0
    log: Text = "natural"
    floor: Number = 1e-5
    power: Number = 1.0
    padding: Text = "same"
    htk: Flag = False
    norm: Text | None = "slaney"
    magnitude_epsilon: Number = 1e-9

    def __post_init__(self):
        check_window(self.n_fft, self.hop_length, self.win_length)
        check_bands(self.sample_rate, self.n_mels, self.fmin, self.fmax, self.norm)
        check_log(self.log, self.floor)
        if isinstance(self.power, bool) or self.power not in (1, 2):
            raise ValueError(f"power: must be 1 or 2, not {self.power!r}")
        if self.padding not in ("same", "center"):
            raise ValueError(f'padding: must be "same" or "center", not {self.padding!r}')
        check_bool("htk", self.htk)
        check_number("magnitude_epsilon", self.magnitude_epsilon, 0, 1)
        if self.hop_length > self.n_fft:
            raise ValueError(f"hop_length: {self.hop_length} is longer than n_fft ({self.n_fft})")
        if self.padding == "same" and (self.n_fft - self.hop_length) % 2:
            nearest = either(self.hop_length - 1, self.hop_length + 1)
            raise ValueError(
                f'hop_length: with padding "same", {self.hop_length} must be n_fft ({self.n_fft}) '
                f'less an even number; {nearest} would do, or padding "center"'
            )

    @property
    def margins(self) -> tuple[int, int]:
        """Samples (left, right) that the mel of a segment needs beyond the segment's ends.

        Frame i of an utterance covers the samples from `i * hop_length - left` on.
        """
        return frame_margins(self.n_fft, self.hop_length, self.padding)


def frame_margins(n_fft: int, hop_length: int, padding: str) -> tuple[int, int]:
    """Samples (left, right) around whole hops of a signal that make them as many frames.

    Frame i then begins `left` samples before sample `i * hop_length`. Where hops are so long that
    the last frame ends before the signal does, there are none on the right.
    """
    left = (n_fft - hop_length) // 2 if padding == "same" else n_fft // 2
    return left, max(0, n_fft - hop_length - left)


# What is larger than any mel of audio, so that a config from a stranger can't ask for all memory.
MOST_SAMPLES, MOST_BANDS, HIGHEST_RATE = 2**16, 2**10, 1_000_000


def check_window(n_fft: int, hop_length: int, win_length: int) -> None:
    """Raises `ValueError("argument: reason")` unless the three lengths fit together."""
    for name, value in {"n_fft": n_fft, "hop_length": hop_length, "win_length": win_length}.items():
        check_whole(name, value, 1, MOST_SAMPLES)
    if win_length > n_fft:
        raise ValueError(f"win_length: {win_length} is longer than n_fft ({n_fft})")


def check_bands(sample_rate, n_mels: int, fmin, fmax, norm) -> None:
    """Raises `ValueError("argument: reason")` unless a mel filterbank can be made of these."""
    check_whole("sample_rate", sample_rate, 1, HIGHEST_RATE)
    check_number("fmin", fmin)
    highest = sample_rate / 2
    if fmax is not None:
        check_number("fmax", fmax)
        if fmax > highest:
            raise ValueError(f"fmax: {fmax:g} is above half the sample rate ({highest:g})")
    if not 0 <= fmin < (highest if fmax is None else fmax):
        raise ValueError(f"fmin: {fmin:g} is not between 0 and fmax ({fmax})")
    check_whole("n_mels", n_mels, 1, MOST_BANDS)
    if norm not in (None, "slaney"):
        raise ValueError(f'norm: must be "slaney" or null, not {norm!r}')


def check_log(log: str, floor: float) -> None:
    """Raises `ValueError("argument: reason")` for an unknown logarithm or a floor of 0."""
    if log not in ("natural", "log10"):
        raise ValueError(f'log: must be "natural" or "log10", not {log!r}')
    check_number("floor", floor, 1e-30, 1)
