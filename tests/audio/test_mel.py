import keras
import librosa
import numpy as np
import pytest

from vocoder.audio import MelSpectrogram
from vocoder.audio.mel import mel_filterbank, mel_to_magnitude
from vocoder.audio.settings import AudioConfig
from vocoder.audio.stft import hann


@pytest.mark.parametrize(("name", "fmax"), [("mel_fmax8000", 8000.0), ("mel_fmaxnone", None)])
def test_equals_hifigan(golden, name, fmax):
    reference = golden("mel_hifigan")
    mel = np.asarray(MelSpectrogram(fmax=fmax)(reference["audio"][None]))[0]
    # The reference, in float32, is itself up to 2.7e-4 away from the same mel in float64, in
    # nine of 5,120 values near the floor (-10.7); 1e-4 of the value holds everywhere.
    np.testing.assert_allclose(mel, reference[name], rtol=1e-4)
    error = np.abs(mel - reference[name])
    assert np.mean(error < 1e-4) > 0.995
    assert error[reference[name] > -10].max() < 2e-4


def test_is_closer_to_float64_than_the_reference(golden):
    audio = golden("mel_hifigan")["audio"]
    padded = np.pad(audio.astype(np.float64), 384, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, 1024)[::256] * hann(1024)
    magnitude = np.sqrt(np.abs(np.fft.rfft(frames)) ** 2 + 1e-9)
    exact = np.log(np.maximum(magnitude @ mel_filterbank(22050, 1024, 80, 0, 8000.0), 1e-5))
    mel = np.asarray(MelSpectrogram()(audio[None]))[0]
    assert np.abs(mel - exact).max() < np.abs(golden("mel_hifigan")["mel_fmax8000"] - exact).max()


def test_equals_librosa_power_mel_htk_log10(rng):
    audio = 0.3 * rng.standard_normal(8192).astype(np.float32)
    layer = MelSpectrogram(
        24000, 512, 128, 400, 40, 50.0, 11000.0, log="log10", floor=1e-7, power=2,
        padding="center", htk=True, norm=None, magnitude_epsilon=0.0,
    )  # fmt: skip
    expected = librosa.feature.melspectrogram(
        y=audio, sr=24000, n_fft=512, hop_length=128, win_length=400, n_mels=40, fmin=50,
        fmax=11000, power=2, htk=True, norm=None, pad_mode="reflect",
    )  # fmt: skip
    expected = np.log10(np.maximum(expected, 1e-7)).T[:-1]  # librosa's one more frame at the end
    np.testing.assert_allclose(np.asarray(layer(audio[None]))[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("n_fft", "hop_length"),
    [(1764, 441), (2048, 275), (1023, 256), (1024, 600), (512, 512), (400, 160)],
)
@pytest.mark.parametrize("extra", [0, 1, 255])
@pytest.mark.filterwarnings("ignore:Empty filters detected")  # 80 bands of 201 bins
def test_centred_frames_equal_librosas_whatever_the_hop(n_fft, hop_length, extra, rng):
    """Of the whole, and of the middle with its margins."""
    audio = 0.3 * rng.standard_normal(20 * hop_length + extra).astype(np.float32)
    settings = AudioConfig(22050, n_fft, hop_length, n_fft, padding="center", magnitude_epsilon=0)
    found = np.asarray(MelSpectrogram(**vars(settings))(audio[None]))[0]
    expected = librosa.feature.melspectrogram(
        y=audio, n_fft=n_fft, hop_length=hop_length, n_mels=80, fmax=8000, power=1,
        pad_mode="reflect",
    )  # fmt: skip
    expected = np.log(np.maximum(expected, 1e-5)).T[: len(audio) // hop_length]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    left, right = settings.margins
    begin, end = 8 * hop_length - left, 12 * hop_length + right
    middle = MelSpectrogram(**(vars(settings) | {"padding": "valid"}))(audio[None, begin:end])
    np.testing.assert_allclose(middle[0], expected[8:12], atol=1e-3)


def test_only_whole_hops_between_frames_of_the_same_padding():
    with pytest.raises(ValueError, match='^hop_length: .* "same", 441 .* 440 or 442 would do'):
        AudioConfig(n_fft=1764, hop_length=441, win_length=1764)
    with pytest.raises(ValueError, match="^hop_length: 600 is longer than n_fft"):
        AudioConfig(n_fft=512, hop_length=600, win_length=512, padding="center")


@pytest.mark.parametrize("padding", ["same", "center"])
@pytest.mark.parametrize("samples", [1, 255, 256, 300, 700])
def test_short_audio_is_reflected_over_and_over(samples, padding, rng):
    audio = rng.standard_normal((1, samples)).astype(np.float32)
    layer = MelSpectrogram(padding=padding)
    if samples < 256:
        with pytest.raises(ValueError, match=f"waveform: {samples} samples are no frame"):
            layer(audio)
        return
    padded = np.pad(audio, [(0, 0), layer.settings.margins], mode="reflect")
    expected = MelSpectrogram(padding="valid")(padded)
    np.testing.assert_allclose(layer(audio), expected[:, : samples // 256], atol=1e-4)


def test_valid_padding_is_the_middle_of_the_whole(rng):
    audio = rng.standard_normal((2, 16384)).astype(np.float32)
    whole = np.asarray(MelSpectrogram()(audio))
    part = np.asarray(MelSpectrogram(padding="valid")(audio[:, 2560 - 384 : 2560 + 2048 + 384]))
    assert part.shape == (2, 8, 80)
    np.testing.assert_allclose(part, whole[:, 10:18], atol=1e-4)


def test_config_round_trip(rng):
    layer = MelSpectrogram(16000, 512, 128, 512, 20, 10.0, 4000.0, log="log10", padding="center")
    twin = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    audio = rng.standard_normal((1, 4096)).astype(np.float32)
    np.testing.assert_array_equal(layer(audio), twin(audio))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"win_length": 2048}, "win_length: 2048"),
        ({"hop_length": 0}, "hop_length: "),
        ({"fmax": 12000.0}, "fmax: 12000"),
        ({"fmin": 9000.0}, "fmin: 9000"),
        ({"n_mels": 0}, "n_mels: "),
        ({"log": "ln"}, "log: "),
        ({"floor": 0.0}, "floor: "),
        ({"padding": "none"}, "padding: "),
        ({"power": 3}, "power: "),
        ({"norm": "l2"}, "norm: "),
        ({"n_fft": 1024.0}, "n_fft: must be a whole number, not 1024.0"),
        ({"hop_length": True}, "hop_length: must be a whole number, not True"),
        ({"sample_rate": 2**31}, "sample_rate: must be at most 1000000"),
        ({"sample_rate": float("inf")}, "sample_rate: must be a whole number, not inf"),
        ({"n_fft": 2**31, "win_length": 1024}, "n_fft: must be at most 65536"),
        ({"n_mels": 10**9}, "n_mels: must be at most"),
        ({"fmin": float("nan")}, "fmin: must be a finite number, not nan"),
        ({"fmax": "8000"}, "fmax: must be a finite number, not '8000'"),
        ({"floor": float("inf")}, "floor: must be a finite number"),
        ({"power": True}, "power: must be 1 or 2, not True"),
        ({"htk": 1}, "htk: must be true or false, not 1"),
        ({"magnitude_epsilon": -1.0}, "magnitude_epsilon: must be at least 0"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        MelSpectrogram(**arguments)


@pytest.mark.parametrize(
    "settings",
    [{}, {"power": 2.0, "log": "log10", "htk": True, "norm": None, "fmin": 50.0, "fmax": None}],
    ids=["hifigan", "power_log10_htk"],
)
def test_magnitudes_of_a_mel(settings, rng):
    """What has that mel; bands that no bin is in, and negative values, set aside."""
    audio = AudioConfig(n_mels=40, **settings)
    bank = mel_filterbank(22050, 1024, 40, audio.fmin, audio.fmax, audio.htk, audio.norm)
    # Smooth over frequency, so that least squares need nothing negative.
    spectrum = np.interp(np.arange(513), np.linspace(0, 512, 9), rng.uniform(2, 3, 9))
    bands = (spectrum**audio.power @ bank)[None, None]
    log = np.log if audio.log == "natural" else np.log10
    found = np.asarray(mel_to_magnitude(log(bands).astype(np.float32), audio))
    assert found.shape == (1, 1, 513)
    np.testing.assert_allclose(found**audio.power @ bank, bands, rtol=1e-3)
    if audio.fmax:  # nothing is known of what is above
        assert (found[..., 380:] == np.float32(1e-3)).all()


def test_magnitudes_of_a_mel_are_close_to_librosas(rng):
    magnitude = np.abs(rng.standard_normal((513, 4))) * np.linspace(3, 0.1, 513)[:, None]
    bank = mel_filterbank(22050, 1024, 80, 0, 8000.0)
    mel = np.log(magnitude.T @ bank).astype(np.float32)
    found = np.asarray(mel_to_magnitude(mel[None], AudioConfig()))[0].T
    expected = librosa.feature.inverse.mel_to_stft(
        bank.T @ magnitude, sr=22050, n_fft=1024, power=1, fmin=0, fmax=8000
    )
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.97
    extreme = np.asarray(mel_to_magnitude(np.float32([[[-1e4] * 80, [1e4] * 80]]), AudioConfig()))
    assert np.isfinite(extreme).all() and extreme.min() >= np.float32(1e-3)
