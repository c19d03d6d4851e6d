import ctypes
import os
import platform
import subprocess
import sys
import threading

import pytest

from vocoder.audio.quiet import silenced

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only with glibc")


def say(text):
    """As a C library does it."""
    library = ctypes.CDLL(None)
    library.fputs(text.encode(), ctypes.c_void_p.in_dll(library, "stderr"))


def test_c_is_silenced_and_python_is_not(capfd):
    say("before\n")
    with silenced():
        say("within\n")
        os.write(2, b"python\n")
        with pytest.raises(ZeroDivisionError), silenced():
            say("deeper\n")
            raise ZeroDivisionError
        say("still within\n")
    say("after\n")
    assert capfd.readouterr().err == "before\npython\nafter\n"


def test_threads_silence_independently(capfd):
    inside, leave = threading.Event(), threading.Event()

    def first():
        with silenced():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait(10)
    with silenced():
        say("second\n")
    say("first is still there\n")
    leave.set()
    thread.join()
    say("none\n")
    assert capfd.readouterr().err == "none\n"


def test_standard_error_may_be_closed():
    program = "from vocoder.audio.quiet import silenced\nwith silenced(): print('done')"
    command = f'exec "{sys.executable}" -c "{program}" 2>&-'
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0 and done.stdout == "done\n"
