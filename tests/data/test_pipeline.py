import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

from configs import data_config
from vocoder.audio import MelSpectrogram
from vocoder.audio.settings import AudioConfig
from vocoder.data.mels import other_level, other_scale, settings_that_fit
from vocoder.data.pipeline import AudioPipeline, reading_errors
from vocoder.errors import InputError
from vocoder.paths import asset

AUDIO = AudioConfig()
LENGTHS = {"a/1.wav": 30000, "a/2.flac": 5000, "b/3.wav": 8192, "b/4.wav": 60001, "c/5.wav": 22050}


def write(path, samples, rate=22050):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate)


@pytest.fixture
def root(tmp_path, rng):
    for name, length in LENGTHS.items():
        write(tmp_path / "corpus" / name, rng.uniform(-0.5, 0.5, length))
    return tmp_path / "corpus"


@pytest.fixture
def pipeline(root, tmp_path):
    def make(audio=AUDIO, seed=0, **values):
        values = {"batch_size": 4, "validation_fraction": 0.4} | values
        cache = str(tmp_path / "cache")
        return AudioPipeline(data_config(root, cache=cache, **values), audio, seed)

    return make


def taken(dataset, count):
    return [(x["mel"].numpy(), waveform.numpy()) for x, waveform in dataset.take(count)]


def assert_same(some, others):
    assert len(some) == len(others)
    for (mel, waveform), (other_mel, other_waveform) in zip(some, others, strict=True):
        np.testing.assert_array_equal(waveform, other_waveform)
        np.testing.assert_allclose(mel, other_mel, atol=1e-6)


def test_batches(pipeline):
    dataset = pipeline().train()
    features, waveform = dataset.element_spec
    mel = features["mel"]
    assert mel.shape == (4, 32, 80) and mel.dtype == tf.float32
    assert waveform.shape == (4, 8192) and waveform.dtype == tf.float32
    for mel, waveform in taken(dataset, 5):
        assert mel.shape == (4, 32, 80) and waveform.shape == (4, 8192)
        assert np.isfinite(mel).all() and np.abs(waveform).max() <= 0.5


@pytest.mark.parametrize(
    ("padding", "n_fft", "hop"),
    [("same", 1024, 256), ("center", 1024, 256), ("center", 1764, 441), ("center", 1024, 600)],
)
def test_mels_are_slices_of_the_whole_utterances(pipeline, root, padding, n_fft, hop):
    audio = AudioConfig(n_fft=n_fft, hop_length=hop, win_length=1024, padding=padding)
    frames = 8192 // hop
    length = frames * hop
    made = pipeline(audio, segment_length=length)
    mel_of = MelSpectrogram(**vars(audio))
    whole = []
    for i in range(len(made.reader.training.index)):
        samples, _ = soundfile.read(made.reader.training.index.path(i), dtype="float32")
        samples = np.pad(samples, (0, max(0, length - len(samples))))
        whole.append((samples, np.asarray(mel_of(samples[None]))[0]))
    for step, (mel, waveform) in enumerate(taken(made.train(), 8)):
        rows, starts, _ = made.reader._segments.draw(step * 4, 4)
        for j, (row, start) in enumerate(zip(rows, starts, strict=True)):
            samples, mels = whole[row]
            np.testing.assert_array_equal(waveform[j], samples[start : start + length])
            np.testing.assert_allclose(mel[j], mels[start // hop :][:frames], atol=1e-5)


def test_repeats_resumes_and_shards(pipeline):
    made = pipeline(gain_db=[-6, 6])
    six = taken(made.train(), 6)
    assert_same(six, taken(pipeline(gain_db=[-6, 6], threads=1).train(), 6))
    assert_same(six[4:], taken(made.train(start_step=4), 2))
    halves = [taken(made.train(shares=[w], of=2), 6) for w in range(2)]
    joined = [
        tuple(map(np.concatenate, zip(*pair, strict=True))) for pair in zip(*halves, strict=True)
    ]
    assert_same(six, joined)
    assert not np.array_equal(six[0][1], taken(pipeline(seed=1).train(), 1)[0][1])
    with pytest.raises(InputError, match=r"data\.batch_size: 4 can't be shared by 3 devices"):
        made.train(of=3)


def test_gains_do_not_clip(pipeline):
    loud = taken(pipeline(gain_db=[20, 20]).train(), 3)
    for _, waveform in loud:
        assert 0.9 < np.abs(waveform).max() <= 1
    quiet = taken(pipeline(gain_db=[-20, -20]).train(), 3)
    plain = taken(pipeline().train(), 3)
    for (_, a), (_, b) in zip(quiet, plain, strict=True):
        np.testing.assert_allclose(a, 0.1 * b, atol=1e-6)


def test_validation(pipeline):
    made = pipeline()
    frames = made.reader.held_out.samples
    every = int(np.maximum(1, frames // 8192).sum())
    for wanted in (1, 2, 100):
        batches = taken(pipeline(validation_segments=wanted, batch_size=3).validation(), -1)
        waveforms = np.concatenate([waveform for _, waveform in batches])
        assert len(waveforms) == min(wanted, every)
        assert len(np.unique(waveforms, axis=0)) == len(waveforms)
        assert all(len(mel) == len(waveform) for mel, waveform in batches)
    assert_same(taken(made.validation(), -1), taken(made.validation(), -1))


def test_utterances(pipeline, root):
    made = pipeline()
    found = made.utterances(100)
    assert len(found) == len(made.reader.held_out.index) == 3
    for name, features, waveform in found:
        mel = features["mel"]
        samples, _ = soundfile.read(root / name, dtype="float32")
        assert mel.shape == (len(samples) // 256, 80)
        np.testing.assert_array_equal(waveform, samples[: len(mel) * 256])
        whole = np.asarray(MelSpectrogram()(samples[None]))[0]
        np.testing.assert_allclose(mel, whole, atol=1e-5)
    assert made.utterances(0) == []


def test_description(pipeline):
    assert pipeline().reader.description == "2 files (0:00:03) train, 3 (0:00:03) validate"


def test_rates(pipeline, root, rng):
    write(root / "d/6.wav", rng.uniform(-0.5, 0.5, 48000), 48000)
    message = (
        r"data\.resample: .*d/6\.wav is at 48000 Hz, not at audio\.sample_rate=22050; data\.re"
    )
    with pytest.raises(InputError, match=message):
        pipeline()
    made = pipeline(resample=True)
    assert 22050 in np.concatenate([made.reader.training.samples, made.reader.held_out.samples])
    taken(made.train(), 3)


def test_stereo(pipeline, root, rng):
    write(root / "d/6.wav", rng.uniform(-0.5, 0.5, (30000, 2)))
    with pytest.raises(
        InputError, match=r"data\.stereo: .*d/6\.wav has 2 channels; data\.stereo=mix"
    ):
        pipeline(stereo="refuse")
    taken(pipeline().train(), 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"segment_length": 8000}, r"data\.segment_length: 8000 is no multiple .*; 7936 is"),
        ({"segment_length": 0}, r"data\.segment_length: must be at least 1, not 0"),
        ({"batch_size": 0}, r"data\.batch_size: must be at least 1, not 0"),
        ({"threads": 0}, r"data\.threads: must be at least 1"),
        ({"validation_segments": 0}, r"data\.validation_segments: must be at least 1"),
        ({"validation_fraction": 1.0}, r"data\.validation_fraction: must be below 1, not 1\.0"),
        ({"stereo": "left"}, r"data\.stereo: must be 'mix' or 'refuse', not 'left'"),
        ({"gain_db": [1.0]}, r"data\.gain_db: must have 2 entries or more, not \[1\.0\]"),
        ({"gain_db": [3.0, -3.0]}, r"data\.gain_db: must be \[lowest, highest\]"),
        ({"gain_db": [float("nan"), 0.0]}, r"data\.gain_db\.0: must be a finite number"),
        ({"gain_db": [0.0, 1.0], "mels": "x"}, r"data\.gain_db: mels from data\.mels can't"),
        ({"mels": "none"}, r"data\.mels: none is not a folder"),
    ],
)
def test_settings_at_fault(pipeline, values, message):
    with pytest.raises(InputError, match=message):
        pipeline(**values)


def test_errors_while_reading_name_the_file(pipeline, root):
    made = pipeline()
    for name in LENGTHS:
        (root / name).write_text("overwritten")
    with pytest.raises(InputError, match=r"\.(wav|flac): can't be read as audio"), reading_errors():
        taken(made.train(), 1)


@pytest.fixture
def mels(tmp_path, root):
    """A folder of the corpus' own mels plus 1, some turned, some a frame longer or shorter."""
    for name in LENGTHS:
        samples, _ = soundfile.read(root / name, dtype="float32")
        mel = np.asarray(MelSpectrogram()(samples[None]))[0] + 1
        mel = {"a/1.wav": mel[:-1], "b/4.wav": np.pad(mel, ((0, 1), (0, 0)))}.get(name, mel)
        path = (tmp_path / "mels" / name).with_suffix(".npy")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, mel.T if name.startswith("b") else mel)
    return tmp_path / "mels"


def test_mels_from_files(pipeline, mels):
    made, own = pipeline(mels=str(mels)), pipeline()
    for side in ("training", "held_out"):
        ours, theirs = getattr(made.reader, side), getattr(own.reader, side)
        for i in range(len(ours.index)):
            start = (int(ours.samples[i]) // 256 - 32) * 256 if ours.samples[i] > 8192 else 0
            waveform, mel = made.reader._read(ours, i, start, 8192)
            stretch, _ = own.reader._read(theirs, i, start, 8192)
            np.testing.assert_array_equal(waveform, stretch[384:-384])
            frames = min(32, int(ours.samples[i]) // 256)
            # Where a short recording is extended, its own mel ends in a reflection instead.
            expected = np.asarray(own._mel(stretch[None]))[0, : frames - 2] + 1
            np.testing.assert_allclose(mel[: frames - 2], expected, atol=1e-5)
            np.testing.assert_allclose(mel[frames:], np.log(1e-5), rtol=1e-6)
    for mel, waveform in taken(made.train(), 3) + taken(made.validation(), -1):
        assert mel.shape[1:] == (32, 80) and waveform.shape[1:] == (8192,)
    for _, features, waveform in made.utterances(2):
        mel = features["mel"]
        assert len(waveform) == 256 * len(mel)


@pytest.mark.parametrize("turned", [False, True])
def test_a_square_mel_is_read_as_its_neighbours(tmp_path, root, mels, pipeline, turned):
    soundfile.write(root / "a/1.wav", np.zeros(80 * 256 + 5), 22050)
    square = np.arange(6400, dtype=np.float32).reshape(80, 80)
    for name in LENGTHS:
        frames = 80 if name == "a/1.wav" else LENGTHS[name] // 256
        mel = square if frames == 80 else np.zeros((frames, 80), np.float32)
        np.save((mels / name).with_suffix(".npy"), mel.T if turned else mel)
    made = pipeline(mels=str(mels))
    for side in (made.reader.training, made.reader.held_out):
        for i in range(len(side.index)):
            if side.index.name(i) == "a/1.wav":
                np.testing.assert_array_equal(side.mels.read(i, 3, 5), square[3:8])


@pytest.mark.parametrize(
    ("mel", "message"),
    [
        (None, r"1\.npy: no such file"),
        (np.zeros((119, 80)), r"1\.npy: has 119 frames, but .*1\.wav has 117"),
        (np.zeros((80, 115)), r"1\.npy: has 115 frames, but .*1\.wav has 117"),
        (np.zeros((117, 100)), r"1\.npy: holds float64 \(117, 100\), not .*audio\.n_mels=80"),
        (np.zeros((2, 117, 80)), r"1\.npy: holds float64 \(2, 117, 80\)"),
        (np.zeros((117, 80), int), r"1\.npy: holds int64"),
        (b"nothing", r"1\.npy: can't be read"),
    ],
)
def test_mels_at_fault(pipeline, mels, mel, message):
    path = mels / "a/1.npy"
    path.unlink()
    if isinstance(mel, bytes):
        path.write_bytes(mel)
    elif mel is not None:
        np.save(path, mel)
    with pytest.raises(InputError, match=message):
        pipeline(mels=str(mels))
    made = pipeline(mels=str(mels), max_bad_fraction=0.5)
    assert [*made.reader.quarantine.messages] == [str(path)]
    sides = made.reader.training, made.reader.held_out
    names = {side.index.name(i) for side in sides for i in range(len(side.index))}
    assert names == set(LENGTHS) - {"a/1.wav"}


def test_a_mel_that_turns_out_bad_is_drawn_again(pipeline, mels):
    for path in mels.rglob("*.npy"):
        if path.name == "1.npy":
            np.save(path, np.full_like(np.load(path), np.nan))
    made = pipeline(mels=str(mels), max_bad_fraction=0.5)
    for mel, _ in taken(made.train(), 6) + taken(made.validation(), -1):
        assert np.isfinite(mel).all()
    assert [Path(path).name for path in made.reader.quarantine.messages] in ([], ["1.npy"])
    assert all("NaN" in message for message in made.reader.quarantine.messages.values())


def test_all_bad_mels_are_named(pipeline, mels):
    for path in mels.rglob("*.npy"):
        path.unlink()
    with pytest.raises(InputError, match=r"5 of 5 files are bad") as error:
        pipeline(mels=str(mels))
    assert str(error.value).count("no such file") == len(LENGTHS)
    with pytest.raises(InputError, match=r"data\.mels: .* no usable mels"):
        pipeline(mels=str(mels), max_bad_fraction=1.0)


def test_extensions_in_capitals(pipeline, mels):
    for path in mels.rglob("*.npy"):
        path.rename(path.with_suffix(".NPY"))
    assert not pipeline(mels=str(mels)).reader.quarantine.messages


def test_squares_of_which_nothing_tells_how_they_lie(tmp_path, pipeline, root, mels, caplog):
    for name in LENGTHS:
        soundfile.write(root / name, np.zeros(80 * 256), 22050)
        np.save((mels / name).with_suffix(".npy"), np.zeros((80, 80), np.float32))
    pipeline(mels=str(mels))
    (record,) = caplog.records
    assert f"{len(LENGTHS)} of the mels have as many frames as bands" in record.getMessage()


@pytest.fixture(scope="module")
def spoken():
    """Some speech with a pause, with the margins of a mel, and its mel."""
    samples, _ = soundfile.read(asset("data/demo") / "slt/slt_001.flac", dtype="float32")
    samples = np.pad(samples[: 200 * 256], (0, 20 * 256))
    mel = np.asarray(MelSpectrogram()(samples[None]))[0]
    return np.pad(samples, 384, mode="reflect"), mel


def decibels(mel):
    return 20 * mel / np.log(10)


def in_unit(mel):
    return np.clip((decibels(mel) - 20 + 100) / 100, 0, 1)


SCALES = {
    "none": (lambda mel: mel, None),
    "an acoustic model's": (lambda mel: 0.9 * mel - 0.2, None),
    "log10": (lambda mel: mel / np.log(10), r"log10: 2\.303 times smaller"),
    "decibels": (decibels, "decibels"),
    "decibels below the peak": (lambda mel: decibels(mel - mel.max()).clip(-80), "decibels"),
    "unit": (in_unit, r"scaled to \[0, 1\]"),
    "both ways": (lambda mel: 2 * in_unit(mel) - 1, r"scaled to \[-1, 1\]"),
    "tacotron's": (lambda mel: 8 * in_unit(mel) - 4, r"scaled to \[-4, 4\]"),
    "standardised": (lambda mel: (mel - mel.mean()) / mel.std(), "standardised"),
    "magnitudes": (np.exp, "no logarithms"),
    "log1p": (lambda mel: np.log1p(1e4 * np.exp(mel)), "no logarithms"),
    "turned around": (lambda mel: mel[:, ::-1], "other recordings, or of other bands"),
}


@pytest.mark.parametrize("scale", SCALES)
def test_mels_of_another_scale_are_told(spoken, scale):
    _, own = spoken
    change, phrase = SCALES[scale]
    found = other_scale(change(own), own, AudioConfig())
    assert found is None if phrase is None else re.search(phrase, found)


def test_natural_logarithms_instead_of_log10(spoken):
    _, own = spoken
    found = other_scale(own, own / np.log(10), AudioConfig(log="log10"))
    assert found.startswith("natural logarithms: 2.303 times larger")


LEVELS = {
    "none": (lambda mel: mel - 0.5, None),
    "integers": (lambda mel: mel + np.log(32768), "16 bits"),
    "louder": (lambda mel: mel + 3, "3 higher"),
    "log(x + 1e-9)": (lambda mel: np.where(mel < -11.5, np.log(1e-9), mel), "audio.floor"),
}


@pytest.mark.parametrize("level", LEVELS)
def test_mels_of_another_level_are_told(spoken, level):
    _, own = spoken
    change, phrase = LEVELS[level]
    found = other_level(change(own), own, AudioConfig())
    assert found is None if phrase is None else re.search(phrase, found)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fmax": None},
        {"fmin": 80.0, "fmax": 7600.0},
        {"htk": True},
        {"norm": None},
        {"power": 2.0},
    ],
)
def test_mels_of_other_settings_are_told(spoken, rng, settings):
    samples, own = spoken
    settings = dataclasses.replace(AudioConfig(), **settings)
    layer = MelSpectrogram(**(vars(settings) | {"padding": "valid"}))
    given = np.asarray(layer(samples[None]))[0]
    given = given + 0.3 * rng.standard_normal(own.shape)  # as acoustic models err
    assert settings_that_fit(given, [samples], AudioConfig()) == settings


def test_a_run_on_such_mels_is_warned(pipeline, mels, caplog):
    pipeline(mels=str(mels))  # 1 higher, which is within what acoustic models do
    assert not caplog.records
    for path in mels.rglob("*.npy"):
        np.save(path, np.load(path) + 2)
    pipeline(mels=str(mels))
    (record,) = caplog.records
    assert "data.mels" in record.getMessage() and "as if 3 higher" in record.getMessage()


@pytest.mark.slow
def test_a_process_ends_in_the_middle_of_a_dataset(root, tmp_path):
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from configs import data_config\n"
        "from vocoder.audio.settings import AudioConfig\n"
        "from vocoder.data.pipeline import AudioPipeline\n"
        f"data = data_config({str(root)!r}, cache={str(tmp_path)!r})\n"
        "batches = iter(AudioPipeline(data, AudioConfig(), 0).train())\n"
        "next(batches)\n"
        "raise SystemExit(3)\n"
    )
    package = Path(__file__).parents[2]
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", program], cwd=package, timeout=60)
        assert done.returncode == 3
