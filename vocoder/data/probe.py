"""Looks into audio files in other processes, so that a crash in the decoder costs one file.

`python -m vocoder.data.probe` is the program of such a process. It reads requests, a line of JSON
each with a list of paths, and answers with a line for each path in turn. The answer that does not
come names the file at fault. It imports neither Keras nor TensorFlow.
"""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
from pathlib import Path

import numpy as np

from vocoder.audio import files
from vocoder.errors import InputError

COMMAND = (sys.executable, "-P", "-m", "vocoder.data.probe")
CRASHED = "the decoder crashed"
_FIRST = 4096  # samples that are decoded when the header says the rest


class Probes:
    """Some processes that look into files; each starts when it is first needed.

    Args:
        count: How many at most. Any thread may call; more callers than processes wait.
    """

    def __init__(self, count: int):
        self._workers = [_Worker() for _ in range(count)]
        self._idle = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def look(self, paths: list[str], whole: bool = False) -> list[dict]:
        """What is in some files.

        Args:
            paths: Files.
            whole: Decode all to the end, not only what has a length that is known no other way.

        Returns:
            For each file `frames`, `sample_rate`, `channels`, with `whole` what `examine` finds
            besides; or `error`, one line that begins with the path.
        """
        worker = self._idle.get()
        try:
            found = []
            while len(found) < len(paths):
                found += worker.ask(paths[len(found) :], whole)
                if len(found) < len(paths):  # it died, of the next one if that kills another too
                    path = paths[len(found)]
                    found += worker.ask([path], whole) or [{"error": f"{path}: {CRASHED}"}]
            return found
        finally:
            self._idle.put(worker)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers:
            worker.stop()


class _Worker:
    def __init__(self):
        self.process = None

    def ask(self, paths, whole):
        """The answers up to that at which the process died, if it did."""
        if self.process is None:
            self._start()
        answers = []
        try:
            request = json.dumps({"paths": paths, "whole": whole})
            self.process.stdin.write(request.encode() + b"\n")
            self.process.stdin.flush()
            for _ in paths:
                line = self.process.stdout.readline()
                if not line.endswith(b"\n"):
                    break
                answers.append(json.loads(line))
        except BrokenPipeError:  # it died between two requests
            self.stop()
            return self.ask(paths, whole)
        if len(answers) < len(paths):
            self.stop()
        return answers

    def _start(self):
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # decoders of MP3 chat there
            env=os.environ | {"PYTHONPATH": path},
        )
        if self.process.stdout.readline() != b"ready\n":
            self.stop()
            raise RuntimeError(f"{' '.join(COMMAND)} does not start; run it to see why")

    def stop(self):
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.stdout.close()
            process.kill()
            process.wait()


def examine(path: str) -> dict:
    """A file read to its end, in bounded memory.

    Returns:
        `frames`, `sample_rate`, `channels`; `peak`, the largest magnitude as mono; `clipped`,
        samples of all channels at or beyond full scale; `digest`, a hash of the samples, the rate
        and the channels: equal in two files of equal sound.

    Raises:
        InputError: It can't be read to its end, or holds NaN.
    """
    digest, frames, peak, clipped = hashlib.blake2b(digest_size=16), 0, 0.0, 0
    for samples in files.blocks(path):
        frames += len(samples)
        digest.update(samples.tobytes())
        peak = max(peak, float(np.abs(files.mixed(samples)).max()))
        clipped += int((np.abs(samples) >= 1 - 2**-15).sum())
    info = files.info(path, frames)
    digest.update(repr(info[1:]).encode())
    return info._asdict() | {"peak": peak, "clipped": clipped, "digest": digest.hexdigest()}


def _answer(path, whole):
    try:
        if whole:
            return examine(path)
        found = files.info(path)
        files.check_samples(files.read(path, 0, min(found.frames, _FIRST)), path)
        return found._asdict()
    except InputError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever it is, it costs one file
        return {"error": f"{path}: can't be read ({type(error).__name__}: {error})"}


def main() -> None:
    """Answers until there are no more requests."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a library prints must not get between the answers
    print("ready", file=answers, flush=True)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        for path in request["paths"]:
            print(json.dumps(_answer(path, request["whole"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
