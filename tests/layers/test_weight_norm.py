import keras
import numpy as np
import pytest

from vocoder.layers import weight_norm


def layers():
    return [
        (weight_norm.conv1d(6, 3, weight_norm=True, dilation_rate=2), 2),
        (weight_norm.conv1d_transpose(4, 8, 4, weight_norm=True), 2),
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_starts_as_the_plain_layer_and_scales_with_g(index, rng):
    layer, channels = layers()[index]
    x = rng.standard_normal((1, 10, channels)).astype(np.float32)
    before = np.asarray(layer(x))
    np.testing.assert_allclose(layer.kernel, layer.v, atol=1e-6)
    layer.v.assign(3 * np.asarray(layer.v))  # the length of v doesn't matter
    np.testing.assert_allclose(layer(x), before, atol=1e-5)
    layer.g.assign(2 * np.asarray(layer.g))
    np.testing.assert_allclose(layer(x), 2 * before, atol=1e-5)  # biases are 0


@pytest.mark.parametrize("index", [0, 1])
def test_equals_torch(index, rng):
    torch = pytest.importorskip("torch")
    layer, channels = layers()[index]
    x = rng.standard_normal((1, 10, channels)).astype(np.float32)
    layer(x)
    layer.g.assign(rng.uniform(0.5, 2, layer.g.shape))
    v = torch.tensor(np.transpose(np.asarray(layer.v), (2, 1, 0)).copy())
    g = torch.tensor(np.asarray(layer.g))[:, None, None]
    signal = torch.tensor(x).transpose(1, 2)
    weight = torch._weight_norm(v, g, 0)
    if index == 0:
        expected = torch.nn.functional.conv1d(signal, weight, padding=2, dilation=2)
    else:
        expected = torch.nn.functional.conv_transpose1d(signal, weight, stride=4, padding=2)
    np.testing.assert_allclose(layer(x), expected.transpose(1, 2).numpy(), atol=1e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_is_saved_whole(index, rng, tmp_path):
    layer, channels = layers()[index]
    model = keras.Sequential([keras.Input((None, channels)), layer])
    layer.g.assign(rng.uniform(0.5, 2, layer.g.shape))
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.standard_normal((1, 10, channels)).astype(np.float32)
    np.testing.assert_array_equal(model(x), twin(x))
    assert len(twin.trainable_variables) == 3
