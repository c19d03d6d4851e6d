"""What every generator promises, on small ones of each class and head."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.config import AudioConfig
from vocoder.generators import BigVGAN, HiFiGAN, Vocos
from vocoder.layers.convnext import ConvNeXtBlock
from vocoder.layers.residual import ResidualBlock

V3 = {
    "upsample_rates": (8, 8, 4),
    "upsample_kernel_sizes": (16, 16, 8),
    "resblock": 2,
    "resblock_kernel_sizes": (3, 5, 7),
    "resblock_dilation_sizes": ((1, 2), (2, 6), (3, 12)),
}
ISTFT = {
    "upsample_rates": (8,),
    "upsample_kernel_sizes": (16,),
    "istft_n_fft": 128,
    "istft_hop_length": 32,
}
SMALL = {"upsample_initial_channel": 16}
FEW_BLOCKS = {"resblock_kernel_sizes": (5,), "resblock_dilation_sizes": ((1, 3),)}
PLAIN_END = {
    "activation": "snake",
    "snake_logscale": False,
    "use_tanh_at_final": False,
    "use_bias_at_final": False,
}
TINY_VOCOS = {"dim": 16, "intermediate_dim": 24, "num_layers": 2}
# Each makes 256 samples of a frame of 80 bands.
TINY = {
    "hifigan1": (HiFiGAN, SMALL),
    "hifigan2": (HiFiGAN, V3 | SMALL),
    "istft": (HiFiGAN, ISTFT | SMALL),
    "istft_sine": (HiFiGAN, ISTFT | SMALL | {"istft_phase": "sine"}),
    "bigvgan": (BigVGAN, SMALL | FEW_BLOCKS),
    "bigvgan_plain": (BigVGAN, SMALL | FEW_BLOCKS | PLAIN_END),
    "vocos_same": (Vocos, TINY_VOCOS),
    "vocos_center": (Vocos, TINY_VOCOS | {"istft_padding": "center"}),
}
FRAMES, HOP = 80, 256


def scrambled(name, rng, **arguments):
    """With random weights, also where they start at 0 or as weight normalisation's own norm."""
    cls, tiny = TINY[name]
    generator = cls(**tiny, **arguments)
    generator.build((None, None, generator.n_mels))
    for variable in generator.trainable_variables:
        noise = rng.standard_normal(variable.shape)
        variable.assign(np.asarray(variable) * (1 + 0.3 * noise) + 0.02 * noise)
    return generator


@pytest.mark.parametrize("name", TINY)
def test_folding_changes_nothing(name, rng):
    generator = scrambled(name, rng)
    folded = generator.folded()
    mel = rng.standard_normal((2, 12, 80)).astype(np.float32)
    waveform = np.asarray(generator(mel))
    assert waveform.shape == (2, 12 * HOP)
    np.testing.assert_allclose(folded(mel), waveform, atol=1e-5)
    assert "g" not in {variable.name for variable in folded.variables}


@pytest.mark.parametrize("name", TINY)
def test_receptive_field_is_never_exceeded(name, rng):
    generator = scrambled(name, rng)
    reach = generator.receptive_field
    mel = rng.standard_normal((1, FRAMES, 80)).astype(np.float32)
    other = mel.copy()
    other[0, 40] += 10
    change = np.abs(np.asarray(generator(mel)) - np.asarray(generator(other)))
    changed = np.nonzero(change.reshape(FRAMES, HOP).max(axis=1))[0]
    assert changed.min() >= 40 - reach and changed.max() <= 40 + reach
    assert changed.max() - changed.min() >= 2 * reach - 6  # and it is no idle bound


@pytest.mark.parametrize("name", TINY)
def test_keras_file_carries_everything(name, rng, tmp_path):
    audio = AudioConfig(fmax=None)
    generator = scrambled(name, rng, audio=vars(audio))
    for model in (generator, generator.folded()):
        model.save(tmp_path / "generator.keras")
        loaded = keras.saving.load_model(tmp_path / "generator.keras")
        assert loaded.audio == audio
        mel = rng.standard_normal((1, 9, 80)).astype(np.float32)
        np.testing.assert_array_equal(loaded(mel), model(mel))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["hifigan2", "istft", "bigvgan", "vocos_same"])
def test_mixed_precision_ends_in_float32(name, precision, rng):
    mel = rng.standard_normal((1, 9, 80)).astype(np.float32)
    generator = scrambled(name, rng, dtype=precision)
    first = generator.layers[0]
    assert first.compute_dtype == precision.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(generator(mel).dtype) == "float32"
    assert np.isfinite(np.asarray(generator(mel))).all()
    assert generator.folded().layers[0].compute_dtype == "float32"


def operations(function):
    """Types of all operations in a traced function, those of functions it calls included."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("name", ["istft", "bigvgan", "vocos_same", "vocos_center"])
def test_graph_is_plain(name, rng):
    """Any number of frames, without control flow, FFTs and complex numbers: it can be exported."""
    generator = scrambled(name, rng)
    signature = tf.TensorSpec((None, None, 80), tf.float32)
    graph = tf.function(generator.call).get_concrete_function(signature)
    found = " ".join(operations(graph))
    assert not re.search("While|If|FFT|Complex|TensorList", found), found


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("hifigan1", "float32"),
        ("bigvgan", "mixed_bfloat16"),
        ("vocos_same", "float32"),
        ("vocos_same", "mixed_bfloat16"),
    ],
)
def test_rematerialization_computes_blocks_twice_and_the_same_gradient(
    name, dtype, rng, monkeypatch
):
    generator = scrambled(name, rng, dtype=dtype)
    mel = rng.standard_normal((2, 4, 80)).astype(np.float32)
    blocks = [
        layer
        for layer in generator._flatten_layers()
        if isinstance(layer, (ResidualBlock, ConvNeXtBlock))
    ]
    called = []
    for block in blocks:
        call = block.call
        monkeypatch.setattr(block, "call", lambda x, call=call: called.append(1) or call(x))

    def gradients():
        called.clear()
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(generator(mel, training=True)))
        return tape.gradient(loss, generator.trainable_variables)

    expected = gradients()
    assert len(called) == len(blocks) > 0
    generator.rematerialization = True
    found = gradients()
    assert len(called) == 2 * len(blocks)
    for a, b in zip(found, expected, strict=True):
        tolerance = {"float32": 1e-5, "mixed_bfloat16": 6e-2}[dtype] * np.abs(b).max()
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)
