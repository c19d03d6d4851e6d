"""Goes through the clips: synthesises, times, writes and rates each."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vocoder.audio import files
from vocoder.config import AudioConfig
from vocoder.data.index import find
from vocoder.data.lists import Finder, entries
from vocoder.errors import InputError, blamed_on
from vocoder.evaluation.metric import Measure, Metric
from vocoder.evaluation.systems import System
from vocoder.paths import identity, output_path

REAL_TIME_FACTOR = Measure("rtf", "real-time factor", "", False)


class Results(NamedTuple):
    """The values of every measure on every clip.

    Attributes:
        systems: The columns of the tables.
        clips: Names of those that could be read.
        seconds: (clips,), their lengths.
        measures: What was measured.
        values: (systems, clips, measures); NaN where not defined.
    """

    systems: list[System]
    clips: list[str]
    seconds: np.ndarray
    measures: list[Measure]
    values: np.ndarray


def find_clips(data: Path) -> list[tuple[str, Path]]:
    """(name, path) of the recordings in a folder, or in a list of paths, one a line.

    A list is read as one of the corpus, but that its paths are relative to its own folder. Names
    are relative to what all have in common.

    Raises:
        InputError: There is no such folder or list, or nothing in it.
    """
    if data.is_dir():
        names = [os.fsdecode(name) for name in find(data, ["**/*"])]
        found = [(name, data / name) for name in names]
    elif data.suffix.lower() in files.EXTENSIONS:
        raise InputError(f"--data: {data} is no folder and no list; give the folder that it is in")
    else:
        named = [os.path.join(data.parent, entry) for _, entry in entries(data, "--data")]
        finder = Finder()
        paths = [Path(finder.find(path) or path) for path in named]
        common = os.path.commonpath([path.absolute().parent for path in paths]) if paths else ""
        found = [(os.path.relpath(path, common), path) for path in paths]
    if not found:
        raise InputError(f"--data: no audio in {data}")
    return found


def evaluate(
    systems: list[System],
    clips: list[tuple[str, Path]],
    metrics: list[Metric],
    out: Path,
    fail: Callable[[InputError], None],
) -> Results:
    """Rates every system on every clip, with a progress bar.

    The audio goes to `out/SYSTEM/CLIP.wav`. The real-time factor is the time that synthesis takes,
    by the length of what it makes, once everything is compiled.

    Args:
        systems: Each has a name of its own.
        clips: Names and paths.
        metrics: What to measure; the real-time factor is always measured.
        out: Folder.
        fail: Called for every clip that can't be used.

    Raises:
        InputError: `out` can't be written to, or no clip could be used.
    """
    measures = [m for metric in metrics for m in metric.measures] + [REAL_TIME_FACTOR]
    settings = list(dict.fromkeys(system.audio for system in systems))
    mels = {system.audio: system.mel for system in systems}
    used, seconds, values, warm = {}, [], [], set()
    for system in systems:
        _make(out / system.name)
    read = {identity(path) for _, path in clips} - {None}
    try:
        for name, path in tqdm(clips, desc="evaluating", unit="clip", disable=None):
            target = output_path(name, ".wav")
            try:
                if target in used:
                    raise InputError(f"{path}: {target} is made of {used[target]} already")
                if any(identity(out / system.name / target) in read for system in systems):
                    raise InputError(f"{path}: --out: {out} holds recordings; give another folder")
                with blamed_on(path):
                    recordings = {audio: _read(path, audio) for audio in settings}
                    inputs = {audio: mels[audio](wave) for audio, wave in recordings.items()}
                    rows = [
                        _rated(
                            system, metrics, recordings, inputs, warm, out / system.name / target
                        )
                        for system in systems
                    ]
            except InputError as error:
                fail(error)
                continue
            used[target] = name
            seconds.append(len(recordings[settings[0]]) / settings[0].sample_rate)
            values.append([[row[measure.name] for measure in measures] for row in rows])
    except KeyboardInterrupt:
        if not values:
            raise
        fail(InputError(f"interrupted: {len(values)} of {len(clips)} recordings are rated"))
    if not values:
        raise InputError("--data: none of its recordings could be used")
    return Results(
        systems, list(used.values()), np.array(seconds), measures, np.swapaxes(values, 0, 1)
    )


def _rated(system, metrics, recordings, inputs, warm, target):
    """What the metrics say of a system's synthesis, by the names of the measures."""
    recording, mel = recordings[system.audio], inputs[system.audio]
    recording = recording[: len(mel) * system.audio.hop_length]
    wave, spent = _synthesized(system, recording, mel, warm)
    _write(target, wave, system.audio.sample_rate)
    row = {REAL_TIME_FACTOR.name: spent * system.audio.sample_rate / len(recording)}
    for metric in metrics:
        row |= metric(recording, wave, system.audio.sample_rate)
    return row


def _read(path: Path, audio: AudioConfig) -> np.ndarray:
    """The whole recording as mono at the rate of `audio`, (samples,)."""
    about = files.info(path)
    length = files.resampled_length(about.frames, about.sample_rate, audio.sample_rate)
    if length < audio.n_fft:
        raise InputError(f"{path}: shorter than a window of the mel ({audio.n_fft} samples)")
    samples = files.read_segment(
        path, 0, length, sample_rate=audio.sample_rate, frames=about.frames
    )
    if files.check_samples(samples, path) < files.SILENCE:
        raise InputError(f"{path}: silence throughout")
    return samples


def _synthesized(system, recording, mel, warm):
    """The waveform, and the seconds that it took."""
    if system.synthesize is None:
        return recording, np.nan
    if (key := (system.name, system.window(len(mel)))) not in warm:
        system.synthesize(mel)
        warm.add(key)
    begin = time.perf_counter()
    wave = system.synthesize(mel)
    return wave, time.perf_counter() - begin


def _write(path, wave, sample_rate):
    _make(path.parent)
    files.write(path, wave, sample_rate)


def _make(folder):
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out: {folder} can't be made ({error})") from error
