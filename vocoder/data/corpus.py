"""Which files of a corpus train and which validate."""

import hashlib
import logging
import os

import numpy as np

from vocoder.config import DataConfig
from vocoder.data.index import ByteStrings, Index, build, cache_path, same_rows
from vocoder.data.listing import find
from vocoder.data.lists import read_list
from vocoder.data.quarantine import Quarantine
from vocoder.errors import InputError
from vocoder.paths import user_path

log = logging.getLogger("vocoder")


def split(names: ByteStrings, fraction: float) -> np.ndarray:
    """Which files validate: those whose hash of the path, in [0, 1), is below `fraction`.

    So a file stays on its side when others come or go. There is always one file at least on each
    side, if need be the one whose hash comes closest; a single file is on both.

    Returns:
        (files,), bool.
    """
    hashes = np.fromiter(
        (int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) for name in names),
        np.uint64,
        len(names),
    )
    validates = hashes < np.uint64(min(int(fraction * 2.0**64), 2**64 - 1))
    if len(names) < 2:
        return np.ones(len(names), bool)
    if not validates.any():
        validates[hashes.argmin()] = True
        log.warning(
            "data.validation_fraction: %g of %d files is none; %s validates",
            fraction,
            len(names),
            os.fsdecode(names[int(hashes.argmin())]),
        )
    elif validates.all():
        validates[hashes.argmax()] = False
        log.warning("data.validation_fraction: %g left no file to train on; one does", fraction)
    return validates


def load_corpus(
    data: DataConfig, sample_rate: int | None = None, quarantine: Quarantine | None = None
) -> tuple[Index, Index]:
    """Finds the files of a corpus and splits them, as the config says.

    Args:
        data: Where they are.
        sample_rate: Files at another rate are left out; None takes any.
        quarantine: Gets the files that are left out.

    Returns:
        The index of the files that train, and of those that validate.

    Raises:
        InputError: Names the key: there is no such folder or list, no audio, or too many bad files.
    """
    if not data.root or data.root == "???":
        raise InputError("data.root: missing; give data.root=FOLDER")
    root = user_path(data.root)
    if not os.path.isdir(root):
        raise InputError(f"data.root: {root} is not a folder; give the one with the recordings")
    train_list = validation_list = None
    if data.train_list is not None:
        train_list = read_list(root, data.train_list, "data.train_list")
    if data.validation_list is not None:
        validation_list = read_list(root, data.validation_list, "data.validation_list")

    names = train_list
    if names is None:
        if not data.include:
            raise InputError('data.include: empty; ["**/*"] takes everything')
        names = find(root, data.include)
    if validation_list is not None:
        names = sorted({*names, *validation_list})
    lists = [data.train_list or "", data.validation_list or ""]
    key = [str(root.resolve()), *data.include, *lists]
    names = ByteStrings.of(names)
    quarantine = quarantine or Quarantine(None, max_fraction=1.0)
    index = build(root, names, cache_path(data.cache, *key), quarantine.add)
    if sample_rate is not None:
        index = _of_rate(index, sample_rate, quarantine)
    quarantine.total = len(names)
    quarantine.check()
    if not len(index):
        looked = f"patterns {', '.join(data.include)}" if train_list is None else "of the list"
        raise InputError(f"data.root: no audio found below {root} ({looked})")

    if validation_list is None:
        validates = split(index.names, data.validation_fraction)
        trains = ~validates if len(index) > 1 else validates
        if len(index) == 1:
            log.warning("data.root: a single file; it trains and validates")
    else:
        validates = _are_in(index.names, validation_list)
        trains = ~validates if train_list is None else _are_in(index.names, train_list)
        both = int((trains & validates).sum())
        if both:
            log.warning("data.validation_list: %d of its files are in data.train_list too", both)
    for key, side in {"train_list": trains, "validation_list": validates}.items():
        if not side.any():
            raise InputError(f"data.{key}: no readable audio is left on this side of the split")
    return index.subset(trains), index.subset(validates)


def _of_rate(index, sample_rate, quarantine):
    wanted = index.sample_rate == sample_rate
    for i in np.flatnonzero(~wanted):
        path, rate = index.path(i), index.sample_rate[i]
        quarantine.add(path, f"{path} is at {rate} Hz, not at audio.sample_rate={sample_rate}")
    return index if wanted.all() else index.subset(wanted)


def _are_in(names, listed):
    return same_rows(names, listed) >= 0
