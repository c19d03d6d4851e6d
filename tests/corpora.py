"""Small corpora of silence."""

import numpy as np
import soundfile

from configs import data_config


def write(path, frames=1000, rate=22050):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(frames), rate)


def config(root, tmp_path, **values):
    return data_config(root, cache=str(tmp_path / "cache"), **values)


def names_of(*sides):
    return sorted({side.name(i) for side in sides for i in range(len(side))})
