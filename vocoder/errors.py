"""Mistakes of the user: one line that names the key, the file or the flag, and no traceback."""

import contextlib
import logging
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


def _as_printable(record):
    record.msg, record.args = printable(record.getMessage()), None
    return True


# Whatever is in a name, a log can be written.
logging.getLogger("vocoder").addFilter(_as_printable)


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


class Screen:
    """A text stream on which control characters are escaped but for line ends, tabs and returns.

    So nothing that is printed, whatever names and messages are in it, commands the terminal. What
    the stream's encoding doesn't have is escaped too.
    """

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def write(self, text):
        shown = "".join(c if c.isprintable() or c in "\n\t\r" else _escaped(c) for c in text)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self.stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)


@contextlib.contextmanager
def exit_on_input_error():
    """Ends the process as a command has to, and prints by `Screen` only.

    With exit code 2 and the error's lines, if an `InputError` comes out, or the system denies a
    file or memory; with 130 and a line, if Ctrl-C does; without a word, if nobody reads the output
    any more (`| head`).
    """
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        stream if stream is None or isinstance(stream, Screen) else Screen(stream)
        for stream in streams
    )
    try:
        try:
            yield
        except (InputError, KeyboardInterrupt, MemoryError, OSError) as error:
            _end(error)
        finally:
            for stream in filter(None, (sys.stdout, sys.stderr)):
                stream.flush()
    except BrokenPipeError:
        drop(*streams)
        sys.exit(BROKEN_PIPE)
    except OSError as error:  # what was printed can't be written
        drop(streams[0])
        _end(error)
    finally:
        sys.stdout, sys.stderr = streams


def _end(error):
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, KeyboardInterrupt):
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    text = str(error)
    if isinstance(error, MemoryError):
        text = f"not enough memory ({text or 'a smaller batch, network or input needs less'})"
    if isinstance(error, OSError):
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = ": ".join([*names, error.strerror or text])
    for line in text.split("\n"):
        print(f"error: {printable(line)}", file=sys.stderr)
    sys.exit(2)


def drop(*streams) -> None:
    """Lets streams go nowhere: once nobody reads them, Python's own flush at the end fails too."""
    for stream in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
