"""The list of the files that could not be used, and when there are too many of them."""

import contextlib
import csv
import datetime
import itertools
import logging
import threading
from pathlib import Path

from vocoder.errors import InputError, printable

log = logging.getLogger("vocoder")

LISTED = 10  # files that the error names


class Quarantine:
    """Notes bad files: a log line and a row of a CSV file each, once.

    Of many files the first few have a line of the log each, and the others one now and then.

    It decides nothing about batches. Whether a segment is drawn again is seen from the file each
    time, never from this list: so a resumed run, whose list is empty, draws the same ones.

    Args:
        path: CSV file (file, reason, when), appended to; None keeps the list in memory.
        max_fraction: Of all files; more bad ones are an error. Only those noticed since the
            process started count: files of an earlier session may have been mended.
    """

    def __init__(self, path: Path | None, max_fraction: float):
        self.path = path
        self.max_fraction = max_fraction
        self.total = None  # unknown until all files are found: then no error is raised yet
        self.messages = {}
        self._told = 0
        self._lock = threading.Lock()
        self._written = set()
        if path is not None and path.exists():
            with (
                path.open(newline="", encoding="utf-8", errors="replace") as file,
                contextlib.suppress(csv.Error),  # then it is no list of ours
            ):
                self._written = {row["file"] for row in csv.DictReader(file) if row.get("file")}

    def add(self, path, message: str) -> None:
        """Notes a file, and raises `InputError` if there are too many, as `check`."""
        self.note(path, message)
        self.check()

    def note(self, path, message: str) -> None:
        """Notes a file, which the next `check` tells.

        Args:
            path: The file.
            message: One line that begins with the path, as an `InputError` of `audio.files`.

        Raises:
            InputError: The CSV file can't be written.
        """
        name = printable(path)
        reason = printable(" ".join(str(message).removeprefix(str(path)).splitlines()))
        with self._lock:
            if name not in self.messages:
                self.messages[name] = name + reason
                if self.path is not None and name not in self._written:
                    self._write(name, reason.lstrip(": "))

    def check(self) -> None:
        """Raises `InputError` if too many files are bad, else tells those that were noted."""
        count = len(self.messages)
        if self.total is None or count == self._told:
            return
        if count <= self.max_fraction * self.total:
            self._tell()
            return
        with self._lock:
            messages = list(itertools.islice(self.messages.values(), LISTED))
            rates = any("audio.sample_rate=" in message for message in self.messages.values())
        more = f"; and {count - LISTED} more" if count > LISTED else ""
        hint = "; data.resample=true resamples" if rates else ""
        raise InputError(
            f"{'data.resample' if rates else 'data.max_bad_fraction'}: "
            f"{'; '.join(messages)}{more}{hint}; {count} of {self.total} files "
            f"are bad, more than data.max_bad_fraction={self.max_fraction:g}"
        )

    def _tell(self):
        with self._lock:
            told, self._told = self._told, len(self.messages)
            named = list(itertools.islice(self.messages.values(), told, LISTED))
        for message in named:
            log.warning("left out: %s", message)
        # Beyond them it is told how many there are: when several come at once, at 20, 40, 80, ...
        doubled = self._told % LISTED == 0 and (self._told // LISTED).bit_count() == 1
        if self._told > LISTED and (self._told > told + 1 or doubled):
            listed = f"; {self.path} lists them" if self.path is not None else ""
            log.warning("left out: %d files of %d by now%s", self._told, self.total, listed)

    def _write(self, name, reason):
        when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Opened each time: what is noted is on the disk, whatever comes.
            with self.path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if file.tell() == 0:
                    writer.writerow(["file", "reason", "when"])
                writer.writerow([name, reason, when])
        except OSError as error:
            raise InputError(f"{self.path}: can't be written ({error.strerror})") from error
