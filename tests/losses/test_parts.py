"""What holds for every loss of this package, and the golden figures."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.audio.mel import mel_filterbank
from vocoder.audio.stft import power_spectrogram
from vocoder.losses import (
    LossCfg,
    MelLoss,
    MultiLoss,
    MultiResolutionMelLoss,
    MultiResolutionSTFTLoss,
    STFTLoss,
    WaveformL1Loss,
)

LOSSES = {
    "waveform_l1": WaveformL1Loss(),
    "mel": MelLoss(),
    "mel_log10_linear": MelLoss(log="log10", linear_weight=0.5, n_fft=512, n_mels=40),
    "mel_same": MelLoss(padding="same"),
    "multi_resolution_mel": MultiResolutionMelLoss(log=["natural", "log10", "natural"]),
    "stft": STFTLoss(512, 128, 512),
    "stft_batch": STFTLoss(1024, 120, 600, convergence="batch"),
    "stft_convergence_alone": STFTLoss(512, 128, 512, magnitude_weight=0.0),
    "multi_resolution_stft": MultiResolutionSTFTLoss(),
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def speechlike(rng, batch=3, samples=4096):
    decay = np.exp(-np.linspace(0, 4, samples))
    return (0.5 * rng.standard_normal((batch, samples)) * decay).astype(np.float32)


def test_zero_for_equals_and_more_for_worse(loss, rng):
    y = speechlike(rng)
    noise = rng.standard_normal(y.shape).astype(np.float32)
    values = [float(loss(y, y + size * noise)) for size in (0.0, 0.01, 0.1, 1.0)]
    assert values[0] == pytest.approx(0, abs=1e-6)
    assert values == sorted(values) and values[1] > 1e-3


@pytest.mark.parametrize("case", ["silence", "true_silent", "pred_silent", "equal", "full_scale"])
def test_gradients_are_finite(loss, case, rng):
    y = speechlike(rng)
    silence, square = np.zeros_like(y), np.sign(y)
    true, pred = {
        "silence": (silence, silence),
        "true_silent": (silence, y),
        "pred_silent": (y, silence),
        "equal": (y, y),
        "full_scale": (square, -square),
    }[case]
    pred = tf.Variable(pred)
    with tf.GradientTape() as tape:
        value = loss(true, pred)
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, pred)).all()


def test_mean_over_examples_is_that_of_the_halves(loss, rng):
    if getattr(loss, "convergence", "example") == "batch":
        pytest.skip("couples the examples of a batch, by definition")
    true, pred = speechlike(rng, 4), speechlike(rng, 4)
    true[0] *= 0.01
    halves = [float(loss(true[i : i + 2], pred[i : i + 2])) for i in (0, 2)]
    assert float(loss(true, pred)) == pytest.approx(np.mean(halves), rel=1e-5)


def test_sample_weight(loss, rng):
    true, pred = speechlike(rng), speechlike(rng)
    weighted = float(loss(true, pred, sample_weight=np.array([2.0, 0, 0], np.float32)))
    if getattr(loss, "convergence", "example") == "example":
        assert weighted == pytest.approx(2 * float(loss(true[:1], pred[:1])) / 3, rel=1e-5)
    assert float(loss(true, pred, sample_weight=np.ones(3, np.float32))) == pytest.approx(
        float(loss(true, pred)), rel=1e-5
    )


def test_config_round_trip(loss, rng):
    twin = keras.losses.deserialize(keras.losses.serialize(loss))
    true, pred = speechlike(rng), speechlike(rng)
    assert twin.name == loss.name
    assert float(twin(true, pred)) == float(loss(true, pred))


def test_half_precision_is_computed_in_float32(loss, rng):
    y = speechlike(rng)
    half = tf.cast(y * 0.5, "float16")
    value = loss(y, half)
    assert value.dtype == tf.float32
    assert float(value) == pytest.approx(float(loss(y, np.asarray(half, np.float32))), rel=1e-5)


def silent(rng, kind, samples=4096):
    """What is recorded where nobody speaks: digital zeros, or a step of 16 bits of dither."""
    dither = rng.integers(-1, 2, (1, samples)) / 2**15
    return np.float32({"zeros": 0 * dither, "dither": dither, "noise": 10 * dither}[kind])


def gradient_norm(loss, true, pred):
    pred = tf.Variable(pred)
    with tf.GradientTape() as tape:
        value = loss(true, pred)
    return float(tf.norm(tape.gradient(value, pred)))


@pytest.mark.parametrize("convergence", ["example", "batch"])
@pytest.mark.parametrize("kind", ["zeros", "dither"])
def test_silence_is_no_reason_for_large_values_and_gradients(kind, convergence, rng):
    alone = MultiResolutionSTFTLoss(convergence=convergence, magnitude_weight=0)
    both = MultiResolutionSTFTLoss(convergence=convergence)
    recorded = silent(rng, kind)
    noise = rng.standard_normal(recorded.shape).astype(np.float32)
    for level in (1.0, 0.05, 1e-3):
        assert 0.7 < float(alone(recorded, level * noise)) < 1.2
        assert float(both(recorded, level * noise)) < 15  # the logarithms have up to 11.6
        assert gradient_norm(both, recorded, level * noise) < 50
    # Where both are next to silent, it is the logarithms that pull the hardest.
    assert gradient_norm(alone, recorded, 1e-4 * noise) < 50
    assert gradient_norm(alone, recorded, 1e-5 * noise) < 100


@pytest.mark.parametrize("convergence", ["example", "batch"])
def test_what_is_not_silent_has_the_plain_ratio(convergence, rng):
    loss = STFTLoss(512, 128, 400, convergence=convergence, magnitude_weight=0)
    for recorded in (0.01 * speechlike(rng, 1), silent(rng, "noise") * 2):
        made = (0.05 * rng.standard_normal(recorded.shape)).astype(np.float32)
        true, pred = (np.sqrt(power_spectrogram(y, 512, 128, 400)) for y in (recorded, made))
        expected = np.linalg.norm(true - pred) / np.linalg.norm(true)
        assert float(loss(recorded, made)) == pytest.approx(expected, rel=1e-4)


def test_ending_in_zeros_takes_no_larger_steps(rng):
    """The gradient of weights that make silence into noise, as they do at first."""
    multi = MultiLoss([LossCfg(MultiResolutionMelLoss(), 5.0), LossCfg(MultiResolutionSTFTLoss())])
    clips = speechlike(rng, 4, 8192)
    norms = []
    for zeros in (0, 4096, 8192):
        recorded = clips.copy()
        recorded[0, 8192 - zeros :] = 0
        layer = keras.layers.Conv1D(1, 9, padding="same", bias_initializer="ones")
        noise = rng.standard_normal((4, 8192, 1)).astype(np.float32) / 20
        layer.build(noise.shape)
        with tf.GradientTape() as tape:
            total = multi(recorded, layer(noise)[..., 0])
        norms.append(float(tf.linalg.global_norm(tape.gradient(total, layer.trainable_weights))))
    assert max(norms) < 2 * norms[0]


@pytest.mark.parametrize("samples", [1, 2, 3, 100, 255, 512, 700])
def test_short_input_is_reflected_over_and_over(loss, samples, rng):
    true, pred = 0.3 * rng.standard_normal((2, 2, samples)).astype(np.float32)
    if getattr(loss, "padding", None) == "same" and samples < loss.hop_length:
        with pytest.raises(ValueError, match="^waveform: .* fewer than n_fft"):
            loss(true, pred)
        return
    value = float(loss(true, pred))
    assert np.isfinite(value) and value > 1e-3
    assert float(loss(true, true)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "key"),
    [
        (MultiResolutionSTFTLoss(convergence="batch"), "multi_resolution"),
        (STFTLoss(512, 128, 512, convergence="batch"), "single_512"),
        (
            STFTLoss(1024, 120, 600, convergence="batch", magnitude_weight=0),
            "spectral_convergence_1024",
        ),
        (STFTLoss(1024, 120, 600, convergence_weight=0), "log_magnitude_1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_equals_auraloss(golden, loss, key):
    reference = golden("stft_auraloss")
    value = float(loss(reference["y_true"], reference["y_pred"]))
    assert value == pytest.approx(float(reference[key]), rel=1e-4)


def test_waveform_l1_by_hand():
    assert float(
        WaveformL1Loss()(np.array([[1.0, 0.0]]), np.array([[0.5, -0.5]]))
    ) == pytest.approx(0.5)


def test_half_the_amplitude_in_closed_form(rng):
    """|S - S/2| / |S| = 1/2, and the logarithms differ by log 2 everywhere."""
    y = (0.5 * rng.standard_normal((2, 4096))).astype(np.float32)
    assert float(STFTLoss(magnitude_weight=0)(y, 0.5 * y)) == pytest.approx(0.5, rel=1e-4)
    assert float(STFTLoss(convergence_weight=0)(y, 0.5 * y)) == pytest.approx(np.log(2), rel=1e-3)
    assert float(MelLoss()(y, 0.5 * y)) == pytest.approx(np.log(2), rel=1e-3)
    assert float(MelLoss(log="log10")(y, 0.5 * y)) == pytest.approx(np.log10(2), rel=1e-3)


def test_linear_mel_term_in_closed_form(rng):
    y = (0.5 * rng.standard_normal((1, 4096))).astype(np.float32)
    padded = np.pad(y[0], 512, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256]
    magnitude = np.abs(np.fft.rfft(frames * np.hanning(1025)[:-1]))
    expected = np.mean(magnitude @ mel_filterbank(22050, 1024, 80)) / 2
    with_term, without = MelLoss(linear_weight=1.0), MelLoss()
    difference = float(with_term(y, 0.5 * y)) - float(without(y, 0.5 * y))
    assert difference == pytest.approx(expected, rel=1e-3)


def test_multi_resolution_is_the_mean_of_its_resolutions(rng):
    true, pred = speechlike(rng), speechlike(rng)
    singles = [MelLoss(n_fft=n, n_mels=m) for n, m in ((512, 40), (1024, 80), (2048, 160))]
    expected = np.mean([float(loss(true, pred)) for loss in singles])
    assert float(MultiResolutionMelLoss()(true, pred)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (STFTLoss, {"convergence": "none"}, "convergence: "),
        (STFTLoss, {"win_length": 2048}, "win_length: 2048"),
        (STFTLoss, {"power_floor": 0}, "power_floor: "),
        (STFTLoss, {"n_fft": 512.0}, "n_fft: must be a whole number, not 512.0"),
        (STFTLoss, {"magnitude_weight": -1}, "convergence_weight: "),
        (MultiResolutionSTFTLoss, {"n_fft": (512,)}, "n_fft: "),
        (MelLoss, {"fmax": 20000}, "fmax: 20000 is above half the sample rate"),
        (MelLoss, {"padding": "valid"}, "padding: "),
        (MelLoss, {"linear_weight": -1}, "linear_weight: "),
        (MelLoss, {"n_fft": "1024"}, "n_fft: must be a whole number, not '1024'"),
        (MultiResolutionMelLoss, {"n_fft": 512}, "n_fft: must be a list, such as .a,b., not 512"),
        (MultiResolutionMelLoss, {"n_mels": (5,)}, "n_mels: "),
    ],
)
def test_refuses(cls, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        cls(**arguments)
