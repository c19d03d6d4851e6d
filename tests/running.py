"""Runs of the commands in processes of their own, as a user runs them."""

import csv
import subprocess
import sys

# Small enough for a test: narrow networks, short segments.
TINY = [
    "trainer=smoke",
    "generator.upsample_initial_channel=16",
    "data.batch_size=2",
    "data.segment_length=4096",
    "data.validation_segments=3",
]


def run(*arguments, module="vocoder.train", cwd):
    return subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


def rows(run_folder):
    """The rows of a run's losses.csv."""
    with (run_folder / "losses.csv").open() as file:
        return list(csv.DictReader(file))
