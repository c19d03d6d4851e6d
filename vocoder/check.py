"""Reads a corpus through before a long run: `python -m vocoder.check DATA [--sample-rate N]`.

Every file is decoded to its end, in other processes. Exit code 0: nothing is bad; 1: something is;
2: the folder or an argument is wrong.
"""

import argparse
import os
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from vocoder.audio import files
from vocoder.data.listing import find
from vocoder.data.probe import Probes
from vocoder.errors import InputError, printable
from vocoder.paths import user_path
from vocoder.startup import command

_CHUNK = 8  # files a request


def examined(paths: list[str]) -> Iterable[tuple[str, dict]]:
    """Each path with what `Probes.look` finds in the whole file, in order, with a bar."""
    count = os.cpu_count() or 1
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    with (
        Probes(count) as probes,
        ThreadPoolExecutor(count) as pool,
        tqdm(total=len(paths), desc="reading", unit="file", disable=None) as bar,
    ):
        answers = pool.map(lambda chunk: probes.look(chunk, whole=True), chunks)
        for chunk, found in zip(chunks, answers, strict=True):
            bar.update(len(chunk))
            yield from zip(chunk, found, strict=True)


def check(root: Path, sample_rate: int | None = None) -> tuple[str, bool]:
    """Reads all audio below a folder.

    Args:
        root: Folder.
        sample_rate: Files at another rate, in Hz, count as bad; None for any rate.

    Returns:
        The table, and whether any file is bad: unreadable, silent, or of another rate.

    Raises:
        InputError: There is no such folder, or no audio in it.
    """
    if not os.path.isdir(root):
        raise InputError(f"DATA: {root} is not a folder; give the one with the recordings")
    paths = [os.path.join(root, os.fsdecode(name)) for name in find(root, ["**/*"])]
    if not paths:
        raise InputError(f"DATA: no audio found below {root}")
    seconds, rates, channels, by_digest = 0.0, Counter(), Counter(), defaultdict(list)
    clipped, silent, bad = [], [], defaultdict(list)
    for path, found in examined(paths):
        if "error" in found:
            bad[path].append(found["error"])
            continue
        rate, samples = found["sample_rate"], found["frames"] * found["channels"]
        seconds += found["frames"] / rate
        rates[rate] += 1
        channels[found["channels"]] += 1
        by_digest[found["digest"]].append(path)
        if found["clipped"]:
            clipped.append(f"{path}: {found['clipped'] / samples:.3%} of the samples")
        if found["peak"] < files.SILENCE:
            silent.append(path)
            mixed = ", as its channels are mixed to mono" if found["channels"] > 1 else ""
            bad[path].append(f"{path}: silence throughout{mixed}")
        if sample_rate is not None and rate != sample_rate:
            bad[path].append(f"{path}: at {rate} Hz, not at {sample_rate} Hz")
    same = [group for group in by_digest.values() if len(group) > 1]
    lines = {
        "files": f"{len(paths):,}",
        "hours": f"{seconds / 3600:.2f}",
        "rates": _counts(rates, " Hz"),
        "channels": _counts(channels, ""),
        "clipped": f"{len(clipped):,} files ({len(clipped) / len(paths):.1%})",
        "silent": f"{len(silent):,} files",
        "duplicates": f"{sum(map(len, same)) - len(same):,} files",
        "bad": f"{len(bad):,} files",
    }
    table = [f"{key:<12}{value}" for key, value in lines.items()]
    table += [f"clipped     {line}" for line in clipped]
    table += [f"duplicate   {path}: as {group[0]}" for group in same for path in group[1:]]
    table += [f"bad         {line}" for reasons in bad.values() for line in reasons]
    return "\n".join(map(printable, table)), bool(bad)


def _counts(counter, unit):
    return ", ".join(f"{key}{unit}: {count:,}" for key, count in sorted(counter.items())) or "none"


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; the exit code."""
    with command():
        parser = argparse.ArgumentParser(prog="python -m vocoder.check", description=__doc__)
        parser.add_argument("data", metavar="DATA", help="folder of recordings")
        parser.add_argument("--sample-rate", type=int, help="Hz; other rates count as bad")
        given = parser.parse_args(arguments)
        if given.sample_rate is not None and given.sample_rate < 1:
            raise InputError(f"--sample-rate: must be at least 1, not {given.sample_rate}")
        table, bad = check(user_path(given.data), given.sample_rate)
        print(table)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
