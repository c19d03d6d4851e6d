"""What a command does first: who may speak on the screen, where caches go, which Keras there is.

On the screen are our own lines and errors. What libraries say, by Python's warnings and loggers or
on descriptor 2 from C and C++, goes to a run's `train.log`, or nowhere if there is no run.
Nothing here imports Keras.
"""

import atexit
import contextlib
import faulthandler
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from vocoder.errors import InputError, Screen, exit_on_input_error, printable
from vocoder.paths import check_no_links, open_to_append

LOG = "train.log"  # in a run's folder
WRITTEN_BELOW = ("abandoned", "checkpoints", "samples", "tensorboard")  # folders in it
IN_PLACE = (".lock", "quarantine")  # how names begin of what is not replaced as a whole


@contextlib.contextmanager
def command():
    """What a command runs in: a mistake is a line, libraries are silent, caches can be written."""
    for descriptor in range(3):
        _keep_open(descriptor)
    with exit_on_input_error(), _our_lines(), _crashes_on_the_screen():
        working_folder()
        use_caches()
        yield


def _keep_open(descriptor):
    """If a standard stream is closed, no file may take its place, to be written to by libraries."""
    try:
        os.fstat(descriptor)
    except OSError:
        os.open(os.devnull, os.O_RDWR)  # takes the lowest that is free


def working_folder() -> str:
    """The working folder.

    Raises:
        InputError: It is gone.
    """
    try:
        return os.getcwd()
    except FileNotFoundError as error:
        raise InputError("the working folder is gone; cd to one that there is") from error


def use_caches() -> None:
    """Leads libraries to a passing folder for what they keep where the user can't write.

    Numba, which librosa needs, could not be imported otherwise by a user without a home.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    places = {
        "XDG_CACHE_HOME": cache,
        "NUMBA_CACHE_DIR": os.path.join(cache, "numba"),
        "MPLCONFIGDIR": os.path.join(config, "matplotlib"),
        "KERAS_HOME": os.path.expanduser("~/.keras"),
    }
    places |= {name: os.environ[name] for name in places if os.environ.get(name)}
    shut = [name for name, place in places.items() if not _can_be_written(place)]
    if shut:
        folder = tempfile.mkdtemp(prefix="vocoder-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ.update(dict.fromkeys(shut, folder))


def _can_be_written(place: str) -> bool:
    """Whether a folder is there to write to, or could be made in a home folder that is there."""
    home = os.path.expanduser("~")
    if not os.path.isabs(place) or (place.startswith(home) and not os.path.isdir(home)):
        return False
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    return os.path.isdir(place) and os.access(place, os.W_OK | os.X_OK)


def import_keras(tensorflow: str | None = None, log: int | None = None) -> None:
    """Imports Keras; what libraries say meanwhile does not reach the screen.

    Args:
        tensorflow: What needs that backend, for the message; None if any will do.
        log: Descriptor to write it to; None for nowhere.

    Raises:
        InputError: Keras can't be imported, or runs on another backend than is needed.
    """
    way_out = "KERAS_BACKEND=tensorflow would do"
    try:
        with open(os.devnull, "wb") as nowhere, _speaking_into(log or nowhere.fileno()):
            import keras

            with contextlib.suppress(ImportError):  # no other backend needs it
                import tensorflow as tf

                tf.config.list_physical_devices()  # tells what it finds of CUDA
    except Exception as error:  # each backend has its own for what is missing
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"KERAS_BACKEND: Keras can't be imported ({reason}); {way_out}") from error
    backend = keras.config.backend()
    if tensorflow is not None and backend != "tensorflow":
        raise InputError(
            f"KERAS_BACKEND: {tensorflow} needs tensorflow, not {backend}, which the environment "
            f"or Keras' keras.json asks for; {way_out}"
        )


def devices(kind: str | None = None) -> list[str]:
    """The devices that Keras' backend has, of a kind such as "gpu" or all; none if it can't say."""
    import keras

    try:
        return keras.distribution.list_devices(kind)
    except (AttributeError, NotImplementedError):
        return []


def check_run_folder(run: Path) -> None:
    """Checks that a run that goes on, which may be a stranger's, writes nothing outside of it.

    Raises:
        InputError: A link or the like is in the way, or TensorFlow can't have files there.
    """
    try:
        str(run).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"hydra.run.dir: {run}: TensorFlow needs a path of UTF-8") from error
    check_no_links(run, WRITTEN_BELOW, IN_PLACE)


@contextlib.contextmanager
def training_log(run: Path):
    """What libraries say goes to `train.log`, and what we log to both.

    To be entered before there are threads that write to descriptor 2. Gives the log's descriptor.

    Raises:
        InputError: The file is a link or none that can be written.
    """
    with os.fdopen(open_to_append(run / LOG), "a", errors="backslashreplace") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(
            logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] - %(message)s")
        )
        level = logging.root.level
        logging.root.addHandler(handler)
        logging.root.setLevel(logging.INFO)
        try:
            with _libraries_into(file.fileno()):
                yield file.fileno()
        except Exception:
            logging.root.exception("the run ends")  # as ever, where no line says more
            raise
        finally:
            logging.root.removeHandler(handler)
            logging.root.setLevel(level)


@contextlib.contextmanager
def _libraries_into(target: int):
    """Leads descriptor 2 to another one, while `sys.stderr` stays with the screen."""
    try:
        screen = sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # a test's, or a notebook's
        screen = False
    with open(os.dup(2), "w", buffering=1, errors="backslashreplace") as ours:
        os.dup2(target, 2)
        try:
            with contextlib.redirect_stderr(Screen(ours) if screen else sys.stderr):
                yield
        finally:
            os.dup2(ours.fileno(), 2)


@contextlib.contextmanager
def _speaking_into(target: int):
    """Leads to a descriptor whatever is said by anybody, from C or from Python."""
    with (
        _libraries_into(target),
        open(target, "w", closefd=False, errors="backslashreplace") as said,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        yield


@contextlib.contextmanager
def _crashes_on_the_screen():
    """Segmentation faults and the like are shown, wherever descriptor 2 leads meanwhile."""
    if faulthandler.is_enabled():  # as somebody wished
        yield
        return
    with open(os.dup(2), "w") as screen:
        faulthandler.enable(screen)
        try:
            yield
        finally:
            faulthandler.disable()


class _Lines(logging.Handler):
    """What we log, as lines of the screen, above the bar if there is one."""

    def emit(self, record):
        line = f"{record.levelname.lower()}: {printable(record.getMessage())}"
        tqdm.write(line, file=sys.stderr)


@contextlib.contextmanager
def _our_lines():
    """Of what is logged or warned of, only our own reaches the screen."""
    ours, lines, nowhere = logging.getLogger("vocoder"), _Lines(), logging.NullHandler()
    if any(isinstance(handler, _Lines) for handler in ours.handlers):  # around this already
        yield
        return
    ours.addHandler(lines)
    logging.root.addHandler(nowhere)  # or Python prints what nobody else handles
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logging.root.removeHandler(nowhere)
        ours.removeHandler(lines)
