"""Mistakes of the user: one line that names the key, the file or the flag, and no traceback."""

import contextlib
import sys


class InputError(ValueError):
    """Something that was asked for can't be done.

    Its message is one line that begins with the key, file or flag at fault and says what would
    be right; several lines if there are several faults.
    """


@contextlib.contextmanager
def exit_on_input_error():
    """Ends the process with exit code 2 and the error's line, if an `InputError` comes out."""
    try:
        yield
    except InputError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(2)
