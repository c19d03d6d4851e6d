"""Speech from a mel without a network: what a vocoder has to be better than."""

import librosa
import numpy as np

from vocoder.audio.mel import mel_filterbank
from vocoder.audio.settings import AudioConfig

ITERATIONS = 60


class GriffinLim:
    """The phases by Griffin and Lim's algorithm, accelerated (Perraudin et al. 2013), by librosa.

    The linear spectrum is that of least squares, by the filterbank's pseudo-inverse, with what is
    below 0 set to 0: librosa's non-negative least squares, many times slower, ends at the same.

    Args:
        audio: Settings of the mel.
    """

    def __init__(self, audio: AudioConfig):
        self.audio = audio
        filterbank = mel_filterbank(
            audio.sample_rate,
            audio.n_fft,
            audio.n_mels,
            audio.fmin,
            audio.fmax,
            audio.htk,
            audio.norm,
        )
        self._inverse = np.linalg.pinv(filterbank)

    def synthesize(self, features: dict[str, np.ndarray]) -> np.ndarray:
        """Log-mel {"mel": (frames, n_mels)} -> waveform (frames * hop_length,)."""
        audio, mel = self.audio, features["mel"]
        # A frame more on each side, because librosa's signal ends in the middle of the outer ones.
        mel = np.pad(mel, [(1, 1), (0, 0)], mode="edge")
        linear = np.exp(mel) if audio.log == "natural" else 10.0**mel
        magnitude = np.maximum(linear @ self._inverse, 0) ** (1 / audio.power)
        wave = librosa.griffinlim(
            magnitude.T,
            n_iter=ITERATIONS,
            hop_length=audio.hop_length,
            win_length=audio.win_length,
            n_fft=audio.n_fft,
            random_state=0,
        )
        left, _ = audio.margins
        start = audio.hop_length + left - audio.n_fft // 2
        return wave[start : start + (len(mel) - 2) * audio.hop_length]
