import librosa
import numpy as np
import pytest
from keras import ops

from vocoder.audio.stft import inverse_stft, stft
from vocoder.heads import GriffinLim


@pytest.mark.parametrize(("n_fft", "hop"), [(1024, 256), (1764, 441)])
def test_griffin_lim_equals_librosas(n_fft, hop, rng):
    magnitude = np.abs(rng.standard_normal((n_fft // 2 + 1, 60))).astype(np.float32)
    layer = GriffinLim(n_fft, hop, "center", iterations=3, training_iterations=1)
    made = np.asarray(layer(np.log(magnitude.T)[None]))[0]
    assert made.shape == (60 * hop,)
    expected = librosa.griffinlim(magnitude, n_iter=3, hop_length=hop, momentum=0.99, init=None)
    # At the ends it depends on how these are padded.
    middle = slice(layer.reach * hop, (60 - layer.reach) * hop)
    np.testing.assert_allclose(made[middle], expected[middle], atol=1e-4)


def test_griffin_lim_comes_close_to_the_magnitudes(rng):
    wave = np.cumsum(rng.standard_normal((1, 16384)), axis=1).astype(np.float32) / 100
    real, imaginary = stft(ops.pad(wave, [[0, 0], [384, 384]]), 1024, 256, 1024, center=False)
    magnitude = np.hypot(real, imaginary)
    errors = []
    for iterations in (1, 8, 32):
        made = GriffinLim(1024, 256, iterations=iterations, magnitude_limit=1e4)(np.log(magnitude))
        found = stft(ops.pad(made, [[0, 0], [384, 384]]), 1024, 256, 1024, center=False)
        errors.append(np.linalg.norm(np.hypot(*found) - magnitude) / np.linalg.norm(magnitude))
    assert errors[2] < errors[1] < errors[0] and errors[2] < 0.15, errors


def test_griffin_lim_has_fewer_iterations_in_training(rng):
    x = rng.standard_normal((1, 12, 513)).astype(np.float32)
    layer = GriffinLim(1024, 256, iterations=4, training_iterations=2)
    other = GriffinLim(1024, 256, iterations=2)
    np.testing.assert_array_equal(layer(x, training=True), other(x))
    assert np.abs(np.asarray(layer(x)) - np.asarray(other(x))).max() > 1e-3
    assert GriffinLim.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.parametrize("padding", ["same", "center"])
def test_by_fft_and_by_matrix(padding, rng):
    real, imaginary = rng.standard_normal((2, 2, 9, 65)).astype(np.float32)
    by_matrix = inverse_stft(real, imaginary, 32, padding)
    by_fft = inverse_stft(real, imaginary, 32, padding, with_fft=True)
    np.testing.assert_allclose(by_fft, by_matrix, atol=1e-5)
