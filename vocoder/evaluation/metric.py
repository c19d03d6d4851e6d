"""What every metric is, and how the packages that some of them need are found."""

import importlib
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import soxr

from vocoder import registry
from vocoder.errors import InputError

# The name `vocoder` on PyPI is somebody else's.
EXTRA = "pip install '.[eval]' in the folder of vocoder's sources"
SHORTEST = 0.25  # seconds; PESQ, the pickiest, refuses less


class Measure(NamedTuple):
    """One number that a metric gives.

    Attributes:
        name: In files and configs.
        label: In tables.
        unit: Or "".
        higher_is_better: Or lower.
    """

    name: str
    label: str
    unit: str
    higher_is_better: bool


class MissingPackage(InputError):
    """The package that a metric needs isn't there, or can't be used."""


class Metric:
    """Rates a synthesised clip, as a rule by comparing it with its recording.

    All metrics are called the same way, `metric(reference, synthesised, sample_rate)`, and give a
    float for each of their measures; those that share work, as all that needs F0, are one metric.
    A subclass has `measures` and `compute`, and a constructor without arguments, which raises
    `MissingPackage`.

    Attributes:
        measures: In the order of the values that `compute` returns.
    """

    measures: tuple[Measure, ...]

    def __call__(self, reference, synthesised, sample_rate: int) -> dict[str, float]:
        """Values of one clip.

        Args:
            reference, synthesised: (samples,), in [-1, 1]; what lies beyond is clipped, as it is in
                a file, and of two lengths the shorter counts.
            sample_rate: Hz, of both.

        Returns:
            Name of the measure -> value; NaN where it isn't defined: for less than a quarter of a
            second, samples that are no numbers, and what a metric says itself.
        """
        length = min(len(reference), len(synthesised))
        pair = [
            np.clip(np.asarray(x[:length], np.float64), -1, 1) for x in (reference, synthesised)
        ]
        if length < SHORTEST * sample_rate or not all(np.isfinite(x).all() for x in pair):
            return {measure.name: np.nan for measure in self.measures}
        values = self.compute(*pair, sample_rate)
        return {m.name: float(value) for m, value in zip(self.measures, values, strict=True)}

    def compute(self, reference: np.ndarray, synthesised: np.ndarray, sample_rate: int):
        """The values of `measures`, of two float64 arrays of one length."""
        raise NotImplementedError


def build(name: str, key: str) -> Metric:
    """The metric that `name` stands for in `registry.METRICS`.

    Args:
        name: Its name.
        key: Where it was asked for, for messages.

    Raises:
        MissingPackage: The line says which package, and how to install it.
        InputError: The name is unknown.
    """
    factory = registry.find(registry.METRICS, name, key)
    try:
        return factory()
    except MissingPackage as error:
        raise MissingPackage(f"{key}: {name} needs {error}") from error


def build_metrics(names: Sequence[str], key: str) -> list[Metric]:
    """The metrics of these names, each once; as `build`."""
    return [build(name, key) for name in dict.fromkeys(names)]


def imported(module: str):
    """Imports what only a metric needs.

    Raises:
        MissingPackage: It isn't there, or fails: packages as old as these may not fit the others.
    """
    package = module.split(".")[0]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what these packages import
            return importlib.import_module(module)
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == package
        reason = "is not installed" if absent else f"can't be imported ({error})"
        raise MissingPackage(f"{package}, which {reason}; {EXTRA}") from error


def at_16k(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Resampled to 16 kHz, and again within [-1, 1]."""
    return np.clip(soxr.resample(samples, sample_rate, 16_000), -1, 1)
