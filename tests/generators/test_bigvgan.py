import numpy as np
import pytest

from vocoder.generators import BigVGAN


def test_parameter_count():
    # HiFi-GAN V1's, and two numbers a channel of 18 activations in four stages and one at the end;
    # the original tells 14 M.
    generator = BigVGAN(weight_norm=False)
    generator.build((None, None, 80))
    assert generator.count_params() == 13_926_017 + 2 * (18 * (256 + 128 + 64 + 32) + 32)


@pytest.mark.parametrize("tanh", [True, False])
def test_the_end_bounds_the_waveform(tanh, rng):
    head = {"name": "waveform", "activation": "tanh" if tanh else "clip"}
    generator = BigVGAN((4,), (8,), 4, 2, (3,), ((1,),), head=head, use_bias_at_final=False)
    mel = rng.standard_normal((1, 12, 80)).astype(np.float32)
    small = np.asarray(generator(mel))
    generator.conv_post.g.assign(1000 * np.asarray(generator.conv_post.g))
    large = np.asarray(generator(mel))
    assert np.abs(large).max() == 1 and generator.conv_post.bias is None
    before = np.arctanh(small) if tanh else small
    expected = np.tanh(1000 * before) if tanh else np.clip(1000 * before, -1, 1)
    np.testing.assert_allclose(large, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activation": "relu"}, "activation: "),
        ({"head": {"name": "waveform", "activation": "relu"}}, r"head\.activation: "),
        ({"upsample_rates": (8, 8, 2)}, "upsample_kernel_sizes: 4 of them for 3"),
        ({"audio": {"hop_length": 300}}, "upsample_rates: 8 x 8 x 2 x 2 makes 256 .* is 300"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BigVGAN(**arguments)
