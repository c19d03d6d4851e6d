"""What ends a run from outside: SIGTERM, Ctrl-C, and an output that nobody reads any more."""

import contextlib
import os
import signal
import sys
import threading

from vocoder.errors import BROKEN_PIPE, drop

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal has ended what can be ended at once.

    Attributes:
        code: The process' exit code, as the shell says it of a program that the signal ends.
    """

    def __init__(self, number: int):
        super().__init__()
        self.code = 128 + number


class Interruption:
    """Signals to a job, which has them as long as this context lasts.

    The first raises `Interrupted`, or, while training goes on, is noted only, so that the step can
    be finished and saved. The second ends the process at once.

    Attributes:
        code: Exit code for what has come, or None.
        deferred: Whether the first is noted only.
    """

    def __init__(self):
        self.code = None
        self.deferred = False
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before = {}

    def _handle(self, number, frame):
        if self.code is not None:
            os._exit(128 + number)
        self.code = 128 + number
        if not self.deferred:
            raise Interrupted(number)
        # Past `sys.stdout`, in the midst of whose writing this may be.
        with contextlib.suppress(OSError, ValueError):
            line = b"\nstopping after this step; once more stops at once\n"
            os.write(sys.stdout.fileno(), line)

    def check(self) -> None:
        """Raises `Interrupted` if something has come."""
        if self.code is not None:
            raise Interrupted(self.code - 128)

    @contextlib.contextmanager
    def output(self):
        """While something is printed: if nobody reads it any more, that is noted as a signal is."""
        try:
            yield
            sys.stdout.flush()
        except BrokenPipeError:
            drop(sys.stdout)
            self.code = self.code or BROKEN_PIPE
