"""Keeps the notes of C libraries off the screen."""

import contextlib
import ctypes
import os
import platform
import threading


class _StandardError:
    """C's `stderr`, a variable that every C library looks up when it prints.

    Python doesn't use it: what Python writes to standard error reaches the screen all the time,
    from any thread. Redirecting the file descriptor instead would take that along.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._users = 0
        self._variable = None
        if platform.libc_ver()[0] == "glibc":  # others may keep it where nobody can write
            library = ctypes.CDLL(None)
            library.fopen.restype = ctypes.c_void_p
            self._variable = ctypes.c_void_p.in_dll(library, "stderr")
            self._screen = self._variable.value
            self._nowhere = library.fopen(os.devnull.encode(), b"w") or self._screen

    @contextlib.contextmanager
    def silenced(self):
        """Nothing that is printed from C meanwhile is seen; any number of threads may be here."""
        if self._variable is None:
            yield
            return
        with self._lock:
            self._users += 1
            self._variable.value = self._nowhere
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._variable.value = self._screen


silenced = _StandardError().silenced
