"""The discriminators' convolutions against PyTorch's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.layers.conv2d import WIDE, conv2d

# kernel size, strides, groups, channels
FORMS = [
    ((1, 5), (1, 3), 1, 8),
    ((1, 41), (1, 4), 4, 8),
    ((9, 3), (2, 1), 1, 8),
    ((1, 5), (1, 3), 1, WIDE),
]


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated:FutureWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("norm", ["weight", "spectral", None])
def test_output_and_gradients_equal_torch(form, norm, rng):
    torch = pytest.importorskip("torch")
    size, strides, groups, channels = form
    layer = conv2d(channels, size, strides, groups=groups, norm=norm)
    x = rng.standard_normal((2, 12, 61, channels)).astype(np.float32)
    layer.build(x.shape)
    layer.bias.assign(rng.standard_normal(channels))
    theirs = torch.nn.Conv2d(
        channels, channels, size, strides, padding=[k // 2 for k in size], groups=groups
    )
    kernel = torch.tensor(np.asarray(layer._kernel).transpose(3, 2, 0, 1).copy())
    theirs.weight.data, theirs.bias.data = kernel, torch.tensor(np.asarray(layer.bias))
    if norm == "weight":
        theirs = torch.nn.utils.weight_norm(theirs)
        layer.g.assign(rng.uniform(0.5, 2, channels))
        theirs.weight_g.data = torch.tensor(np.asarray(layer.g))[:, None, None, None]
    if norm == "spectral":
        theirs = torch.nn.utils.spectral_norm(theirs)
        theirs.weight_u.data = torch.tensor(np.asarray(layer.u))
    # In training, spectral normalisation iterates first; the new u, v are held fixed.
    signal = torch.tensor(x.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    expected = theirs.train()(signal)
    expected.square().sum().backward()
    inputs = tf.Variable(x)
    with tf.GradientTape() as tape:
        outputs = layer(inputs, training=True) if norm == "spectral" else layer(inputs)
        loss = tf.reduce_sum(tf.square(outputs))
    of_inputs, of_kernel, *_ = tape.gradient(loss, [inputs, layer._kernel])
    np.testing.assert_allclose(
        np.asarray(outputs).transpose(0, 3, 1, 2), expected.detach().numpy(), atol=1e-4
    )
    np.testing.assert_allclose(
        np.asarray(of_inputs).transpose(0, 3, 1, 2), signal.grad.numpy(), rtol=1e-3, atol=1e-3
    )
    weight = {"weight": "weight_v", "spectral": "weight_orig", None: "weight"}[norm]
    grad = getattr(theirs, weight).grad.numpy()
    np.testing.assert_allclose(
        np.asarray(of_kernel).transpose(3, 2, 0, 1), grad, rtol=1e-3, atol=1e-3 * abs(grad).max()
    )
    if norm == "spectral":
        np.testing.assert_allclose(layer.u, theirs.weight_u.numpy(), atol=1e-5)


def test_spectral_norm_comes_to_one(rng):
    layer = conv2d(6, (1, 5), norm="spectral")
    layer.build((None, 1, None, 4))
    for _ in range(100):
        layer.iterate()
    kernel = np.asarray(layer.kernel).reshape(-1, 6)
    assert np.linalg.svd(kernel, compute_uv=False)[0] == pytest.approx(1, abs=1e-4)


def test_power_iteration_only_in_training(rng):
    layer = conv2d(6, (1, 5), norm="spectral")
    x = rng.standard_normal((1, 1, 9, 4)).astype(np.float32)
    layer(x)
    u, kernel = np.asarray(layer.u), np.asarray(layer._kernel)
    layer(x, training=False)
    np.testing.assert_array_equal(layer.u, u)
    layer(x, training=True)
    assert not np.array_equal(layer.u, u)
    np.testing.assert_array_equal(layer._kernel, kernel)  # what is learnt stays as it is


@pytest.mark.parametrize("norm", ["weight", "spectral", None])
def test_is_saved_whole(norm, rng, tmp_path):
    layer = conv2d(6, (1, 5), (1, 2), groups=2, norm=norm)
    model = keras.Sequential([keras.Input((1, None, 4)), layer])
    x = rng.standard_normal((1, 1, 9, 4)).astype(np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    twin = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model(x), twin(x))
    assert len(twin.weights) == len(model.weights) == {"weight": 3, "spectral": 4, None: 2}[norm]


def test_replicas_keep_the_same_singular_vectors(two_replicas, rng):
    with two_replicas.scope():
        layer = conv2d(6, (1, 5), norm="spectral")
        layer.build((None, 1, None, 4))
    alone = conv2d(6, (1, 5), norm="spectral")
    alone.build((None, 1, None, 4))
    alone.set_weights(layer.get_weights())
    x = rng.standard_normal((1, 1, 9, 4)).astype(np.float32)
    two_replicas.run(tf.function(lambda: layer(x, training=True)))
    alone(x, training=True)
    for one in two_replicas.experimental_local_results(layer.u.value):
        np.testing.assert_allclose(one, alone.u, atol=1e-6)
