"""A wheel carries the configs and the demo corpus, and works in any folder."""

import os
import re
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
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-m", "vocoder.train", "--cfg", "job", "--resolve"],
        cwd=tmp_path / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for command in ("synthesize", "evaluate", "check", "convert"):
        help_ = [sys.executable, "-m", f"vocoder.{command}", "--help"]
        shown = subprocess.run(
            help_, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True
        )
        assert shown.stdout.startswith(f"usage: python -m vocoder.{command} "), shown.stderr
    root = Path(yaml.safe_load(done.stdout)["data"]["root"])
    assert root.is_dir() and root.is_relative_to(tmp_path / "site")


def test_nothing_is_installed_by_a_name_that_is_not_ours():
    """The name `vocoder` on PyPI is somebody else's; extras are those of the sources."""
    pages = {"README.md": ".", "*.md": "docs"}
    code = {"*.py": "vocoder", "*.yaml": "configs", "benchmark.py": "scripts"}
    for pattern, folder in (pages | code).items():
        for path in (ROOT / folder).glob(f"**/{pattern}" if folder != "." else pattern):
            assert not re.search(r"pip install ['\"]?vocoder", path.read_text()), path


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
        # BigVGAN with as few channels as its upsampling allows has 1.2 MB of random weights.
        assert path.stat().st_size < 1_500_000, path
