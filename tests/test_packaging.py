"""A wheel carries the configs and the demo corpus, and works in any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "-w",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    clips = list((tmp_path / "site/vocoder/assets/data/demo").rglob("*.flac"))
    assert len(clips) == len(list((ROOT / "data/demo").rglob("*.flac"))) > 40
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "vocoder.train", "--cfg", "job", "--resolve"],
        cwd=tmp_path / "elsewhere",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    root = Path(yaml.safe_load(done.stdout)["data"]["root"])
    assert root.is_dir() and root.is_relative_to(tmp_path / "site")


def test_the_demo_corpus_is_what_it_says():
    import soundfile

    clips = [soundfile.info(path) for path in (ROOT / "data/demo").rglob("*.flac")]
    assert {(clip.samplerate, clip.channels, clip.subtype) for clip in clips} == {
        (22050, 1, "PCM_16")
    }
    assert 150 < sum(clip.duration for clip in clips) < 210
    size = sum(path.stat().st_size for path in (ROOT / "data/demo").rglob("*.flac"))
    assert size < 6_000_000
    assert len(list((ROOT / "data/demo").glob("*/"))) >= 5  # voices


def test_no_large_files_are_tracked():
    for path in (ROOT / "tests/golden").iterdir():
        assert path.stat().st_size < 1_500_000, path
