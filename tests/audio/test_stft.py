import numpy as np
import pytest

from vocoder.audio import stft


@pytest.mark.parametrize(("n_fft", "hop_length"), [(128, 32), (16, 4), (64, 16), (512, 128)])
def test_inverse_stft_gives_the_signal_back(rng, n_fft, hop_length):
    frames = 20
    signal = rng.standard_normal(frames * hop_length)
    cut = (n_fft - hop_length) // 2
    # Zeros beyond the ends: there, the head's window is incomplete and has to be divided out.
    padded = np.pad(signal, (cut, n_fft - hop_length - cut))
    windowed = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    spectrum = np.fft.rfft(windowed * stft.hann(n_fft))[None]
    real, imaginary = (part.astype(np.float32) for part in (spectrum.real, spectrum.imag))
    result = np.asarray(stft.inverse_stft(real, imaginary, hop_length))
    assert result.shape == (1, frames * hop_length)
    np.testing.assert_allclose(result[0], signal, atol=1e-5)


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
