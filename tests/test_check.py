"""`python -m vocoder.check` on a corpus with one of each fault."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from vocoder.check import examined, main


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


def test_what_is_silent_once_it_is_mixed(root, capsys):
    folder, noise = root
    for name, apart in {"opposite": 0, "nearly": 2e-5, "not_quite": 2e-4}.items():
        soundfile.write(folder / f"{name}.wav", np.stack([noise, apart - noise], 1), 22050, "FLOAT")
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "silent      2 files" in out and "bad         2 files" in out
    for name in ("opposite", "nearly"):
        assert f"{name}.wav: silence throughout, as its channels are mixed to mono" in out


def test_sees_what_compressed_files_decode_to(root, capsys):
    folder, _ = root
    (folder / "a.wav").unlink()
    golden = Path(__file__).parent / "golden"
    for name in ("lame_vbr_loud_first", "lame_vbr_quiet_first", "sox_cbr"):
        shutil.copy(golden / f"{name}.mp3", folder)
    found = list(examined([str(path) for path in sorted(folder.iterdir())]))
    assert [answer["frames"] for _, answer in found] == [47_808, 41_472, 56_448]
    assert main([str(folder)]) == 0
    capsys.readouterr()


def test_only_regular_files_are_read(root, capsys):
    folder, _ = root
    os.mkfifo(folder / "pipe.wav")
    assert main([str(folder)]) == 1
    assert "pipe.wav: no regular file" in capsys.readouterr().out


def test_names_are_shown_as_text(root, capsys):
    folder, noise = root
    names = ["esc\x1b[31m: red.wav", "new\nline.wav", os.fsdecode(b"latin-\xe9.wav")]
    for name in names:
        (folder / name).write_text("no audio")
        with (folder / f"loud {name}").open("wb") as file:
            soundfile.write(file, np.clip(noise * 9, -1, 1), 22050, format="WAV")
    assert main([str(folder)]) == 1
    out = capsys.readouterr().out
    assert "bad         3 files" in out and "\x1b" not in out and "esc\\x1b[31m: red.wav" in out
    lines = out.splitlines()
    assert len(lines) == 8 + 3 + 2 + 3  # the table, what is clipped, twice the same, and bad
    assert sum(line.startswith("bad ") for line in lines) == 4


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
