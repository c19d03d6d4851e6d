"""Goes through the clips: synthesises, times, writes and rates each."""

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from vocoder.audio import files
from vocoder.audio.settings import AudioConfig
from vocoder.data.listing import find
from vocoder.data.lists import Finder, entries
from vocoder.errors import InputError, blamed_on
from vocoder.evaluation.metric import Measure, Metric
from vocoder.evaluation.systems import System
from vocoder.paths import identity, make_output_folder, output_path

REAL_TIME_FACTOR = Measure("rtf", "real-time factor", "", False)


class Results(NamedTuple):
    """The values of every measure on every clip.

    Attributes:
        systems: The columns of the tables.
        clips: Names of those that could be read.
        seconds: (clips,), their lengths.
        measures: What was measured.
        values: (systems, clips, measures); NaN where not defined.
        ended_by: What kept it from the rest of the clips, such as Ctrl-C, or None.
    """

    systems: list[System]
    clips: list[str]
    seconds: np.ndarray
    measures: list[Measure]
    values: np.ndarray
    ended_by: BaseException | None = None


def find_clips(data: Path) -> list[tuple[str, Path]]:
    """(name, path) of the recordings in a folder, or in a list of paths, one a line.

    A list is read as one of the corpus, but that its paths are relative to its own folder. Names
    are relative to what all have in common.

    Raises:
        InputError: There is no such folder or list, or nothing in it.
    """
    if os.path.isdir(data):
        names = [os.fsdecode(name) for name in find(data, ["**/*"])]
        found = [(name, data / name) for name in names]
    elif data.suffix.lower() in files.EXTENSIONS:
        raise InputError(f"--data: {data} is no folder and no list; give the folder that it is in")
    else:
        named = [os.path.join(data.parent, entry) for _, entry in entries(data, "--data")]
        finder = Finder()
        paths = [Path(finder.find(path) or path) for path in named]
        # Without "..", by which a name could lead out of the folder that it is written to.
        whole = [os.path.abspath(path) for path in paths]
        common = os.path.commonpath(map(os.path.dirname, whole)) if paths else ""
        names = [os.path.relpath(path, common) for path in whole]
        found = list(zip(names, paths, strict=True))
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
        fail: Called for every clip that can't be used, and every metric that fails on one.

    Raises:
        InputError: `out` can't be written to, or no clip could be used.
    """
    measures = [m for metric in metrics for m in metric.measures] + [REAL_TIME_FACTOR]
    settings = list(dict.fromkeys(system.audio for system in systems))
    features_of = {system.audio: system.features for system in systems}
    read = {identity(path) for _, path in clips} - {None}
    rated, warm, ended_by = {}, set(), None  # target -> name, seconds, rows of values
    for system in systems:
        make_output_folder(out / system.name, "--out")

    def rate(path, target):
        recordings = {audio: _read(path, audio) for audio in settings}
        inputs = {audio: features_of[audio](wave) for audio, wave in recordings.items()}
        rows = []
        for system in systems:
            recording, features = recordings[system.audio], inputs[system.audio]
            recording = recording[: len(features["mel"]) * system.audio.hop_length]
            wave, spent = _synthesized(system, recording, features, path, warm)
            _write(out / system.name / target, wave, system.audio.sample_rate)
            row = {REAL_TIME_FACTOR.name: spent * system.audio.sample_rate / len(recording)}
            for metric in metrics:
                row |= _said(metric, recording, wave, system, path, fail)
            rows.append([row[measure.name] for measure in measures])
        return len(recordings[settings[0]]) / settings[0].sample_rate, rows

    try:
        for name, path in tqdm(clips, desc="evaluating", unit="clip", disable=None):
            target = output_path(name, ".wav")
            try:
                if target in rated:
                    raise InputError(f"{path}: {target} is made of {rated[target][0]} already")
                if any(identity(out / system.name / target) in read for system in systems):
                    raise InputError(f"{path}: --out: {out} holds recordings; give another folder")
                with blamed_on(path):
                    rated[target] = (name, *rate(path, target))
            except InputError as error:
                make_output_folder(out, "--out")  # or all that follow would fail, too
                fail(error)
    except BaseException as error:  # of whatever kind, it takes nothing of what is rated
        if not rated:
            raise
        ended_by = error
    if not rated:
        raise InputError("--data: none of its recordings could be used")
    names, seconds, values = zip(*rated.values(), strict=True)
    values = np.swapaxes(values, 0, 1)
    return Results(systems, list(names), np.array(seconds), measures, values, ended_by)


def _said(metric, recording, wave, system, path, fail):
    """What a metric says, by the names of its measures: NaN if it fails, as packages may."""
    try:
        with blamed_on(f"{path}: {system.name}"):
            return metric(recording, wave, system.audio.sample_rate)
    except InputError as error:
        names = [measure.name for measure in metric.measures]
        fail(InputError(f"{error}; without {', '.join(names)}"))
        return dict.fromkeys(names, np.nan)


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


def _synthesized(system, recording, features, path, warm):
    """The waveform, and the seconds that it took."""
    if system.synthesize is None:
        return recording, np.nan
    try:
        if (key := (system.name, system.window(len(features["mel"])))) not in warm:
            system.synthesize(features)
            warm.add(key)
        begin = time.perf_counter()
        wave = system.synthesize(features)
    except InputError as error:
        raise InputError(f"{path}: {system.name}: {error}") from error
    return wave, time.perf_counter() - begin


def _write(path, wave, sample_rate):
    with contextlib.suppress(OSError):  # which writing tells
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, wave, sample_rate)
