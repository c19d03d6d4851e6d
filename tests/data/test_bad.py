"""Bad recordings cost themselves, never the run, and never in silence."""

import csv
import io
import logging
import os
import socket
import sys

import numpy as np
import pytest
import soundfile

from configs import data_config
from vocoder.audio import files
from vocoder.audio.settings import AudioConfig
from vocoder.data import probe
from vocoder.data.corpus import load_corpus
from vocoder.data.pipeline import AudioPipeline, reading_errors
from vocoder.data.quarantine import Quarantine
from vocoder.errors import InputError

RATE = 22050


@pytest.fixture
def root(tmp_path, rng):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i in range(12):
        soundfile.write(folder / f"{i:02d}.wav", rng.uniform(-0.5, 0.5, 20000), RATE)
    return folder


@pytest.fixture
def make(root, tmp_path):
    def make(**values):
        values = {"max_bad_fraction": 0.5, "batch_size": 4, "validation_fraction": 0.3} | values
        data = data_config(root, cache=str(tmp_path / "cache"), **values)
        return AudioPipeline(data, AudioConfig(), 0, tmp_path / "run" / "quarantine.csv")

    return make


def rows(tmp_path):
    with (tmp_path / "run" / "quarantine.csv").open(newline="") as file:
        return {os.path.basename(row["file"]): row for row in csv.DictReader(file)}


def in_place(path, content):
    """Other bytes that the index doesn't notice."""
    about = path.stat()
    path.write_bytes(content[: about.st_size].ljust(about.st_size, b"\0"))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def waveforms(dataset, count):
    return [waveform.numpy() for _, waveform in dataset.take(count)]


def with_nan(path):
    samples = np.full(20000, 0.1, np.float32)
    samples[100:] = np.nan
    soundfile.write(path, samples, RATE, "FLOAT")


def truncated_flac(path):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 20000)
    soundfile.write(path, noise, RATE)
    path.write_bytes(path.read_bytes()[:200])


INDEXING = {
    "empty.wav": (lambda p: p.write_bytes(b""), "can't be read as audio"),
    "text.wav": (lambda p: p.write_text("no audio"), "can't be read as audio"),
    "silent.ogg": (lambda p: p.write_bytes(b"OggS" * 100), "can't be read as audio"),
    "nothing.wav": (lambda p: soundfile.write(p, np.zeros(0), RATE), "holds no samples"),
    "nan.wav": (with_nan, "no numbers"),
    "short.flac": (truncated_flac, ""),
    "rate.wav": (lambda p: soundfile.write(p, np.ones(999), 8000), "is at 8000 Hz, not at"),
    "gone.wav": (lambda p: p.symlink_to("nowhere.wav"), "no such file"),
    "folder.wav": (lambda p: p.symlink_to("folder.wav"), "no such file"),
}


@pytest.mark.parametrize("name", INDEXING)
def test_what_is_bad_when_it_is_indexed(name, make, root, tmp_path, caplog):
    spoil, reason = INDEXING[name]
    spoil(root / name)
    for _ in range(2):  # also when the index is cached
        made = make()
        assert len(made.reader.training.index) + len(made.reader.held_out.index) == 12
    found = rows(tmp_path)
    assert list(found) == [name] and reason in found[name]["reason"] and found[name]["when"]
    assert (tmp_path / "run/quarantine.csv").read_text().count("\n") == 2
    assert sum(name in record.getMessage() for record in caplog.records) >= 1
    with pytest.raises(InputError, match=r"1 of 13 files are bad, more than .*=0\.01") as error:
        make(max_bad_fraction=0.01)
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("fault", ["broken", "vanished", "nan", "silent", "half"])
def test_what_turns_bad_is_drawn_again_the_same_after_a_resume(fault, make, root, tmp_path):
    made = make()
    path = root / made.reader.training.index.name(0)
    if fault == "broken":
        in_place(path, b"")
    elif fault == "vanished":
        path.unlink()
    elif fault == "half":  # the header is right and the samples end early
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 3])
    else:
        samples = np.zeros(20000, np.float32)
        if fault == "nan":
            samples[10:] = np.nan
        soundfile.write(path, samples, RATE, "FLOAT" if fault == "nan" else None)
    whole = waveforms(made.train(), 12)
    assert all(np.isfinite(w).all() and np.abs(w).max(axis=1).min() > 0.1 for w in whole)
    assert list(rows(tmp_path)) == [path.name]
    resumed = AudioPipeline.__new__(AudioPipeline)  # as a process that has seen no bad file
    resumed.__dict__ |= made.__dict__
    resumed.reader._silent, resumed.reader.quarantine = {}, Quarantine(None, 0.5)
    for step in (3, 7, 11):
        np.testing.assert_array_equal(waveforms(resumed.train(step), 1)[0], whole[step])
    shares = [waveforms(resumed.train(5, [w], 2), 1)[0] for w in range(2)]
    np.testing.assert_array_equal(np.concatenate(shares), whole[5])


def test_too_many_end_training_with_the_list(make, root):
    made = make(max_bad_fraction=0.1)
    for path in root.glob("*.wav"):
        in_place(path, b"")
    with (
        pytest.raises(InputError, match=r"data\.max_bad_fraction: .*; .*\d+ of 12"),
        reading_errors(),
    ):
        waveforms(made.train(), 5)


def test_bad_validation_files_are_replaced(make, root, tmp_path):
    made = make(validation_fraction=0.9)
    assert len(made.reader.held_out.index) > 1
    path = root / made.reader.held_out.index.name(0)
    in_place(path, b"")
    batches = waveforms(made.validation(), -1)
    assert all(np.abs(waveform).max() > 0.1 for waveform in batches)
    assert path.name not in [name for name, _, _ in made.utterances(99)]
    assert list(rows(tmp_path)) == [path.name]


def test_silence_in_a_file_that_speaks_is_kept(make, root, tmp_path):
    for path in root.glob("*.wav"):
        samples = np.zeros(20000)
        samples[-1] = 0.5
        soundfile.write(path, samples, RATE)
    waveforms(make().train(), 4)
    assert not (tmp_path / "run").exists()


def test_a_long_list_names_ten():
    quarantine = Quarantine(None, 0.0)
    for i in range(15):
        quarantine.add(f"{i}.wav", f"{i}.wav: broken\nin two")
    quarantine.total = 100
    with pytest.raises(InputError, match=r"9\.wav: broken in two; and 5 more; 15 of 100"):
        quarantine.check()


def logged(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_corpus_at_another_rate_is_one_line(make, root, tmp_path, caplog):
    for i in range(12, 120):
        soundfile.write(root / f"{i:03d}.wav", np.full(900, 0.1), 24000)
    with pytest.raises(InputError, match=r"data\.resample: .*; and 98 more; .*108 of 120 files"):
        make()
    assert logged(caplog) == []
    assert len(rows(tmp_path)) == 108 and "012.wav" in rows(tmp_path)


def test_many_bad_files_are_few_lines(make, root, tmp_path, caplog):
    for i in range(12, 120):
        (root / f"{i:03d}.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"max_bad_fraction: .*; and 98 more; 108 of 120 files"):
        make()
    assert logged(caplog) == [] and len(rows(tmp_path)) == 108
    make(max_bad_fraction=0.95, validation_fraction=0.5)
    lines = logged(caplog)
    assert len(lines) == 11 and all(line.startswith("left out: ") for line in lines)
    assert "108 files of 120" in lines[-1] and "quarantine.csv lists them" in lines[-1]


def test_what_turns_bad_later_is_told_now_and_then(caplog):
    quarantine = Quarantine(None, 0.5)
    quarantine.total = 1000
    for i in range(100):
        quarantine.add(f"{i}.wav", f"{i}.wav: broken")
        quarantine.add(f"{i}.wav", f"{i}.wav: broken")
    named = [f"left out: {i}.wav: broken" for i in range(10)]
    assert logged(caplog) == named + [f"left out: {n} files of 1000 by now" for n in (20, 40, 80)]


def test_a_list_that_is_none_of_ours_or_cannot_be_written(tmp_path):
    path = tmp_path / "quarantine.csv"
    path.write_text("file\n" + "x" * 200_000)
    Quarantine(path, 0.5).add("a.wav", "a.wav: broken")
    assert "a.wav,broken," in path.read_text()
    with pytest.raises(InputError, match=r"quarantine\.csv: can't be written"):
        Quarantine(tmp_path / "quarantine.csv/quarantine.csv", 0.5).add("a.wav", "a.wav: broken")


def test_a_corpus_of_stereo_that_is_refused_is_one_line(make, root, caplog):
    for i in range(12, 40):
        soundfile.write(root / f"{i}.wav", np.full((900, 2), 0.1), RATE)
    with pytest.raises(InputError, match=r"data\.stereo: \d+ of \d+ files .* has 2 channels; data"):
        make(stereo="refuse")
    assert logged(caplog) == []


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
def test_only_regular_files_are_read(kind, make, root, tmp_path):
    path = root / "12.wav"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    made = make()
    assert len(made.reader.training.index) + len(made.reader.held_out.index) == 12
    assert list(rows(tmp_path)) == ["12.wav"]
    # Also where a recording was when the corpus was looked through.
    path = root / made.reader.training.index.name(0)
    path.unlink()
    os.mkfifo(path)
    waveforms(made.train(), 10)
    assert list(rows(tmp_path)) == ["12.wav", path.name]


@pytest.mark.parametrize("apart", [0.0, 2e-5])
def test_channels_that_cancel_each_other_are_silence(apart, make, root, tmp_path, rng):
    noise = rng.uniform(-0.5, 0.5, 20000)
    soundfile.write(root / "00.wav", np.stack([noise, apart - noise], 1), RATE, "FLOAT")
    made = make(validation_fraction=0.0)
    assert all(np.abs(w).max(axis=1).min() > 0.1 for w in waveforms(made.train(), 15))
    assert rows(tmp_path)["00.wav"]["reason"] == "silence throughout"


def test_what_resampling_takes_away_is_silence(make, root, tmp_path):
    high = np.hanning(60000) * np.sin(2 * np.pi * 21000 * np.arange(60000) / 48000)
    soundfile.write(root / "00.wav", high, 48000, "FLOAT")
    made = make(validation_fraction=0.0, resample=True)
    waveforms(made.train(), 15)
    assert rows(tmp_path)["00.wav"]["reason"] == "silence throughout"


def test_any_name_can_be_logged_and_listed(make, root, tmp_path, capsys):
    handler = logging.StreamHandler(io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True))
    logger = logging.getLogger("vocoder")
    logger.addHandler(handler)
    names = [os.fsdecode(b"latin-\xe9.wav"), "esc\x1b[31mred.wav", "new\nline.wav", "u\u2028.wav"]
    for name in names:
        (root / name).write_text("no audio")
    try:
        make(validation_fraction=0.5)
        with pytest.raises(InputError):
            make(max_bad_fraction=0.01)
    finally:
        logger.removeHandler(handler)
    written = handler.stream.buffer.getvalue().decode()
    assert written.count("left out: ") == 4 and len(written.splitlines()) == 4
    shown = ["latin-\\xe9.wav", "esc\\x1b[31mred.wav", "new\\nline.wav", "u\\u2028.wav"]
    listed = (tmp_path / "run/quarantine.csv").read_text(encoding="utf-8")
    assert "\x1b" not in written + listed
    assert all(name in written for name in shown)
    assert sorted(rows(tmp_path)) == sorted(shown)
    assert listed.count("\n") == 5  # also though they were noted twice
    assert "Logging error" not in capsys.readouterr().err


def test_a_crash_in_the_decoder_costs_one_file(root, tmp_path, monkeypatch, caplog):
    program = (
        "import os, signal\n"
        "from vocoder.data import probe\n"
        "info = probe.files.info\n"
        "def deadly(path):\n"
        "    if os.path.basename(path) in ('00.wav', '05.wav', '06.wav', '11.wav'):\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return info(path)\n"
        "probe.files.info = deadly\n"
        "probe.main()\n"
    )
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-P", "-c", program))
    sides = load_corpus(data_config(root, cache=str(tmp_path / "cache")))
    assert sum(map(len, sides)) == 8
    crashed = [r.getMessage() for r in caplog.records if probe.CRASHED in r.getMessage()]
    assert len(crashed) == 4 and "05.wav" in crashed[1]


def test_a_worker_that_cannot_start_blames_no_file(root, monkeypatch):
    monkeypatch.setattr(probe, "COMMAND", (sys.executable, "-c", "raise SystemExit(1)"))
    with pytest.raises(RuntimeError, match="does not start"), probe.Probes(1) as probes:
        probes.look([str(root / "00.wav")])


def test_the_worker_is_light():
    program = (
        "import sys, vocoder.data.probe\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'omegaconf'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_formats(rate, subtype, tmp_path):
    tone = 0.5 * np.sin(np.arange(rate // 4) * 2 * np.pi * 440 / rate)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([tone, tone], 1), rate, subtype)
    stretch = files.read_segment(path, 0, 4096, (384, 384), RATE)
    assert stretch.shape == (4864,) and 0.45 < np.abs(stretch).max() < 0.55


def test_odd_paths(make, root, tmp_path, rng):
    noise = rng.uniform(-0.5, 0.5, 20000)
    soundfile.write(tmp_path / "elsewhere.wav", noise, RATE)
    names = ["größe 音声 🎤.wav", "new\nline.wav", 'a,"b".wav', os.fsdecode(b"latin-\xe9.wav")]
    names += ["/".join(["d" * 200] * 15) + "/" + "n" * 200 + ".wav", "ro/a.wav"]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        with (root / name).open("wb") as file:
            soundfile.write(file, noise, RATE, format="WAV")
    (root / "link.wav").symlink_to(tmp_path / "elsewhere.wav")
    (root / os.fsdecode(b"bad-\xe9\n.wav")).write_text("no audio")
    (root / "ro").chmod(0o555)
    made = make()
    sides = made.reader.training.index, made.reader.held_out.index
    found = {side.name(i) for side in sides for i in range(len(side))}
    assert found >= {*names, "link.wav"} and len(found) == 12 + len(names) + 1
    waveforms(made.train(), 10)
    with pytest.raises(InputError, match=r"bad-.xe9.n\.wav"):
        make(max_bad_fraction=0)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_unreadable_files_and_folders(make, root, tmp_path, caplog):
    (root / "00.wav").chmod(0)
    (root / "shut").mkdir(mode=0)
    assert len(make().reader.training.index)
    assert list(rows(tmp_path)) == ["00.wav"] and "shut: the folder can't be" in caplog.text
    (root / "shut").chmod(0o755)
