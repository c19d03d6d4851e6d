"""What every head promises, and what is each one's own."""

import numpy as np
import pytest

from vocoder import registry
from vocoder.heads import WaveNeXt, build_head

ARGUMENTS = {"waveform": {}, "griffin_lim": {"iterations": 2, "training_iterations": 1}}
SMALL = {"n_fft": 64, "hop_length": 16}


def small(name):
    return build_head(
        {"name": name} | ({} if name == "waveform" else SMALL) | ARGUMENTS.get(name, {})
    )


@pytest.mark.parametrize("name", registry.HEADS)
def test_a_head_is_built_again_from_its_config(name, rng):
    head = small(name)
    x = rng.standard_normal((2, 9, head.channels)).astype(np.float16)
    made = np.asarray(head(x))
    assert made.shape == (2, 9 * head.hop_length) and made.dtype == np.float32
    config = head.get_config()
    assert config["name"] == name and "dtype" not in config
    twin = build_head(config)
    assert twin.get_config() == config
    twin.build(x.shape)
    twin.set_weights(head.get_weights())
    np.testing.assert_array_equal(twin(x), made)


@pytest.mark.parametrize("name", registry.HEADS)
def test_samples_depend_on_no_more_frames_than_the_reach(name, rng):
    head = small(name)
    x = rng.standard_normal((1, 60, head.channels)).astype(np.float32)
    other = x.copy()
    other[0, 30] += 1
    change = np.abs(np.asarray(head(x)) - np.asarray(head(other)))[0]
    frames = np.flatnonzero(change.reshape(60, head.hop_length).max(axis=1) > 1e-6)
    assert frames.min() >= 30 - head.reach and frames.max() <= 30 + head.reach


def test_wavenext_is_two_linear_layers(rng):
    head = WaveNeXt(62, 16)
    x = 0.1 * rng.standard_normal((1, 5, 64)).astype(np.float32)
    head.build(x.shape)
    kernel = rng.standard_normal((64, 16)).astype(np.float32)
    head.linear.kernel.assign(kernel)
    np.testing.assert_allclose(head(x)[0], np.clip(x[0] @ kernel, -1, 1).ravel(), atol=1e-5)
    assert [weight.shape for weight in head.weights] == [(64, 16)]  # without a bias


@pytest.mark.parametrize(
    "wrong", [{}, {"name": "wavenext", "n_fft": 0}, {"name": "waveform", "n": 1}, "istft"]
)
def test_refuses(wrong):
    with pytest.raises(ValueError, match=r"^head(\.\w+)?: "):
        build_head(wrong)
