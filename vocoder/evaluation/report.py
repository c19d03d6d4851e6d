"""The tables of an evaluation, and its files: metrics.csv and summary.json."""

import csv
import itertools
import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vocoder.errors import InputError, printable
from vocoder.evaluation import statistics
from vocoder.evaluation.run import Results
from vocoder.paths import replacing

SIGNIFICANT = 0.05
FILES = CSV, SUMMARY = "metrics.csv", "summary.json"


class Difference(NamedTuple):
    """One measure of one system less that of another, on the same clips."""

    first: str
    second: str
    measure: str
    mean: statistics.Mean
    p: float  # adjusted for the number of all differences


class Report:
    """What an evaluation found.

    Attributes:
        results: The values.
        means: (system, measure) -> `statistics.Mean`.
        differences: Of all pairs of models, and of each model and its Griffin-Lim.
    """

    def __init__(self, results: Results):
        self.results = results
        names = [system.name for system in results.systems]
        self.means = {
            (name, measure.name): statistics.mean(results.values[i, :, j])
            for i, name in enumerate(names)
            for j, measure in enumerate(results.measures)
        }
        pairs = [
            (i, j)
            for j, i in itertools.combinations(range(len(names)), 2)
            if _comparable(results.systems[i], results.systems[j])
        ]
        keys = list(itertools.product(pairs, range(len(results.measures))))
        values = [results.values[i, :, k] - results.values[j, :, k] for (i, j), k in keys]
        p_values = statistics.adjusted(np.array([statistics.p_value(v) for v in values]))
        self.differences = [
            Difference(names[i], names[j], results.measures[k].name, statistics.mean(v), p)
            for ((i, j), k), v, p in zip(keys, values, p_values, strict=True)
        ]

    def tables(self, width: int) -> str:
        """Both tables and what has to be said to them, in lines of `width` characters."""
        results = self.results
        heads = [(_label(m), "higher" if m.higher_is_better else "lower") for m in results.measures]
        means = {
            system.name: [_mean(self.means[system.name, m.name]) for m in results.measures]
            for system in results.systems
        }
        count, minutes = len(results.clips), results.seconds.sum() / 60
        percent = f"{statistics.LEVEL:.0%}"
        clips = "1 clip" if count == 1 else f"{count} clips"
        lines = [f"{clips}, {minutes:.1f} min; mean [{percent} bootstrap interval]"]
        lines += _table(("", "better"), heads, means, width)
        differences = {}
        for one in self.differences:
            differences.setdefault(f"{one.first} - {one.second}", []).append(_difference(one))
        if differences:
            significant = f"p < {SIGNIFICANT:g}"
            few = count < statistics.FEWEST
            stars = f"{significant} takes {statistics.FEWEST} clips" if few else f"* {significant}"
            lines += [
                "",
                "differences (p of Wilcoxon's signed-rank test on the clips, adjusted for their "
                f"number); {stars}",
                *_table(("", "better"), heads, differences, width),
            ]
        return "\n".join([*lines, *self._undefined()])

    def _undefined(self):
        clips = len(self.results.clips)
        made = {system.name for system in self.results.systems if system.synthesize is not None}
        for (system, measure), mean in self.means.items():
            if mean.count < clips and system in made:
                yield f"{measure}: not defined on {clips - mean.count} of {clips} clips of {system}"

    def write(self, out: Path, about: dict) -> None:
        """Writes `metrics.csv`, a row per system and clip, and `summary.json`.

        Args:
            out: Folder, which exists.
            about: What else the summary says, such as the command.

        Raises:
            InputError: They can't be written.
        """
        results = self.results
        means = {}
        for (system, measure), mean in self.means.items():
            means.setdefault(system, {})[measure] = _fields(mean)
        summary = about | {
            "clips": len(results.clips),
            "seconds": round(float(results.seconds.sum()), 3),
            "measures": {m.name: m._asdict() for m in results.measures},
            "means": means,
            "differences": [
                one._asdict() | _fields(one.mean) | {"p": _number(one.p)}
                for one in self.differences
            ],
        }
        try:
            with replacing(out / CSV, newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["model", "clip", "seconds", *(m.name for m in results.measures)])
                for system, rows in zip(results.systems, results.values, strict=True):
                    for clip, seconds, row in zip(
                        results.clips, results.seconds, rows, strict=True
                    ):
                        numbers = ("" if math.isnan(x) else f"{x:.7g}" for x in row)
                        writer.writerow(
                            [printable(system.name), printable(clip), f"{seconds:.3f}", *numbers]
                        )
            with replacing(out / SUMMARY, encoding="utf-8") as file:
                file.write(json.dumps(summary, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"--out: {out} can't be written to ({error})") from error


def _comparable(first, second):
    """Whether the difference of a model, the first, and another system is of interest."""
    reference = second.synthesize is not None and second.audio == first.audio
    return first.is_model and (second.is_model or reference)


def _label(measure):
    return f"{measure.label} ({measure.unit})" if measure.unit else measure.label


def _digits(value, sign=""):
    return f"{round(value, 9):{sign}#.4g}".rstrip(".")  # what rounding leaves of 0 is 0


def _mean(mean):
    if math.isnan(mean.mean):
        return "-"
    if math.isnan(mean.low):
        return _digits(mean.mean)
    return f"{_digits(mean.mean)} [{_digits(mean.low)}, {_digits(mean.high)}]"


def _difference(one):
    if math.isnan(one.mean.mean):
        return "-"
    p = "p < 0.001" if one.p < 0.001 else f"p {one.p:.3f}"
    star = " *" if one.p < SIGNIFICANT else ""
    return f"{_digits(one.mean.mean, '+')} ({p}){star}"


def _number(value):
    return None if math.isnan(value) else float(value)


def _fields(mean):
    return {key: _number(value) for key, value in mean._asdict().items()} | {"count": mean.count}


def _table(corner, heads, columns, width):
    """Lines of a table; below one another what isn't wide enough for side by side.

    Args:
        corner: Titles of the heads' columns.
        heads: What the rows begin with, of as many columns.
        columns: Title -> cells.
        width: Characters.
    """
    left = [_padded([title, *(head[i] for head in heads)]) for i, title in enumerate(corner)]
    block = list(left)
    for title, cells in columns.items():
        column = _padded([title, *cells])
        if len(block) > len(left) and sum(len(c[0]) + 2 for c in [*block, column]) > width:
            yield from _joined(block)
            yield ""
            block = list(left)
        block.append(column)
    yield from _joined(block)


def _padded(cells):
    width = max(map(len, cells))
    return [cell.ljust(width) for cell in cells]


def _joined(columns):
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
