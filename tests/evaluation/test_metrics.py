"""Known values of every metric, and that noise makes each worse."""

import sys

import librosa
import numpy as np
import pytest
import soundfile

from vocoder import registry
from vocoder.errors import InputError
from vocoder.evaluation import metric
from vocoder.paths import asset

RATE = 22050
IDENTITY = {
    "pesq_wb": 4.644,
    "stoi": 1.0,
    "mcd": 0.0,
    "mr_stft": 0.0,
    "log_mel_l1": 0.0,
    "f0_rmse": 0.0,
    "voicing_f1": 1.0,
    "periodicity_rmse": 0.0,
}


def built(name):
    try:
        return metric.build(name, "metric")
    except metric.MissingPackage as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def speech():
    samples, rate = soundfile.read(asset("data/demo/slt/slt_001.flac"))
    assert rate == RATE
    return samples[: int(2.3 * RATE)]


def tone(f0, seconds=2.0, rate=RATE):
    """Thirty harmonics of a constant F0."""
    time = np.arange(int(seconds * rate)) / rate
    return sum(0.2 / k * np.sin(2 * np.pi * k * f0 * time) for k in range(1, 31))


def test_names_are_unique():
    metrics = [registry.find(registry.METRICS, name, "k") for name in registry.METRICS]
    names = [measure.name for found in metrics for measure in found.measures]
    assert len(set(names)) == len(names) and "rtf" not in names
    assert set(IDENTITY) <= set(names)


@pytest.mark.parametrize("name", registry.METRICS)
def test_identity_is_best_and_noise_is_worse(name, speech, rng):
    found = built(name)
    noise = rng.standard_normal(len(speech))
    same, some, much = (found(speech, speech + level * noise, RATE) for level in (0, 0.003, 0.2))
    assert list(same) == [measure.name for measure in found.measures]
    for measure in found.measures:
        values = [made[measure.name] for made in (same, some, much)]
        assert all(isinstance(value, float) for value in values)
        if measure.name in IDENTITY:
            assert values[0] == pytest.approx(IDENTITY[measure.name], abs=1e-3)
        else:  # ratings of the sound alone may take a little noise for nothing
            del values[1]
        worse = sorted(values, reverse=measure.higher_is_better)
        assert values == worse and len(set(values)) == len(values), (measure.name, values)


def test_half_the_amplitude(rng):
    x = 0.2 * rng.standard_normal(RATE)
    # Spectral convergence |S - S/2| / |S|, and the log magnitudes' distance.
    assert built("mr_stft")(x, x / 2, RATE)["mr_stft"] == pytest.approx(0.5 + np.log(2), 1e-4)
    assert built("log_mel_l1")(x, x / 2, RATE)["log_mel_l1"] == pytest.approx(np.log(2), 1e-4)
    assert built("mcd")(x, x / 2, RATE)["mcd"] == pytest.approx(0, abs=1e-3)  # c_0 is left out


@pytest.mark.parametrize("rate", [16000, 22050, 44100])
def test_mcd_of_a_filter(rate, rng):
    """A ripple of A nepers on the mel scale is sqrt(2) A in c_k, and 10 / ln 10 of that in dB."""
    x = 0.1 * rng.standard_normal(2 * rate)
    frequencies = np.minimum(np.fft.rfftfreq(len(x), 1 / rate), 8000)
    place = librosa.hz_to_mel(frequencies) / librosa.hz_to_mel(8000)
    found = {}
    for k in (1, 3, 20):
        response = np.exp(0.3 * np.cos(np.pi * k * place))
        y = np.fft.irfft(np.fft.rfft(x) * response, len(x))
        found[k] = built("mcd")(x, y, rate)["mcd"]
    expected = 10 / np.log(10) * np.sqrt(2) * 0.3
    assert [found[1], found[3]] == pytest.approx([expected] * 2, rel=0.02)
    assert found[20] < 0.15 * expected  # beyond the thirteen coefficients


@pytest.mark.parametrize("cents", [50, -50, 300])
def test_a_shift_of_f0(cents):
    made = built("pitch")(tone(200), tone(200 * 2 ** (cents / 1200)), RATE)
    assert made["f0_rmse"] == pytest.approx(abs(cents), abs=1)
    assert made["voicing_f1"] > 0.99


def test_half_of_the_voiced_frames_are_missed():
    x = tone(150)
    y = np.where(np.arange(len(x)) < len(x) / 2, x, 0)
    found = built("pitch")(x, y, RATE)
    assert found["voicing_f1"] == pytest.approx(2 / 3, abs=0.02)  # precision 1, recall 1/2
    assert found["f0_rmse"] < 3
    # Periodicity is 0 in one half of the frames, and there the error is all of it.
    whole = built("pitch")(x, 0 * x, RATE)["periodicity_rmse"]
    assert found["periodicity_rmse"] == pytest.approx(whole / np.sqrt(2), rel=0.05)
    assert 0.3 < whole <= 1


def test_of_two_lengths_the_shorter_counts(speech):
    found = built("log_mel_l1")
    noisy = speech[:RATE] + 0.1
    assert found(speech, noisy, RATE) == found(speech[:RATE], noisy, RATE)
    assert found(noisy, speech, RATE) == found(noisy, speech[:RATE], RATE)


@pytest.mark.parametrize("name", registry.METRICS)
def test_not_defined(name, speech):
    found = built(name)
    hole = speech.copy()
    hole[100] = np.nan
    for pair in ((speech[:3000],) * 2, (speech, hole)):
        assert all(np.isnan(value) for value in found(*pair, RATE).values())


def test_silence(speech):
    zeros = np.zeros_like(speech)
    for pair in ((speech, zeros), (zeros, speech), (zeros, zeros), (speech, zeros + 1e-30)):
        assert np.isnan(built("pesq_wb")(*pair, RATE)["pesq_wb"])
    assert np.isnan(built("stoi")(speech[:6000], speech[:6000], RATE)["stoi"])
    assert abs(built("stoi")(speech, zeros, RATE)["stoi"]) < 1e-6
    found = built("pitch")(zeros, zeros, RATE)
    assert np.isnan(found["f0_rmse"]) and np.isnan(found["voicing_f1"])
    assert found["periodicity_rmse"] == 0


def test_pesq_of_many_utterances(rng):
    """ITU's code crashes with more than fifty."""
    found = built("pesq_wb")
    burst = np.concatenate([0.1 * rng.standard_normal(4000), np.zeros(4000)])
    x = np.tile(burst, 80)  # 40 s at 16 kHz
    assert found(x, x, 16000)["pesq_wb"] == pytest.approx(4.644, abs=1e-3)
    y = x + 0.01 * rng.standard_normal(len(x))
    stretches = zip(np.array_split(x, 3), np.array_split(y, 3), strict=True)
    parts = [found(*pair, 16000)["pesq_wb"] for pair in stretches]
    assert found(x, y, 16000)["pesq_wb"] == pytest.approx(np.mean(parts), abs=1e-6)


def test_ratings_are_repeatable(speech):
    found = built("plcmos")
    np.random.seed(7)  # noqa: NPY002
    first = found(speech, speech, RATE)
    after = np.random.rand()  # noqa: NPY002
    assert found(speech, speech, RATE) == first
    np.random.seed(7)  # noqa: NPY002
    assert np.random.rand() == after  # noqa: NPY002


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(metric.MissingPackage, match="^k: pesq_wb needs pesq, which is not instal"):
        metric.build("pesq_wb", "k")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "speechmos.plcmos", raising=False)
    with pytest.raises(metric.MissingPackage, match="plcmos needs speechmos, which .*eval"):
        metric.build("plcmos", "k")


def test_an_unknown_metric():
    with pytest.raises(InputError, match="k: unknown 'pesq'; did you mean 'pesq_wb'"):
        metric.build("pesq", "k")
