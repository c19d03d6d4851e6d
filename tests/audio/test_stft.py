from functools import partial

import librosa
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from vocoder.audio import stft
from vocoder.audio.settings import AudioConfig


@pytest.mark.parametrize(
    ("padding", "n_fft", "hop_length"),
    [
        *((padding, 4 * hop, hop) for padding in ("same", "center") for hop in (4, 32, 128, 256)),
        ("same", 48, 16), ("center", 48, 16), ("center", 1764, 441),
    ],
)  # fmt: skip
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


@pytest.mark.parametrize("length", [None, 1, 2, 3, 7, 40])
def test_reflects_as_numpy(length, rng):
    """Also what is shorter than the margins, and of a length that is not known beforehand."""
    signature = [tf.TensorSpec((2, length))]
    for margins in ((0, 0), (3, 2), (0, 9), (20, 0)):
        reflected = tf.function(
            partial(stft.pad_reflect, left=margins[0], right=margins[1]), signature
        )
        for samples in (1, 2, 3, 7, 40) if length is None else (length,):
            x = rng.standard_normal((2, samples)).astype(np.float32)
            expected = np.pad(x, [(0, 0), margins], mode="reflect")
            np.testing.assert_array_equal(reflected(x), expected)


@pytest.mark.parametrize("samples", [1, 5, 300])
@pytest.mark.filterwarnings("ignore:n_fft=512 is too large")
def test_short_input_equals_librosa(samples, rng):
    x = rng.standard_normal(samples).astype(np.float32)
    expected = np.abs(librosa.stft(x, n_fft=512, hop_length=128, pad_mode="reflect")) ** 2
    found = stft.power_spectrogram(x[None], 512, 128, 512)
    np.testing.assert_allclose(found[0], expected.T, rtol=1e-3, atol=1e-4)


def test_no_frame_is_told():
    with pytest.raises(ValueError, match=r"^waveform: 300 samples, .* than n_fft \(512\)$"):
        stft.stft(np.zeros((1, 300), np.float32), 512, 128, 512, center=False)
