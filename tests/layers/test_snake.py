import numpy as np
import pytest

from vocoder.layers.snake import AntiAliasedSnake, kaiser_sinc


def activated(x, kind="snakebeta", log_scale=True, alpha=None, beta=None):
    layer = AntiAliasedSnake(kind, log_scale)
    layer.build(x.shape)
    if alpha is not None:
        layer.alpha.assign(alpha)
    if beta is not None:
        layer.beta.assign(beta)
    return np.asarray(layer(x))


def test_filter_equals_the_published_one():
    # `upsample.filter` in the checkpoints of BigVGAN, half of it; the other half mirrors it.
    half = [0.00202897, 0.00938946, -0.02554346, -0.05765738, 0.12857261, 0.4432098]
    np.testing.assert_allclose(kaiser_sinc(), half + half[::-1], atol=1e-7)


@pytest.mark.parametrize("samples", [1, 15, 16, 17, 40, 64])
def test_equals_the_definition(samples, rng):
    """Zeros between the samples, filter, snake, filter, every other sample; edges repeat."""
    x = rng.standard_normal((2, samples, 3)).astype(np.float32)
    alpha, beta = 0.5 * rng.standard_normal((2, 3))
    expected = np.zeros(x.shape)
    for i in range(2):
        for c in range(3):
            padded = np.pad(x[i, :, c], 5, "edge")
            stuffed = np.zeros(2 * len(padded))
            stuffed[::2] = padded
            doubled = 2 * np.convolve(stuffed, kaiser_sinc())[15 : 15 + 2 * samples]
            doubled += np.sin(np.exp(alpha[c]) * doubled) ** 2 / np.exp(beta[c])
            padded = np.pad(doubled, (5, 6), "edge")
            expected[i, :, c] = np.convolve(padded, kaiser_sinc(), "valid")[::2]
    np.testing.assert_allclose(activated(x, alpha=alpha, beta=beta), expected, atol=1e-5)


def test_a_constant_goes_through_the_snake_alone():
    x = np.full((1, 33, 2), 0.7, np.float32)
    log_scale = activated(x, alpha=[0, np.log(2)], beta=[0, np.log(4)])
    for c, expected in enumerate((0.7 + np.sin(0.7) ** 2, 0.7 + np.sin(1.4) ** 2 / 4)):
        np.testing.assert_allclose(log_scale[0, :, c], expected, atol=1e-5)
    linear = activated(x, log_scale=False, alpha=[1, 2], beta=[1, 4])
    np.testing.assert_allclose(linear, log_scale, atol=1e-6)
    snake = activated(x, kind="snake", log_scale=False, alpha=[1, 2])
    np.testing.assert_allclose(snake[0, :, 1], 0.7 + np.sin(1.4) ** 2 / 2, atol=1e-5)


def test_aliases_are_attenuated():
    """The snake doubles frequencies: of 0.33 it makes 0.66, which alone would fold to 0.34."""
    time = np.arange(640)
    x = 0.5 * np.sin(2 * np.pi * 0.33 * time, dtype=np.float32)[None, :, None]

    def at(y, frequency):
        y = y[0, 160:560, 0]  # away from the ends, whole periods
        return np.abs(np.exp(-2j * np.pi * frequency * time[: len(y)]) @ y) / len(y)

    assert at(activated(x), 0.34) < 0.25 * at(x + np.sin(x) ** 2, 0.34)
    assert at(activated(x), 0.33) > 0.8 * at(x, 0.33)
