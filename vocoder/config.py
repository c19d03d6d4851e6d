"""The typed frame of a run and the checks across its fields.

Hydra composes the YAML files of `configs/`; `RunConfig.from_omegaconf` turns the result into the
dataclasses below, which everything else reads. Nothing here imports Keras.
"""

import dataclasses
from pathlib import Path
from typing import Any

from vocoder.errors import InputError


def asset(name: str) -> Path:
    """The path of `configs` or `data/demo`: inside an installed package, or in the repository."""
    installed = Path(__file__).parent / "assets" / name
    return installed if installed.exists() else Path(__file__).parents[1] / name


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
    """

    sample_rate: int = 22050
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int = 1024
    n_mels: int = 80
    fmin: float = 0.0
    fmax: float | None = 8000.0
    log: str = "natural"
    floor: float = 1e-5
    power: float = 1.0
    padding: str = "same"
    htk: bool = False
    norm: str | None = "slaney"
    magnitude_epsilon: float = 1e-9

    @property
    def margins(self) -> tuple[int, int]:
        """Samples (left, right) that the mel of a segment needs beyond the segment's ends.

        Frame i of an utterance covers the samples from `i * hop_length - left` on.
        """
        left = (self.n_fft - self.hop_length) // 2 if self.padding == "same" else self.n_fft // 2
        return left, self.n_fft - self.hop_length - left


@dataclasses.dataclass
class DataConfig:
    """Where the recordings are and how segments are drawn from them.

    Attributes:
        root: Folder of the corpus; paths in file lists are relative to it.
        include: Glob patterns below `root`, as `pathlib` reads them ("**/*.wav").
        train_list, validation_list: Text files, a path a line (up to a `|`, with or without the
            extension). With both, nothing is searched for and nothing is split. With
            `validation_list` alone, the rest of the folder trains.
        validation_fraction: Share of the files that validates, picked by a hash of the path.
        mels: Folder of `.npy` mels, (frames, n_mels) or (n_mels, frames), laid out as the audio,
            to train on instead of the audio's own (fine-tuning on an acoustic model's output).
        batch_size: Segments a step, over all devices.
        segment_length: Samples; a multiple of `audio.hop_length`.
        validation_segments: How many segments of the validation files are measured.
        resample: Whether files of another rate are resampled (soxr) instead of refused.
        stereo: "mix" down to mono or "refuse".
        gain_db: [lowest, highest] random gain of a training segment in dB, or null for none.
        cache: Folder of the corpus indexes; null for the user's cache folder.
        threads: Batches read at a time.
    """

    root: str
    include: list[str] = dataclasses.field(default_factory=lambda: ["**/*"])
    train_list: str | None = None
    validation_list: str | None = None
    validation_fraction: float = 0.05
    mels: str | None = None
    batch_size: int = 16
    segment_length: int = 8192
    validation_segments: int = 64
    resample: bool = False
    stereo: str = "mix"
    gain_db: list[float] | None = None
    cache: str | None = None
    threads: int = 2
