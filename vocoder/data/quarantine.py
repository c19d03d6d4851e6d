"""The list of the files that could not be used, and when there are too many of them."""

import csv
import datetime
import logging
import threading
from pathlib import Path

from vocoder.errors import InputError

log = logging.getLogger("vocoder")

LISTED = 10  # files that the error names


class Quarantine:
    """Notes bad files: a log line and a row of a CSV file each, once.

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
        self._lock = threading.Lock()
        self._written = set()
        if path is not None and path.exists():
            with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
                self._written = {row["file"] for row in csv.DictReader(file) if row.get("file")}

    def add(self, path, message: str) -> None:
        """Notes a file, and raises `InputError` if there are too many, as `check`."""
        self.note(path, message)
        self.check()

    def note(self, path, message: str) -> None:
        """Notes a file.

        Args:
            path: The file.
            message: One line that begins with the path, as an `InputError` of `audio.files`.
        """
        path, message = str(path), " ".join(str(message).splitlines())
        with self._lock:
            if path not in self.messages:
                self.messages[path] = message
                log.warning("left out: %s", message)
                if self.path is not None and path not in self._written:
                    self._write(path, message.removeprefix(path).lstrip(": "))

    def check(self) -> None:
        """Raises `InputError` with the list if too many files are bad."""
        messages = list(self.messages.values())
        if self.total is None or len(messages) <= self.max_fraction * self.total:
            return
        more = f"; and {len(messages) - LISTED} more" if len(messages) > LISTED else ""
        rates = any("audio.sample_rate=" in message for message in messages)
        hint = "; data.resample=true resamples" if rates else ""
        text = (
            f"{'data.resample' if rates else 'data.max_bad_fraction'}: "
            f"{'; '.join(messages[:LISTED])}{more}{hint}; {len(messages)} of {self.total} files "
            f"are bad, more than data.max_bad_fraction={self.max_fraction:g}"
        )
        # Names of files need not be text; what TensorFlow passes on must be.
        raise InputError(text.encode("utf-8", "backslashreplace").decode())

    def _write(self, path, reason):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        when = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        with self.path.open(
            "a", newline="", encoding="utf-8", errors="surrogateescape"
        ) as file:  # opened each time: what is noted is on the disk, whatever comes
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(["file", "reason", "when"])
            writer.writerow([path, reason, when])
