"""What a command does first: who speaks on the screen, where caches go, what a run's folder has."""

import os
import subprocess
import sys

import pytest

from vocoder.errors import InputError, Screen
from vocoder.startup import check_run_folder, training_log


def python(program, *, env=None, stdin=None, shell=None):
    """Runs a program of Python in a process of its own, or a line of shell with it as `$P`."""
    command = [sys.executable, "-c", program]
    if shell is not None:
        command = ["bash", "-c", shell]
        env = (env or {}) | {"P": program, "PYTHON": sys.executable}
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | (env or {}), timeout=120
    )


SPEAKING = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from vocoder.startup import command, training_log

with command():
    with training_log(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["RUN"])):
        os.write(2, b"from C\\n")
        subprocess.run(["sh", "-c", "echo from a child >&2"])
        warnings.warn("a warning")
        logging.getLogger("absl").error("an error of absl")
        logging.getLogger("tensorflow").info("a note of TensorFlow")
        logging.getLogger("vocoder").warning("left out: \\x1b[31mred.wav\\nand more")
        print("our own", file=sys.stderr)
        print("our \\x1b]0;title\\x07 lines\\n\\ttoo, caf\\udce9")
    os.write(2, b"from C again\\n")
"""


def test_what_libraries_say_goes_to_the_log(tmp_path):
    (tmp_path / "train.log").write_text("of an earlier session\n")
    done = python(SPEAKING, env={"RUN": str(tmp_path)})
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: left out: \\x1b[31mred.wav\\nand more", "our own", "from C again"
    ]  # fmt: skip
    assert done.stdout == "our \\x1b]0;title\\x07 lines\n\ttoo, caf\\xe9\n"
    log = (tmp_path / "train.log").read_text()
    for said in (
        "of an earlier session", "from C\n", "from a child", "a warning", "an error of absl",
        "a note of TensorFlow", "left out: ",
    ):  # fmt: skip
        assert said in log
    assert "our" not in log


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-"])
def test_closed_streams_are_no_end(closed, tmp_path):
    done = python(
        SPEAKING, env={"RUN": str(tmp_path)}, shell=f'"$PYTHON" -c "$P" {closed}; echo $?'
    )
    assert done.stdout.splitlines()[-1] == "0"
    log = (tmp_path / "train.log").read_text()
    assert "from C\n" in log and "Traceback" not in done.stderr + log


@pytest.mark.parametrize("crash", ["os.abort()", "os.kill(os.getpid(), 11)"])
def test_a_crash_reaches_the_user(crash, tmp_path):
    program = SPEAKING.replace("print(", f"{crash}; print(")
    done = python(program, env={"RUN": str(tmp_path)})
    assert done.returncode < 0 and "Fatal Python error" in done.stderr


def test_a_bug_is_a_traceback_here_and_in_the_log(tmp_path):
    done = python(SPEAKING.replace("print(", "1 / 0; print("), env={"RUN": str(tmp_path)})
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert "ZeroDivisionError" in (tmp_path / "train.log").read_text()


ENDS = "from vocoder.startup import command\nwith command():\n    "


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        (
            "raise __import__('vocoder.errors').errors.InputError('a: b\\n\\x1b')",
            2,
            "error: a: b\n",
        ),
        ("open('/nonexistent/x')", 2, "error: /nonexistent/x: No such file or directory\n"),
        ("open('/')", 2, "error: /: Is a directory\n"),
        (
            "__import__('os').rename('/nonexistent/a', '/b')",
            2,
            "error: /nonexistent/a: /b: No such",
        ),
        ("raise OSError(28, 'No space left on device')", 2, "error: No space left on device\n"),
        ("raise MemoryError", 2, "error: not enough memory (a smaller batch"),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
    ],
)
def test_how_a_command_ends(body, code, line):
    done = python(ENDS + body)
    assert done.returncode == code and line in done.stderr, done.stderr
    assert ("Traceback" in done.stderr) == (code == 1)


@pytest.mark.parametrize("stop", ["", "raise SystemExit(0)"])
@pytest.mark.parametrize("head", ["| head -1", "| true", "2>&1 | true"])
def test_nobody_reads_on(head, stop):
    program = f"{ENDS}for i in range(100_000): print(i)\n    {stop}"
    done = python(program, shell=f'("$PYTHON" -c "$P"; echo $? >&2) {head}')
    assert done.stderr in ("141\n", "")


def test_a_full_disk_on_the_way_out():
    done = python(f"{ENDS}print(1)", shell='"$PYTHON" -c "$P" > /dev/full; echo $?')
    assert done.stdout == "2\n" and done.stderr == "error: No space left on device\n"


def test_characters_that_the_terminal_has_not(capsys):
    import io

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    print("ä\u2028", end="", file=Screen(stream))
    assert stream.buffer.getvalue() == b"\\xe4\\u2028"


def test_a_working_folder_that_is_gone(tmp_path):
    shell = f'mkdir {tmp_path}/x && cd {tmp_path}/x && rmdir ../x && "$PYTHON" -c "$P"; echo $?'
    done = python(f"{ENDS}print(1)", shell=shell)
    assert done.stdout == "2\n"
    assert done.stderr == "error: the working folder is gone; cd to one that there is\n"


CACHES = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "KERAS_HOME")
WITHOUT_A_HOME = f"""
import os, sys
for name in ("XDG_CONFIG_HOME", *{CACHES}):
    os.environ.pop(name, None)
from vocoder.startup import command

with command():
    print(*(os.environ.get(name) for name in {CACHES}))
    if "LIBROSA" in os.environ:
        import librosa

        librosa.to_mono
        librosa.util.localmax  # compiled and kept, as soon as it is loaded
        print(len(os.listdir(os.environ["NUMBA_CACHE_DIR"])))
"""


@pytest.mark.parametrize("home", ["/nonexistent", "relative", "/proc/1"])
def test_a_user_without_a_home(home):
    done = python(WITHOUT_A_HOME, env={"HOME": home})
    assert done.returncode == 0, done.stderr
    folders = set(done.stdout.split())
    assert len(folders) == 1 and "None" not in folders
    assert not os.path.exists(*folders)  # it is gone with the process
    assert not os.path.exists("/nonexistent")


@pytest.mark.slow
def test_a_user_with_a_home(tmp_path):
    done = python(WITHOUT_A_HOME, env={"HOME": str(tmp_path)})
    assert done.stdout.split() == ["None"] * 4
    (tmp_path / ".cache").write_text("a file")
    done = python(WITHOUT_A_HOME, env={"HOME": str(tmp_path), "LIBROSA": "1"})
    first, second, third, fourth, count = done.stdout.split()
    assert first == second != "None" and (third, fourth) == ("None", "None") and int(count) > 0


@pytest.mark.parametrize("how", ["environment", "keras.json", "unknown"])
def test_another_backend_is_a_line(how, tmp_path):
    env = {"KERAS_HOME": str(tmp_path)}
    if how == "keras.json":
        (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    else:
        env["KERAS_BACKEND"] = "jax" if how == "environment" else "foo"
    program = f"from vocoder.startup import import_keras\n{ENDS}import_keras('training')"
    done = python(program, env=env)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: KERAS_BACKEND: ") and "KERAS_BACKEND=tensorflow would do" in line


def test_importing_keras_is_silent():
    program = (
        f"from vocoder.startup import import_keras\n{ENDS}import_keras()\n    import keras.ops"
    )
    done = python(program, env={"TF_CPP_MIN_LOG_LEVEL": "0"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def run(tmp_path):
    """The folder of a run, and beside it a file that is not to change."""
    for name in ("checkpoints/step-00000002/state.index", "samples/step-0/a.wav", "config.yaml"):
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("the run's")
    (tmp_path / "mine").write_text("mine")
    return tmp_path / "run"


WRITTEN = [
    "config.yaml", ".config.yaml.partial", "overrides.yaml", "losses.csv", ".losses.csv.partial",
    "train.log", ".lock", "quarantine.csv", "quarantine-worker1.csv", "generator.keras",
    ".generator.keras", ".generator.keras.partial", "samples/step-0/a.wav",
    "samples/step-0/.a.wav.partial", "tensorboard/train/x", "abandoned/x/config.yaml",
    "checkpoints/step-00000002/state.index", "checkpoints/.step-00000003.partial/generator.keras",
]  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_links_in_a_run_that_goes_on_are_refused(name, run):
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    for target in (run.parent / "mine", run.parent / "missing", "config.yaml"):
        path.symlink_to(target)
        with pytest.raises(InputError, match=f"^{path}: is a link; "):
            check_run_folder(run)
        path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match=f"^{path}: is no file but a pipe"):
        check_run_folder(run)


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard", "samples/step-0"])
def test_linked_folders_are_refused(name, run):
    path = run / name
    if path.exists():
        path.rename(run.parent / "elsewhere")
    else:
        (run.parent / "elsewhere").mkdir()
    path.symlink_to(run.parent / "elsewhere")
    with pytest.raises(InputError, match=f"^{path}: is a link; "):
        check_run_folder(run)


@pytest.mark.parametrize("name", [".lock", "quarantine.csv", "quarantine-worker1.csv"])
def test_shared_files_that_are_written_in_place_are_refused(name, run):
    os.link(run.parent / "mine", run / name)
    with pytest.raises(InputError, match=f"^{run / name}: has another name too; "):
        check_run_folder(run)


def test_links_that_nothing_is_written_through_pass(run):
    (run.parent / "corpus").mkdir()
    (run / "data").symlink_to(run.parent / "corpus")
    (run / "notes").mkdir()
    (run / "notes/link").symlink_to(run.parent / "mine")
    os.link(run / "config.yaml", run.parent / "snapshot.yaml")
    (run.parent / "latest").symlink_to(run)
    check_run_folder(run)
    check_run_folder(run.parent / "latest")


def test_the_log_is_opened_through_no_link(run):
    for link in (os.symlink, os.link):
        link(run.parent / "mine", run / "train.log")
        with pytest.raises(InputError, match=r"train.log: can't be written"), training_log(run):
            pass
        (run / "train.log").unlink()
    os.mkfifo(run / "train.log")
    with pytest.raises(InputError, match=r"train.log: can't be written"), training_log(run):
        pass
    assert (run.parent / "mine").read_text() == "mine"
