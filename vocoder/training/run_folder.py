"""A run's folder as others find it: whose it is, which checkpoints are whole, what was abandoned.

    .lock                         held by the process that trains here
    checkpoints/step-00001000/    see `vocoder.training.checkpoints`
    generator.keras               the newest checkpoint's
    abandoned/after-step-.../     what came after an earlier checkpoint that was gone on from; it is
                                  a run's folder as well

Nothing here imports TensorFlow, and nothing that a folder holds is trusted.
"""

import contextlib
import errno
import itertools
import json
import logging
import os
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from vocoder.errors import InputError, printable
from vocoder.paths import open_regular, replacing

log = logging.getLogger("vocoder")

CHECKPOINTS = "checkpoints"
GENERATOR = "generator.keras"
LOCK = ".lock"
ABANDONED = "abandoned"
INFO = "info.json"
LARGEST_INFO = 2**16  # bytes

# What an abandoned future needs beside its checkpoints, to be a run's folder.
_BELONGS = ("config.yaml", "overrides.yaml", "losses.csv", GENERATOR, "samples", "tensorboard")


@contextlib.contextmanager
def locked(run: Path):
    """Keeps every other run out of this folder; the end of the process, however it comes, ends it.

    The folder is made if it isn't there; it goes if nothing gets into it.

    Raises:
        InputError: Another process trains here, or the folder can't be written to.
    """
    path = run / LOCK
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        made = not run.exists()
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InputError(f"{path}: no regular file")
        _lock(descriptor, path)
        yield
    finally:
        os.close(descriptor)
        if made and os.listdir(run) == [LOCK]:
            shutil.rmtree(run)


def _lock(descriptor, path):
    try:
        import fcntl
    except ImportError:  # there are none on Windows
        return
    try:
        # A lock of this process: what it starts doesn't inherit it, and so can't outlive it.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            log.warning("%s: no locks here (%s); see that no other run is", path, error.strerror)
            return
        holder = os.read(descriptor, 300).decode(errors="replace").strip() or "unknown"
        raise InputError(
            f"{path.parent}: another run is writing here ({printable(holder)}); wait for its end, "
            "or give another hydra.run.dir"
        ) from error
    with contextlib.suppress(OSError):  # of a full disk; the lock holds all the same
        os.truncate(descriptor, 0)
        os.write(descriptor, f"host {socket.gethostname()}, pid {os.getpid()}\n".encode())


def step_of(checkpoint: Path) -> int | None:
    """The step in a checkpoint's name, None if it isn't one."""
    found = re.fullmatch(r"step-(\d{1,18})", checkpoint.name, re.ASCII)
    return int(found[1]) if found else None


def examine(run: Path) -> tuple[list[Path], list[str]]:
    """The whole checkpoints of a run, oldest first, and a line for each that isn't whole.

    Raises:
        InputError: The folder of checkpoints can't be read.
    """
    whole, faults = [], []
    for path in _named(run / CHECKPOINTS):
        try:
            if step_of(path) is None:
                raise InputError(f"{path}: no checkpoint, for want of a step in its name")
            step = about(path)["step"]
            if step != step_of(path):
                raise InputError(f"{path / INFO}: says that this is step {step}")
        except InputError as error:
            faults.append(str(error))
        else:
            whole.append(path)
    return sorted(whole, key=step_of), faults


def complete(run: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first.

    Raises:
        InputError: The folder of checkpoints can't be read.
    """
    return examine(run)[0]


def _named(folder):
    """What is called as checkpoints and their samples are."""
    try:
        return [folder / name for name in sorted(os.listdir(folder)) if name.startswith("step-")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror})") from error


def about(checkpoint: Path) -> dict:
    """What `info.json` says of a checkpoint that has all of its files.

    Raises:
        InputError: A file is missing or damaged; the line names it.
    """
    try:
        if not stat.S_ISDIR(checkpoint.lstat().st_mode):
            raise InputError(f"{checkpoint}: no folder, as a checkpoint is")
        names = os.listdir(checkpoint)
    except OSError as error:
        raise InputError(f"{checkpoint}: can't be read ({error.strerror})") from error
    if not any(name.startswith("state.data-") for name in names):
        raise InputError(f"{checkpoint / 'state.data-00000-of-00001'}: no such file")
    os.close(open_regular(checkpoint / "state.index"))
    info = read_json(checkpoint / INFO)
    if isinstance(info, dict):
        # Before there was `trainer.best`, every run went by the total.
        before = {"measure": "loss", "value": info.get("validation_loss"), "seconds": 0.0}
        info = before | info
        numbers = [info["seconds"], 0 if info["value"] is None else info["value"]]
        finite = all(type(n) in (int, float) and abs(n) < 1e300 for n in numbers)
        if type(info.get("step")) is int and isinstance(info["measure"], str) and finite:
            return info
    raise InputError(f"{checkpoint / INFO}: damaged; must hold a step, a measure and its value")


def read_json(path: Path):
    """What a small JSON file holds.

    Raises:
        InputError: It isn't there, or is no JSON.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        try:
            return json.loads(file.read(LARGEST_INFO))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{path}: damaged ({' '.join(str(error).split())})") from error


def set_aside(run: Path, step: int) -> Path | None:
    """Moves the checkpoints after `step` out of a run that goes on from there.

    They become a run's folder of their own, with all that the run has written down until now. So
    nothing is lost, and nothing of it passes for what comes instead.

    Args:
        run: The run's folder.
        step: Of the checkpoint to go on from; 0 for a new run.

    Returns:
        Where they are now; None if there are none.

    Raises:
        InputError: They can't be moved.
    """
    later = [path for path in _named(run / CHECKPOINTS) if (step_of(path) or 0) > step]
    if not later:
        return None
    target = free_name(run / ABANDONED / f"after-step-{step:08d}")
    try:
        (target / CHECKPOINTS).mkdir(parents=True)
        for name in _BELONGS:
            if (run / name).is_dir():
                shutil.copytree(run / name, target / name, symlinks=True, copy_function=_link)
            elif (run / name).is_file():
                _link(run / name, target / name)
        for path in sorted(later, key=step_of, reverse=True):
            os.replace(path, target / CHECKPOINTS / path.name)
        # It was the abandoned future's; `generators_of` finds those of checkpoints.
        (run / GENERATOR).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: can't be written ({reason_of(error)})") from error
    return target


def _link(source, target):
    """Gives a file a second name, for the run replaces what it writes anew; else copies it."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copyfile(source, target, follow_symlinks=False)


def offer(checkpoint: Path, run: Path) -> None:
    """Puts a checkpoint's generator at the top of its run.

    Raises:
        OSError: It can't be written.
    """
    with (checkpoint / GENERATOR).open("rb") as source, replacing(run / GENERATOR, "wb") as target:
        shutil.copyfileobj(source, target)


def generators_of(folder: Path) -> Iterator[Path]:
    """The generators of a run or a checkpoint: its own, then its checkpoints', newest first.

    Raises:
        InputError: The folder of checkpoints can't be read.
    """
    if (folder / GENERATOR).is_file():
        yield folder / GENERATOR
    for checkpoint in reversed(complete(folder)):
        if (checkpoint / GENERATOR).is_file():
            yield checkpoint / GENERATOR


def free_name(path: Path) -> Path:
    """`path`, or if that is taken, the first of path-2, path-3, ... that is not."""
    names = itertools.chain([path.stem], (f"{path.stem}-{i}" for i in itertools.count(2)))
    paths = (path.with_name(name + path.suffix) for name in names)
    return next(path for path in paths if not os.path.lexists(path))


def reason_of(error: Exception) -> str:
    """Why something can't be read or written, on a line, also of TensorFlow's errors."""
    text = getattr(error, "strerror", None) or str(error)
    return re.sub(r"\{\{function_node .*?\}\} ?", "", text).split("\n")[0][:300]
