"""The command, with small generators of random weights."""

import csv
import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import soundfile

from vocoder import evaluate
from vocoder.audio.settings import AudioConfig
from vocoder.generators import HiFiGAN
from vocoder.paths import asset
from vocoder.synthesize import Vocoder

HEAD = {"name": "istft", "n_fft": 128, "hop_length": 32}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a.keras and b.keras at 22,050 Hz, c.keras at 16,000 Hz."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, rate) in enumerate({"a": 22050, "b": 22050, "c": 16000}.items()):
        keras.utils.set_random_seed(seed)
        audio = vars(AudioConfig(sample_rate=rate))
        generator = HiFiGAN(
            (8,),
            (16,),
            16,
            head=HEAD,
            audio=audio,
            weight_norm=False,
        )
        generator.build((None, None, 80))
        generator.save(folder / f"{name}.keras")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two recordings of speech, one in a folder of its own, at two rates."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "deep").mkdir()
    for name, (path, rate) in {
        "one.wav": ("slt/slt_001.flac", 22050),
        "deep/two.flac": ("rms/rms_002.flac", 44100),
    }.items():
        samples = soundfile.read(asset("data/demo") / path)[0][: int(1.2 * 22050)]
        soundfile.write(folder / name, np.repeat(samples, rate // 22050), rate)
    return folder


def command(*arguments):
    """Runs the command line and returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        evaluate.main(list(map(str, arguments)))
    return stop.value.code


def test_models_beside_references(models, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(sys.modules, "pystoi", None)  # as if it weren't installed
    monkeypatch.setitem(sys.modules, "speechmos", None)
    monkeypatch.delitem(sys.modules, "speechmos.dnsmos", raising=False)
    monkeypatch.delitem(sys.modules, "speechmos.plcmos", raising=False)
    out = tmp_path / "out"
    given = [models / "a.keras", f"mine={models / 'b.keras'}"]
    assert command(*given, "--data", data, "--out", out) == 0
    printed = capsys.readouterr()
    summary = json.loads((out / "summary.json").read_text())
    left_out = summary["left_out"]
    for name, package in {"stoi": "pystoi", "dnsmos": "speechmos", "plcmos": "speechmos"}.items():
        line = next(li for li in printed.err.splitlines() if li.startswith(f"left out: {name} "))
        assert f"needs {package}, which " in line and "; pip install '.[eval]' in " in line
        assert line in left_out
    title = next(line for line in printed.out.splitlines() if "recordings" in line)
    assert title.split() == ["better", "recordings", "griffin-lim", "a", "mine"]
    pairs = next(line for line in printed.out.splitlines() if "mine - a" in line)
    assert re.split("  +", pairs.strip()) == [
        "better", "a - griffin-lim", "mine - griffin-lim", "mine - a",
    ]  # fmt: skip

    with (out / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    systems = ["recordings", "griffin-lim", "a", "mine"]
    clips = ["deep/two.flac", "one.wav"]
    assert [(row["model"], row["clip"]) for row in rows] == [(s, c) for s in systems for c in clips]
    assert "stoi" not in rows[0] and "plcmos" not in rows[0]
    assert summary["clips"] == 2 and summary["failed"] == []
    assert summary["models"] == {"a": f"{models / 'a.keras'}", "mine": f"{models / 'b.keras'}"}
    assert summary["versions"]["keras"] == keras.__version__
    assert "log_mel_l1" in summary["measures"]
    for name, measure in summary["measures"].items():
        better = 1 if measure["higher_is_better"] else -1
        for system in systems:
            values = [float(row[name] or "nan") for row in rows if row["model"] == system]
            mean = summary["means"][system][name]
            if not np.isnan(values).any():
                assert mean["mean"] == pytest.approx(np.mean(values), rel=1e-5, abs=1e-9)
                assert mean["low"] == pytest.approx(min(values), rel=1e-5, abs=1e-9)
        if name in ("pesq_wb", "mcd", "mr_stft", "log_mel_l1"):
            means = [better * summary["means"][s][name]["mean"] for s in systems]
            assert means[0] > means[1] > max(means[2:]), (name, means)
    assert summary["means"]["recordings"]["rtf"] == {
        "mean": None, "low": None, "high": None, "count": 0,
    }  # fmt: skip
    assert summary["means"]["a"]["rtf"]["count"] == 2
    measures = len(summary["measures"])
    assert len(summary["differences"]) == 3 * measures
    for system in systems:
        for clip in clips:
            about = soundfile.info((out / system / clip).with_suffix(".wav"))
            assert about.samplerate == 22050 and about.frames == 26460 // 256 * 256


def test_models_of_several_rates(models, data, tmp_path, capsys):
    paths = [models / "a.keras", models / "c.keras"]
    (data / "bad.txt").write_text("no audio, and passed over")
    arguments = ["--data", data, "--metrics", "log_mel_l1,mcd", "--limit", 1]
    assert command(*paths, *arguments, "--out", tmp_path / "out") == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert list(summary["means"]) == [
        "recordings-a", "griffin-lim-a", "recordings-c", "griffin-lim-c", "a", "c",
    ]  # fmt: skip
    assert list(summary["measures"]) == ["log_mel_l1", "mcd", "rtf"]
    for name in ("a", "c"):
        assert summary["means"][f"recordings-{name}"]["mcd"]["mean"] == 0
        rate = soundfile.info(tmp_path / f"out/griffin-lim-{name}/deep/two.wav").samplerate
        assert rate == {"a": 22050, "c": 16000}[name]
    pairs = {(d["first"], d["second"]) for d in summary["differences"]}
    assert pairs == {("a", "griffin-lim-a"), ("c", "griffin-lim-c"), ("c", "a")}
    assert all(d["p"] is None for d in summary["differences"])  # of one clip
    assert "1 clip, 0.0 min" in capsys.readouterr().out


def test_bad_recordings_are_told(models, data, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(f"{data / 'one.wav'}\n{data / 'gone.wav'}\n")
    arguments = ["--data", tmp_path / "list.txt", "--metrics", "log_mel_l1"]
    assert command(models / "a.keras", *arguments, "--out", tmp_path / "out") == 1
    assert f"error: {data / 'gone.wav'}: no such file" in capsys.readouterr().err
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["clips"] == 1 and len(summary["failed"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gone", "--data", "data", "--out", "out"], "gone: no model"),
        (["a.keras", "--data", "gone", "--out", "out"], "--data: gone: no such folder or list"),
        (["a.keras", "--data", "empty", "--out", "out"], "--data: no audio in empty"),
        (["a.keras", "--data", "data", "--out", "file"], "--out: file is a file"),
        (["a.keras", "--data", "data", "--out", "data/out"], "--out: data/out is inside of --data"),
        (["a.keras", "--data", "x" * 300, "--out", "out"], f"--data: {'x' * 300}: no such folder"),
        (["a.keras", "--data", "loop", "--out", "out"], "--data: loop: no such folder or list"),
        (
            ["a.keras", "--data", "run/metrics.csv", "--out", "run"],
            "--out: run/metrics.csv is read; give another folder",
        ),
        (
            ["a.keras", "--data", "run/link.txt", "--out", "run"],
            "--out: run/metrics.csv is read; give another folder",
        ),
        (["run", "--data", "data", "--out", "."], "--out: run is or holds the model; give another"),
        (
            ["a.keras", "--data", "old/recordings/deep", "--out", "old"],
            "--out: old/recordings is or holds the recordings; give another folder",
        ),
        (["a.keras", "a.keras", "--data", "data", "--out", "out"], "MODEL: two are called 'a'"),
        (["a.keras", "--data", "data", "--out", "out", "--limit", "0"], "--limit: must be at"),
        (
            ["a.keras", "--data", "data", "--out", "out", "--metrics", "mcd,pesq"],
            "--metrics: unknown 'pesq'; did you mean 'pesq_wb'",
        ),
        (
            ["a.keras", "--data", "data", "--out", "out", "--metrics", "pesq_wb"],
            "--metrics: pesq_wb needs pesq, which is not installed; pip install '.[eval]' in ",
        ),
    ],
)
def test_mistakes_end_with_code_2(arguments, message, models, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.keras").symlink_to(models / "a.keras")
    (tmp_path / "data").symlink_to(data)
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/generator.keras").symlink_to(models / "a.keras")
    (tmp_path / "run/metrics.csv").write_text(f"{data / 'one.wav'}\n")
    (tmp_path / "run/link.txt").hardlink_to(tmp_path / "run/metrics.csv")
    (tmp_path / "old").mkdir()
    (tmp_path / "old/recordings").symlink_to(data)
    (tmp_path / "file").write_text("")
    assert command(*arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_an_interrupt_keeps_what_is_rated(models, data, tmp_path, monkeypatch, capsys):
    synthesize, calls = Vocoder.synthesize, []

    def interrupted(self, mel):
        calls.append(mel)
        if len(calls) == 3:  # the first clip takes two, one to warm up
            raise KeyboardInterrupt
        return synthesize(self, mel)

    monkeypatch.setattr(Vocoder, "synthesize", interrupted)
    arguments = ["--data", data, "--metrics", "log_mel_l1", "--out", tmp_path / "out"]
    assert command(models / "a.keras", *arguments) == 130
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["clips"] == 1 and "ended after 1 of 2 recordings" in summary["failed"][0]
    printed = capsys.readouterr()
    assert "1 clip, " in printed.out and printed.err.strip().splitlines()[-1] == "interrupted"


def test_tables_are_shown_where_they_can_not_be_written(models, data, tmp_path, capsys):
    (tmp_path / "out/metrics.csv").mkdir(parents=True)
    arguments = ["--data", data, "--metrics", "log_mel_l1", "--out", tmp_path / "out"]
    assert command(models / "a.keras", *arguments, "--limit", 1) == 2
    printed = capsys.readouterr()
    assert "1 clip, " in printed.out and "can't be written to" in printed.err


def test_help_needs_no_tensorflow():
    program = (
        "import sys\nfrom vocoder.evaluate import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "assert not {'tensorflow', 'keras', 'librosa', 'scipy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "pesq_wb" in done.stdout and "--limit" in done.stdout
