import numpy as np
import pytest

from vocoder.audio import MelSpectrogram
from vocoder.audio.mel import mel_to_magnitude
from vocoder.audio.settings import AudioConfig
from vocoder.audio.stft import inverse_stft
from vocoder.generators import Vocos
from vocoder.layers.convnext import DepthwiseConv1D
from vocoder.synthesize import Vocoder


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"n_mels": 100}, 13_531_650),  # as the original counts
        ({"n_mels": 80, "dim": 384, "intermediate_dim": 1152, "num_layers": 4}, 4_173_954),
        (
            {
                "n_mels": 80,
                "dim": 384,
                "intermediate_dim": 1152,
                "num_layers": 4,
                "head": {"name": "griffin_lim"},
            },
            4_173_954 - 513 * 385,  # without phases
        ),
    ],
)
def test_parameter_counts(arguments, count):
    generator = Vocos(**arguments)
    generator.build((None, None, arguments["n_mels"]))
    assert generator.count_params() == count


def test_depthwise_equals_torch(rng):
    torch = pytest.importorskip("torch")
    layer = DepthwiseConv1D(7)
    x = rng.standard_normal((2, 10, 3)).astype(np.float32)
    layer.build(x.shape)
    layer.bias.assign(rng.standard_normal(3))
    weight = torch.tensor(np.asarray(layer.kernel).transpose())
    signal = torch.tensor(x).transpose(1, 2)
    bias = torch.tensor(np.asarray(layer.bias))
    expected = torch.nn.functional.conv1d(signal, weight, bias, padding=3, groups=3)
    np.testing.assert_allclose(layer(x), expected.transpose(1, 2).numpy(), atol=1e-6)


def test_magnitudes_are_capped(rng):
    generator = Vocos(dim=16, intermediate_dim=24, num_layers=2)
    mel = 1e4 * rng.standard_normal((1, 20, 80)).astype(np.float32)
    generator(mel)
    generator.out.bias.assign(np.full(1026, 50, np.float32))
    # At most 100 in every bin of every frame: the sum of 512 bins, over a window of mean 0.5.
    waveform = np.asarray(generator(mel))
    assert np.isfinite(waveform).all() and np.abs(waveform).max() < 200


def test_a_prior_is_the_magnitudes_of_the_mel(rng):
    """All that there is of the waveform when the network adds nothing."""
    audio = AudioConfig()
    generator = Vocos(16, 24, 2, prior="mel", audio=vars(audio))
    mel = np.asarray(MelSpectrogram()(0.1 * rng.standard_normal((1, 8192)).astype(np.float32)))
    generator(mel)
    generator.out.kernel.assign(0 * generator.out.kernel)
    magnitude = np.asarray(mel_to_magnitude(mel, audio))
    expected = inverse_stft(magnitude, 0 * magnitude, 256)
    np.testing.assert_allclose(generator(mel), expected, atol=1e-5)


def test_fewer_iterations_in_training(rng):
    arguments = {"dim": 16, "intermediate_dim": 24, "num_layers": 2}
    head = {"name": "griffin_lim", "iterations": 6, "training_iterations": 2}
    generator = Vocos(**arguments, head=head)
    twin = Vocos(**arguments, head=head | {"iterations": 2})
    mel = rng.standard_normal((1, 12, 80)).astype(np.float32)
    generator(mel), twin(mel)
    twin.set_weights(generator.get_weights())
    np.testing.assert_allclose(generator(mel, training=True), twin(mel), atol=1e-6)
    assert np.abs(np.asarray(generator(mel)) - np.asarray(twin(mel))).max() > 1e-3


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("frames", [1, 300, 1100])
@pytest.mark.parametrize("name", ["istft", "griffin_lim"])
def test_long_input_in_windows_equals_the_whole(padding, frames, name, rng):
    more = {"iterations": 3, "training_iterations": 1} if name == "griffin_lim" else {}
    audio = AudioConfig(padding=padding)
    generator = Vocos(
        dim=16, intermediate_dim=24, num_layers=4, audio=vars(audio),
        head={"name": name, "padding": padding} | more, prior="mel" if more else None,
    )  # fmt: skip
    generator.build((None, None, 80))
    mel = rng.standard_normal((2, frames, 80)).astype(np.float32)
    whole = np.asarray(generator(mel))
    assert whole.shape == (2, frames * 256)
    np.testing.assert_allclose(Vocoder(generator).synthesize(mel), whole, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": 0}, "num_layers: "),
        ({"dim": -1}, "dim: "),
        ({"head": "istft"}, "head: must be a mapping"),
        ({"head": {"name": "idft"}}, r"head\.name: unknown 'idft'"),
        ({"head": {"name": "istft", "hop": 3}}, r"head\.hop: unknown 'hop'"),
        ({"head": {"name": "istft", "padding": "valid"}}, r"head\.padding: "),
        (
            {"head": {"name": "istft", "hop_length": 300}},
            r"head\.hop_length: 300 must divide n_fft .* twice",
        ),
        (
            {"head": {"name": "istft", "hop_length": 512, "padding": "center"}},
            r"head\.hop_length: 512 must divide n_fft .* three times",
        ),
        (
            {"head": {"name": "griffin_lim", "iterations": 0}},
            r"head\.iterations: must be at least 1",
        ),
        ({"prior": "mel"}, "prior: needs an audio.n_fft"),
        ({"prior": "mel", "audio": {"win_length": 800}}, "prior: needs an audio.n_fft"),
        ({"prior": "stft"}, 'prior: must be "mel" or null'),
        ({"prior": "mel", "audio": {}, "head": {"name": "wavenext"}}, "prior: needs a head of mag"),
        ({"audio": {"hop_length": 512}}, r"head\.hop_length: 256 makes 256 .* is 512"),
        ({"audio": {}, "n_mels": 100}, "n_mels: 100 is not audio.n_mels"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Vocos(**arguments)
