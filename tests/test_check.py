"""`python -m vocoder.check` on a corpus with one of each fault."""

import subprocess
import sys

import numpy as np
import pytest
import soundfile

from vocoder.check import main


@pytest.fixture
def root(tmp_path, rng):
    noise = rng.uniform(-0.5, 0.5, 22050)
    soundfile.write(tmp_path / "a.wav", noise, 22050)
    return tmp_path, noise


def test_a_good_corpus(root, capsys):
    folder, noise = root
    soundfile.write(folder / "b.wav", np.stack([noise, noise], 1) * 0.5, 44100)
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    assert "22050 Hz: 1, 44100 Hz: 1" in out and "1: 1, 2: 1" in out and "bad         0" in out
    assert main([str(folder), "--sample-rate", "22050"]) == 1
    assert "b.wav: at 44100 Hz, not at 22050 Hz" in capsys.readouterr().out


def test_faults(root, capsys):
    folder, noise = root
    soundfile.write(folder / "same.flac", soundfile.read(folder / "a.wav")[0], 22050)
    soundfile.write(folder / "silent.wav", np.zeros(1000), 22050)
    soundfile.write(folder / "loud.wav", np.clip(noise * 4, -1, 1), 22050)
    (folder / "text.wav").write_text("no audio")
    soundfile.write(folder / "cut.flac", noise, 22050)
    content = (folder / "cut.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "files       6" in out and "silent      1 files" in out
    assert "duplicates  1 files" in out and "bad         3 files" in out
    assert "clipped     1 files (16.7%)" in out
    assert "same.flac: as " in out and "silent.wav: silence throughout" in out
    assert "text.wav: can't be read as audio" in out and "cut.flac: " in out


@pytest.mark.parametrize(
    "arguments", [["nowhere"], ["."], [".", "--sample-rate=0"], [".", "--rate"], []]
)
def test_wrong_arguments(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_as_a_command_it_needs_no_keras(root):
    folder, _ = root
    program = (
        "import sys\nfrom vocoder.check import main\n"
        f"assert main([{str(folder)!r}]) == 0\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
