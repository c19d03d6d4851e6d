"""Rates models on recordings: `python -m vocoder.evaluate MODEL... --data DIR --out DIR`.

MODEL is a run folder, a checkpoint of one or a `.keras` file, or NAME=PATH to name it. Each makes
every recording anew of its mel, and so does Griffin-Lim, to compare with. DIR gets metrics.csv,
summary.json and the audio.
"""

import argparse
import importlib.metadata
import os
import platform
import shlex
import shutil
import sys
from pathlib import Path

from tqdm import tqdm

from vocoder import __version__, registry
from vocoder.errors import InputError, printable
from vocoder.paths import identity, is_inside, user_path
from vocoder.startup import command, devices, import_keras

PACKAGES = (
    "keras", "tensorflow", "numpy", "scipy", "librosa", "soxr",
    "pesq", "pystoi", "pyworld", "speechmos", "onnxruntime",
)  # fmt: skip


def evaluate(
    models: list[str], data: Path, out: Path, names: list[str] | None, limit: int | None
) -> int:
    """Rates models, prints the tables and writes the files.

    Args:
        models: Paths, or NAME=PATH.
        data: Folder of recordings, or a list of them.
        out: Folder to write to.
        names: Metrics; None for all whose package is there.
        limit: How many recordings, None for all.

    Returns:
        How many recordings couldn't be used.

    Raises:
        InputError: Something that was asked for can't be done.
    """
    import_keras()
    from vocoder.evaluation import run, systems
    from vocoder.evaluation.report import Report

    pairs = systems.named(models)
    clips = run.find_clips(data)[:limit]
    metrics, left_out = chosen(names)
    compared = systems.with_references([loaded(name, path) for name, path in pairs])
    _check_output(out, data, pairs, clips, [system.name for system in compared])
    failed = []

    def fail(error):
        failed.append(printable(error))
        tqdm.write(f"error: {printable(error)}", file=sys.stderr)

    results = run.evaluate(compared, clips, metrics, out, fail)
    ended_by = results.ended_by
    if ended_by is not None:
        reason = printable(ended_by) or type(ended_by).__name__
        failed.append(f"ended after {len(results.clips)} of {len(clips)} recordings: {reason}")
    report = Report(results)
    about = {
        "command": printable(shlex.join(sys.orig_argv)),
        "models": {name: printable(path) for name, path in pairs},
        "versions": versions(),
        "machine": machine(),
        "left_out": left_out,
        "failed": failed,
    }
    try:
        report.write(out, about)
    finally:  # if it can't be written, it can be read at least
        print(report.tables(shutil.get_terminal_size((120, 24)).columns))
    print(f"audio, metrics.csv and summary.json: {printable(out)}")
    if ended_by is not None:
        print(failed[-1])
        raise ended_by
    return len(failed)


def _check_output(out, data, models, clips, names):
    """Raises `InputError` if what is read lies where something is to be written."""
    from vocoder.evaluation.report import FILES

    paths = {name: user_path(path) for name, path in models}
    read = {identity(path) for path in (data, *paths.values(), *(path for _, path in clips))}
    for name in FILES:
        if identity(out / name) in read - {None}:
            raise InputError(f"--out: {out / name} is read; give another folder")
    for name in names:
        folder = out / name
        if os.path.isdir(data) and is_inside(data, folder):
            raise InputError(f"--out: {folder} is or holds the recordings; give another folder")
        if name in paths and os.path.isdir(paths[name]) and is_inside(paths[name], folder):
            raise InputError(f"--out: {folder} is or holds the model; give another folder")


def loaded(name: str, path: str):
    """A model as a `vocoder.evaluation.systems.System`."""
    from vocoder.evaluation.systems import System
    from vocoder.synthesize import Vocoder, windows

    vocoder = Vocoder.load(path)

    def window(frames):
        return next(windows(frames, vocoder.generator.receptive_field))[1]

    return System(name, vocoder.audio, vocoder.features, vocoder.synthesize, window, is_model=True)


def chosen(names: list[str] | None) -> tuple[list, list[str]]:
    """The metrics of these names, or all whose package is there, and why others are left out."""
    from vocoder.evaluation import metric

    if names is not None:
        return metric.build_metrics(names, "--metrics"), []
    metrics, left_out = [], []
    for name in registry.METRICS:
        try:
            metrics.append(metric.build(name, "left out"))
        except metric.MissingPackage as error:
            left_out.append(str(error))
            print(error, file=sys.stderr)
    return metrics, left_out


def versions() -> dict[str, str]:
    found = {"vocoder": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict:
    import keras

    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "backend": keras.backend.backend(),
        "devices": devices(),
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line; exits with 1 if some recordings failed, 2 if nothing could begin."""
    with command():
        parser = argparse.ArgumentParser(
            prog="python -m vocoder.evaluate",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("models", metavar="MODEL", nargs="+")
        parser.add_argument(
            "--data",
            metavar="DIR",
            type=Path,
            required=True,
            help="folder of recordings, or a text file with a path a line; what is at another rate "
            "than a model's is resampled",
        )
        parser.add_argument("--out", metavar="DIR", type=Path, required=True)
        parser.add_argument(
            "--metrics",
            metavar="NAME,...",
            help=f"of {', '.join(registry.METRICS)} (default: all whose package is installed)",
        )
        parser.add_argument("--limit", metavar="N", type=int, help="only the first N recordings")
        options = parser.parse_args(arguments)
        data, out = user_path(options.data), user_path(options.out)
        if options.limit is not None and options.limit < 1:
            raise InputError(f"--limit: must be at least 1, not {options.limit}")
        if not os.path.exists(data):
            raise InputError(f"--data: {data}: no such folder or list")
        if os.path.exists(out) and not os.path.isdir(out):
            raise InputError(f"--out: {out} is a file, not a folder")
        if os.path.isdir(data) and is_inside(out, data):
            raise InputError(
                f"--out: {out} is inside of --data, where its audio would pass for recordings"
            )
        names = options.metrics.split(",") if options.metrics is not None else None
        failed = evaluate(options.models, data, out, names, options.limit)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
