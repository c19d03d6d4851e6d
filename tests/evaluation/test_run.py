import os

import numpy as np
import pytest
import soundfile

from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.evaluation import run
from vocoder.evaluation.metric import Measure, Metric
from vocoder.evaluation.report import Report
from vocoder.evaluation.systems import System


def test_clips_of_a_list(recordings, tmp_path):
    names = ["speaker0/0.wav", "speaker1/1.wav"]
    absolute = tmp_path / "list.txt"
    absolute.write_text("".join(f"{recordings / name}\n" for name in names) + "\n")
    assert run.find_clips(absolute) == [(name, recordings / name) for name in names]
    relative = tmp_path / "relative.txt"
    where = os.path.relpath(recordings, tmp_path)
    relative.write_text("\n".join(f"{where}/{name}" for name in names))
    assert [name for name, _ in run.find_clips(relative)] == names
    assert [name for name, _ in run.find_clips(recordings)][:2] == [
        "speaker0/0.wav",
        "speaker0/2.wav",
    ]


def test_a_list_is_read_as_one_of_the_corpus(recordings, tmp_path):
    text = f"{recordings}/speaker0/0.WAV|x\u2028y\r\n{recordings}/speaker1/1|a\x0cb\n"
    (tmp_path / "list.txt").write_text(text, encoding="utf-8", newline="")
    names = ["speaker0/0.wav", "speaker1/1.wav"]
    assert run.find_clips(tmp_path / "list.txt") == [(name, recordings / name) for name in names]


def test_no_clips(recordings, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "folder").mkdir()
    for path, reason in {
        tmp_path / "empty.txt": "no audio in",
        tmp_path / "folder": "no audio in",
        tmp_path / "binary.txt": "can't be read",
        recordings / "speaker0/0.wav": "is no folder and no list",
    }.items():
        with pytest.raises(InputError, match=f"^--data: .*{reason}"):
            run.find_clips(path)


class Peak(Metric):
    """The peak of what was synthesised, above 0.5 not defined."""

    measures = (Measure("peak", "peak", "", True),)

    def compute(self, reference, synthesised, sample_rate):
        peak = np.abs(synthesised).max()
        return (peak if peak <= 0.5 else np.nan,)


def system(name, gain, calls=None):
    audio = AudioConfig()

    def synthesize(features):
        mel = features["mel"]
        calls.append(len(mel))
        return np.full(len(mel) * audio.hop_length, gain * mel.max())

    def features(samples):
        return {"mel": np.full((len(samples) // audio.hop_length, 80), np.abs(samples).max())}

    if gain is None:
        return System(name, audio, features, None)
    return System(name, audio, features, synthesize, lambda frames: min(frames, 100), True)


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    time = np.arange(44100)
    for i in range(6):
        tone = (0.2 + 0.05 * i) * np.sin(0.1 * time[: 30_000 + 2000 * i])
        soundfile.write(folder / f"{i}.flac", tone, 22050)
    return folder


def test_every_system_on_every_clip(folder, tmp_path):
    soundfile.write(folder / "half.wav", np.full(20_000, 0.4), 11025)  # 40,000 samples at 22,050
    calls = []
    systems = [system("recordings", None), system("half", 0.5, calls), system("full", 1.0, [])]
    results = run.evaluate(systems, run.find_clips(folder), [Peak()], tmp_path / "out", pytest.fail)
    assert results.clips == [*(f"{i}.flac" for i in range(6)), "half.wav"]
    assert results.values.shape == (3, 7, 2)
    np.testing.assert_allclose(results.seconds[[0, 6]], [30_000 / 22050, 40_000 / 22050])
    peaks = results.values[:, :, 0]
    np.testing.assert_allclose(peaks[0, :6], 0.2 + 0.05 * np.arange(6), atol=1e-3)
    np.testing.assert_allclose(peaks[1], peaks[0] / 2, atol=1e-6)
    assert np.isnan(results.values[0, :, 1]).all() and (results.values[1:, :, 1] > 0).all()
    # The first clip twice, to warm up: all others make windows of as many frames.
    assert calls == [
        117,
        117,
        *((30_000 + 2000 * i) // 256 for i in range(1, 6)),
        156,
    ]
    wave, rate = soundfile.read(tmp_path / "out/half/0.wav")
    assert rate == 22050 and len(wave) == 117 * 256
    assert wave[0] == pytest.approx(0.1, abs=1e-3)
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 3 * 7

    report = Report(results)
    assert report.means["half", "peak"].mean == pytest.approx(np.mean(peaks[0]) / 2, abs=1e-6)
    (difference,) = [d for d in report.differences if d.measure == "peak"]
    assert (difference.first, difference.second) == ("full", "half")
    assert difference.mean.mean == pytest.approx(np.mean(peaks[0]) / 2, abs=1e-6)
    assert difference.p < 0.05  # all seven of one sign: 2 / 2^7, at the most twice that
    text = report.tables(120)
    assert "full - half" in text and "7 clips, 0.2 min" in text and "; * p < 0.05" in text
    # A narrow terminal gets the same columns below one another.
    narrow = report.tables(60).splitlines()
    assert max(map(len, narrow[1:4])) <= 60
    cells = next(line for line in text.splitlines() if line.startswith("peak")).split("  ")[1:]
    assert all(cell.strip() in "\n".join(narrow) for cell in cells)


def test_what_is_not_defined_is_told(folder, tmp_path):
    systems = [system("recordings", None), system("loud", 1.3, [])]
    results = run.evaluate(systems, run.find_clips(folder), [Peak()], tmp_path / "out", pytest.fail)
    assert "peak: not defined on 2 of 6 clips of loud" in Report(results).tables(120)


def test_too_few_clips_for_the_paired_test(folder, tmp_path):
    systems = [system("half", 0.5, []), system("full", 1.0, [])]
    clips = run.find_clips(folder)[:5]
    text = Report(run.evaluate(systems, clips, [Peak()], tmp_path / "out", pytest.fail)).tables(120)
    assert "p < 0.05 takes 6 clips" in text and "*" not in text


def test_bad_clips_are_told_and_the_others_rated(folder, tmp_path):
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "silent.wav", np.zeros(30_000), 22050)
    soundfile.write(folder / "short.wav", np.full(1000, 0.1), 22050)
    soundfile.write(folder / "0.wav", np.full(30_000, 0.1), 22050)  # as 0.flac
    clips = [*run.find_clips(folder), ("gone.wav", folder / "gone.wav")]
    errors = []
    systems = [system("recordings", None)]
    results = run.evaluate(systems, clips, [], tmp_path / "out", lambda e: errors.append(str(e)))
    assert results.clips == [f"{i}.flac" for i in range(6)]
    for line, reason in zip(
        errors,
        ["0.wav is made of 0.flac", "shorter than a window", "silence", "audio", "no such file"],
        strict=True,
    ):
        assert reason in line
    with pytest.raises(InputError, match="--data: none of its recordings"):
        run.evaluate(systems, clips[-1:], [], tmp_path / "out", errors.append)


def test_out_that_can_not_be_written(folder, tmp_path):
    (tmp_path / "out").write_text("")
    clips = run.find_clips(folder)
    with pytest.raises(InputError, match="--out: .*recordings can't be written to"):
        run.evaluate([system("recordings", None)], clips, [], tmp_path / "out", pytest.fail)


class Picky(Peak):
    """Fails on one clip, as packages do; stops at another, as Ctrl-C does."""

    def __init__(self, fails=None, stops=None):
        self.fails, self.stops, self.count = fails, stops, 0

    def compute(self, *pair):
        self.count += 1
        if self.count == self.fails:
            raise RuntimeError("no utterances detected")
        if self.count == self.stops:
            raise KeyboardInterrupt
        return super().compute(*pair)


def test_what_a_metric_raises_costs_one_value(folder, tmp_path):
    errors = []
    clips = run.find_clips(folder)
    results = run.evaluate(
        [system("half", 0.5, [])], clips, [Picky(fails=3)], tmp_path / "out", errors.append
    )
    assert len(results.clips) == 6
    assert np.isnan(results.values[0, :, 0]).tolist() == [False, False, True, False, False, False]
    (error,) = errors
    path = folder / "2.flac"
    assert str(error) == f"{path}: half: can't be used (no utterances detected); without peak"


def test_what_ends_it_keeps_what_is_rated(folder, tmp_path):
    clips = run.find_clips(folder)
    results = run.evaluate(
        [system("half", 0.5, [])], clips, [Picky(stops=4)], tmp_path / "out", pytest.fail
    )
    assert results.clips == ["0.flac", "1.flac", "2.flac"] and results.values.shape == (1, 3, 2)
    assert isinstance(results.ended_by, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):  # before anything is rated
        run.evaluate([system("half", 0.5, [])], clips, [Picky(stops=1)], tmp_path, pytest.fail)


def test_a_network_that_fails_is_named(folder, tmp_path):
    def synthesize(mel):
        raise InputError("mel: the model makes samples of it that are no numbers")

    broken = system("broken", 1.0, [])._replace(synthesize=synthesize)
    errors = []
    with pytest.raises(InputError, match="none of its recordings"):
        run.evaluate([broken], run.find_clips(folder)[:1], [], tmp_path / "out", errors.append)
    assert str(errors[0]).startswith(f"{folder / '0.flac'}: broken: mel: the model makes")


def test_names_of_a_list_lead_nowhere_else(folder, tmp_path):
    (folder / "deep").mkdir()
    (folder / "deep/list.txt").write_text("../0.flac\n../deep/../1.flac\n")
    assert [name for name, _ in run.find_clips(folder / "deep/list.txt")] == ["0.flac", "1.flac"]
    systems = [system("recordings", None)]
    clips = [("../../0.flac", folder / "0.flac")]
    run.evaluate(systems, clips, [], tmp_path / "out", pytest.fail)
    (made,) = (tmp_path / "out").rglob("0.wav")
    assert made.is_relative_to(tmp_path / "out/recordings")


def test_any_name_is_rated(folder, tmp_path):
    names = ["录" * 80, os.fsdecode(b"latin-\xe9"), "esc\x1b[31m"]
    for name in names:
        os.replace(folder / "0.flac", folder / f"{name}.flac")
        soundfile.write(folder / "0.flac", np.full(30_000, 0.1), 22050)
    systems = [system("half", 0.5, [])]
    results = run.evaluate(systems, run.find_clips(folder), [Peak()], tmp_path / "out", pytest.fail)
    Report(results).write(tmp_path / "out", {})
    table = (tmp_path / "out/metrics.csv").read_text()
    assert len(table.splitlines()) == 1 + 6 + 3 and "\x1b" not in table and "latin-\\xe9" in table
    assert len(list((tmp_path / "out/half").iterdir())) == 6 + 3


def test_recordings_are_not_written_over(folder, tmp_path):
    os.replace(folder, tmp_path / "half")
    before = {p.name: p.read_bytes() for p in (tmp_path / "half").iterdir()}
    clips = [
        (name.replace("flac", "wav"), path) for name, path in run.find_clips(tmp_path / "half")
    ]
    (tmp_path / "half/0.wav").symlink_to(tmp_path / "half/0.flac")
    errors = []
    run.evaluate([system("half", 0.5, [])], clips, [Peak()], tmp_path, errors.append)
    assert len(errors) == 1 and "give another folder" in str(errors[0])
    assert {name: (tmp_path / "half" / name).read_bytes() for name in before} == before
