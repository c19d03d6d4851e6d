"""What every generator promises, on small ones of each class and head."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.audio.settings import AudioConfig
from vocoder.generators import BigVGAN, HiFiGAN, Vocos
from vocoder.layers.convnext import ConvNeXtBlock
from vocoder.layers.residual import ResidualBlock
from vocoder.layers.weight_norm import conv1d_transpose

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
    "head": {"name": "istft", "n_fft": 128, "hop_length": 32},
}
AT_THE_MELS_RATE = {"upsample_rates": (1,), "upsample_kernel_sizes": (3,)}
SMALL = {"upsample_initial_channel": 16}
FEW_BLOCKS = {"resblock_kernel_sizes": (5,), "resblock_dilation_sizes": ((1, 3),)}
PLAIN_END = {
    "activation": "snake",
    "snake_logscale": False,
    "head": {"name": "waveform", "activation": "clip"},
    "use_bias_at_final": False,
}
TINY_VOCOS = {"dim": 16, "intermediate_dim": 24, "num_layers": 2}
# As in `make train`, but for fewer iterations.
GRIFFIN_LIM = {
    "prior": "mel",
    "head": {"name": "griffin_lim", "iterations": 4, "training_iterations": 2},
    "audio": vars(AudioConfig()),
}
# Each makes 256 samples of a frame of 80 bands.
TINY = {
    "hifigan1": (HiFiGAN, SMALL),
    "hifigan2": (HiFiGAN, V3 | SMALL),
    "istft": (HiFiGAN, ISTFT | SMALL),
    "istft_sine": (HiFiGAN, ISTFT | SMALL | {"head": ISTFT["head"] | {"phase": "sine"}}),
    "uneven": (HiFiGAN, V3 | SMALL | {"upsample_kernel_sizes": (17, 16, 7), "uneven_stages": True}),
    "bigvgan": (BigVGAN, SMALL | FEW_BLOCKS),
    "bigvgan_plain": (BigVGAN, SMALL | FEW_BLOCKS | PLAIN_END),
    "vocos_same": (Vocos, TINY_VOCOS),
    "vocos_center": (Vocos, TINY_VOCOS | {"head": {"name": "istft", "padding": "center"}}),
    "vocos_wavenext": (Vocos, TINY_VOCOS | {"head": {"name": "wavenext", "n_fft": 64}}),
    "hifigan_griffin_lim": (HiFiGAN, AT_THE_MELS_RATE | SMALL | FEW_BLOCKS | GRIFFIN_LIM),
    "vocos_griffin_lim": (Vocos, TINY_VOCOS | GRIFFIN_LIM),
}
FRAMES, HOP = 80, 256


def scrambled(name, rng, **arguments):
    """With random weights, also where they start at 0 or as weight normalisation's own norm."""
    cls, tiny = TINY[name]
    generator = cls(**(tiny | arguments))
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
    before, after = generator.receptive_field
    mel = rng.standard_normal((1, FRAMES, 80)).astype(np.float32)
    other = mel.copy()
    other[0, 40] += 10
    change = np.abs(np.asarray(generator(mel)) - np.asarray(generator(other)))
    changed = np.nonzero(change.reshape(FRAMES, HOP).max(axis=1))[0]
    assert changed.min() >= 40 - after and changed.max() <= 40 + before
    assert changed.max() - changed.min() >= before + after - 6  # and it is no idle bound


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
@pytest.mark.parametrize(
    "name", ["hifigan2", "istft", "bigvgan", "vocos_same", "vocos_griffin_lim"]
)
def test_mixed_precision_ends_in_float32(name, precision, rng):
    mel = rng.standard_normal((1, 9, 80)).astype(np.float32)
    generator = scrambled(name, rng, dtype=precision)
    first = generator.layers[1]  # after the head
    assert first.compute_dtype == precision.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(generator(mel).dtype) == "float32"
    assert np.isfinite(np.asarray(generator(mel))).all()
    assert generator.folded().layers[0].compute_dtype == "float32"


def assigned(text):
    """The `name=value` of a message, as arguments."""
    found = re.findall(r"([\w.]+)=(\[[\d,]+\]|\d+|null)", text)
    return {name: json.loads(value) for name, value in found}


def with_assigned(arguments, text):
    arguments = dict(arguments)
    for name, value in assigned(text).items():
        first, _, rest = name.partition(".")
        arguments[first] = arguments.get(first, ISTFT["head"]) | {rest: value} if rest else value
    return arguments


MEL = {"prior": "mel"}


def of_head(n_fft, hop_length, **arguments):
    return {"head": {"name": "istft", "n_fft": n_fft, "hop_length": hop_length} | arguments}


@pytest.mark.parametrize(
    ("cls", "arguments", "ways_out"),
    [
        # 16 kHz with hops of 10 ms, and the mel's own window
        (Vocos, of_head(400, 160), ["head.n_fft=320", "480"]),
        (Vocos, of_head(400, 160) | MEL, ["head.n_fft=320 or 480 with prior=null"]),
        (Vocos, of_head(480, 160) | MEL | {"audio": (400, 160)}, ["prior=null"]),
        (
            Vocos,
            of_head(512, 128) | MEL | {"audio": (1024, 128)},
            ["head.n_fft=1024", "prior=null"],
        ),
        (Vocos, of_head(1024, 275), ["head.n_fft=550", "1100"]),
        (Vocos, of_head(512, 256, padding="center"), ["head.n_fft=768"]),
        (Vocos, of_head(100, 256), ["head.n_fft=512"]),
        (Vocos, of_head(1024, 256) | {"audio": (1024, 512)}, ["head.hop_length=512"]),
        (HiFiGAN, ISTFT | of_head(128, 40), ["head.n_fft=120", "160"]),
        (HiFiGAN, ISTFT | {"audio": (1764, 441)}, ["upsample_rates=[21] with up.*h=21, head.n_f"]),
        (HiFiGAN, ISTFT | {"audio": (1200, 300)}, ["upsample_rates=[10] with .*=30, head.n_fft="]),
        (HiFiGAN, {"audio": (1200, 300)}, ["upsample_rates=[5,5,4,3] with upsample_kernel_sizes"]),
        (BigVGAN, {"audio": (2048, 275)}, ["upsample_rates=[11,5,5] with upsample_kernel_sizes"]),
        (BigVGAN, {"audio": (1024, 251)}, ["upsample_rates=[251] with upsample_kernel_sizes=[503"]),
    ],
)
def test_what_would_do_does(cls, arguments, ways_out):
    small = TINY_VOCOS if cls is Vocos else SMALL | FEW_BLOCKS
    if "audio" in arguments:
        n_fft, hop = arguments["audio"]
        audio = AudioConfig(n_fft=n_fft, hop_length=hop, win_length=n_fft, padding="center")
        arguments = arguments | {"audio": vars(audio)}
    elif arguments.get("prior"):
        n_fft, hop = arguments["head"]["n_fft"], arguments["head"]["hop_length"]
        arguments = arguments | {"audio": {"n_fft": n_fft, "hop_length": hop, "win_length": n_fft}}
    arguments = small | arguments
    with pytest.raises(ValueError) as error:
        cls(**arguments)
    message = str(error.value)
    for way_out in ways_out:
        assert re.search(way_out.replace("[", r"\["), message), message
    message = message.removesuffix(" would do")
    told, _, besides = message.split("; ")[-1].partition(" with ")
    first, *second = told.split(" or ")
    key = first.split("=")[0]
    for way_out in (first, *(other if "=" in other else f"{key}={other}" for other in second)):
        cls(**with_assigned(with_assigned(arguments, way_out), besides))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upsample_rates": (5,), "upsample_kernel_sizes": (10,)}, "10 must .*; 9 or 11 would do"),
        ({"upsample_rates": (5,), "upsample_kernel_sizes": (4,)}, "4 must .*; 5 would do"),
        ({"upsample_rates": (5,), "upsample_kernel_sizes": (6,)}, "6 must .*; 5 or 7 would do"),
        ({"upsample_initial_channel": 100}, "100 can't be halved 4 times; 96 or 112 can"),
        ({"upsample_initial_channel": 3}, "3 can't be halved 4 times; 16 can"),
        ({"resblock_kernel_sizes": (3, 4, 5)}, "4 is not odd; 3 or 5 would do"),
    ],
)
def test_the_nearest_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{list(arguments)[-1]}: {message}$"):
        HiFiGAN(**arguments)


def test_uneven_stages_equal_torchs(rng):
    """In the middle and at the ends, up to where the waveform is cut."""
    torch = pytest.importorskip("torch")
    layer = conv1d_transpose(3, 16, 5, weight_norm=False)
    x = rng.standard_normal((2, 7, 4)).astype(np.float32)
    layer.build(x.shape)
    layer.bias.assign(rng.standard_normal(3))
    generator = HiFiGAN((5,), (16,), 8, uneven_stages=True)
    found = np.asarray(generator.raised(layer, x))
    weight = torch.tensor(np.asarray(layer.kernel)).permute(2, 1, 0)
    bias = torch.tensor(np.asarray(layer.bias))
    expected = torch.nn.functional.conv_transpose1d(
        torch.tensor(x).transpose(1, 2), weight, bias, stride=5, padding=(16 - 5) // 2
    )
    assert found.shape == (2, 7 * 5 + 1, 3)
    np.testing.assert_allclose(found, expected.transpose(1, 2).numpy(), atol=1e-5)


def operations(function):
    """Types of all operations in a traced function, those of functions it calls included."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("name", ["istft", "uneven", "bigvgan", "vocos_same", "vocos_center"])
def test_graph_is_plain(name, rng):
    """Any number of frames, without control flow, FFTs and complex numbers: it can be exported."""
    generator = scrambled(name, rng)
    signature = {"mel": tf.TensorSpec((None, None, 80), tf.float32)}
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
