import numpy as np
import pytest
from keras import ops

from vocoder.audio import stft
from vocoder.config import AudioConfig


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize(
    ("n_fft", "hop_length"), [(128, 32), (16, 4), (48, 16), (512, 128), (1024, 256)]
)
def test_inverse_stft_gives_the_signal_back(rng, n_fft, hop_length, padding):
    frames = 20
    signal = rng.uniform(-1, 1, (2, frames * hop_length)).astype(np.float32)
    audio = AudioConfig(n_fft=n_fft, hop_length=hop_length, win_length=n_fft, padding=padding)
    padded = stft.pad_reflect(signal, *audio.margins)
    window = stft.hann(n_fft).astype("float32")
    parts = ops.stft(padded, n_fft, hop_length, n_fft, window=window, center=False)
    result = np.asarray(stft.inverse_stft(*parts, hop_length, padding))
    np.testing.assert_allclose(result, signal, atol=1e-5)  # at the ends too


def test_inverse_stft_of_a_single_frame(rng):
    # A frame of its own: the window is divided out where nothing overlaps.
    signal = rng.uniform(-1, 1, 64).astype(np.float32)
    spectrum = np.fft.rfft(signal * stft.hann(64))[None, None]
    parts = (part.astype(np.float32) for part in (spectrum.real, spectrum.imag))
    result = np.asarray(stft.inverse_stft(*parts, 16))
    np.testing.assert_allclose(result[0], signal[24:40], atol=1e-5)


def test_overlap_add_by_hand():
    frames = np.array([[[1.0, 2, 3, 4], [10, 20, 30, 40]]], np.float32)
    np.testing.assert_array_equal(stft.overlap_add(frames, 2), [[1.0, 2, 3 + 10, 4 + 20, 30, 40]])


def test_power_of_a_sine():
    # A sine of amplitude 1 on a bin has |X| = sum(window) / 2 = n_fft / 4 there.
    time = np.arange(4096)
    sine = np.sin(2 * np.pi * 8 / 256 * time)[None].astype(np.float32)
    power = np.asarray(stft.power_spectrogram(sine, 256, 64, 256, center=False))
    np.testing.assert_allclose(power[0, :, 8], 64.0**2, rtol=1e-4)
    assert power[0, :, 12:].max() < 1e-3
