"""Mistakes of the user: one line that names the key, the file or the flag, and no traceback."""

import contextlib
import os
import sys

# As the shell says it of a program that SIGINT and SIGPIPE end.
INTERRUPTED, BROKEN_PIPE = 130, 141


class InputError(ValueError):
    """Something that was asked for can't be done.

    Its message is one line that begins with the key, file or flag at fault and says what would
    be right; several lines if there are several faults.
    """


def printable(text) -> str:
    """A text for a terminal: what is no printable character, and bytes of no text, are escaped.

    So a name inside of a file can't send escape sequences, and is a line whatever it holds.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character):
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as `os.fsdecode` gives it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape", "surrogatepass").decode()


@contextlib.contextmanager
def blamed_on(what):
    """Turns whatever else comes out into an `InputError` of one file, so that it costs only that.

    For the work on one of many inputs, where libraries raise many kinds.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(f"{what}: can't be used ({reason})") from error


@contextlib.contextmanager
def exit_on_input_error():
    """Ends the process as a command has to.

    With exit code 2 and the error's lines, if an `InputError` comes out; with 130 and a line, if
    Ctrl-C does; without a word, if nobody reads the output any more (`| head`).
    """
    try:
        yield
        sys.stdout.flush()
    except InputError as error:
        for line in str(error).split("\n"):
            print(f"error: {printable(line)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        drop(sys.stdout, sys.stderr)
        sys.exit(BROKEN_PIPE)


def drop(*streams) -> None:
    """Lets streams go nowhere: once nobody reads them, Python's own flush at the end fails too."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
