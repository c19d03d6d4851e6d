import os

import pytest
from corpora import write

from vocoder.data import index as indexing


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "corpus"
    for i, name in enumerate(["a/1.wav", "a/2.flac", "a-b/3.wav", "b/c/4.WAV", "5.ogg", "6.mp3"]):
        write(root / name, 1000 + i)
    (root / "readme.txt").write_text("no audio")
    (root / ".hidden.wav").write_text("no audio")
    return root


@pytest.fixture
def opened(monkeypatch):
    """The names of the files that are opened."""
    names = []
    look = indexing.Probes.look

    def noting(self, paths):
        names.extend(map(os.path.basename, paths))
        return look(self, paths)

    monkeypatch.setattr(indexing.Probes, "look", noting)
    return names
