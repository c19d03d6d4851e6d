"""Overrides, `KEY=VALUE`: what Hydra says of them, how one is written, what a run's folder has.

Nothing here imports Keras.
"""

import contextlib
import os
import re
import shlex
from pathlib import Path

from vocoder.errors import InputError
from vocoder.paths import check_no_links, open_regular, user_path

NO_TARGETS = (
    "_target_: not used here, because it would let a config run any code; "
    "name an entry of vocoder/registry.py instead"
)
# Keys of before, and where they are now.
MOVED = {
    **{f"trainer.{key}": f"optimizer.{key}" for key in (
        "learning_rate", "beta_1", "beta_2", "weight_decay", "global_clipnorm",
        "gradient_accumulation_steps", "ema_momentum",
    )},
    **{f"trainer.{key}": f"schedule.{key}" for key in (
        "decay_rate", "decay_steps", "warmup_steps", "final_rate",
    )},
    "trainer.schedule": "schedule",
    "trainer.discriminator_learning_rate": "discriminator_optimizer.learning_rate",
    "generator.mel_prior": "generator.prior",
    "generator.griffin_lim_iterations": "generator.head.iterations",
    "generator.griffin_lim_training_iterations": "generator.head.training_iterations",
    "generator.use_tanh_at_final": "generator.head.activation",
    **{f"generator.istft_{key}": f"generator.head.{key}" for key in (
        "n_fft", "hop_length", "padding", "phase",
    )},
}  # fmt: skip
LIMIT = 2**20  # bytes of a run's overrides
_KEY = re.compile(r"[A-Za-z_]\w*(\.[\w-]+)*")
# `${audio.n_mels}` and `${asset:data/demo}`; any other resolver could read the environment.
_INTERPOLATION = re.compile(r"\$\{(asset:[\w/-]+|[A-Za-z_][\w.]*)\}")


def written(key: str, value) -> str:
    """`key=value` as Hydra reads it, whatever characters are in it.

    Args:
        key: Of the config.
        value: A text, a path, a number, a bool, None, or lists and mappings of these.
    """
    return f"{key}={_written(value)}"


def _written(value) -> str:
    from hydra.core.override_parser.types import Quote, QuotedString

    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_written(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_written, value)) + "]"
    # What OmegaConf would take for an interpolation is escaped, with the backslashes before it.
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value))
    with contextlib.suppress(Exception):  # of Hydra's, and of the grammar's runtime
        if _parse(f"key={text}").value() == text:
            return text
    return QuotedString(text, Quote.double).with_quotes()


def command(**values) -> str:
    """The command line of a training, for a shell to read.

    Args:
        values: Values by key, with `__` for its dots: `trainer__resume="a b"`.
    """
    overrides = [written(key.replace("__", "."), value) for key, value in values.items()]
    return " ".join(["python -m vocoder.train", *map(for_shell, overrides)])


def prepared(arguments: list[str]) -> list[str]:
    """The arguments of a training as Hydra is to have them.

    `~` is expanded in the folders that are Hydra's own.

    Raises:
        InputError: There is no such home folder, there are links in a folder of sweeps, or Hydra is
            to unpickle a file.
    """
    found = []
    for text in arguments:
        if text.startswith("--experimental-rerun"):
            raise InputError("--experimental-rerun: not used here; trainer.resume=RUN goes on")
        try:
            override = _parse(text)
            key, value = override.key_or_group, override.value()
        except Exception:  # what is wrong, Hydra will say
            key = None
        if key in ("hydra.run.dir", "hydra.sweep.dir") and isinstance(value, str):
            if value.startswith("~"):
                value = str(user_path(value))
                text = written(key, value)
            if key == "hydra.sweep.dir" and os.path.isdir(value):
                check_no_links(value)
        found.append(text)
    return found


def for_shell(argument: str) -> str:
    """One argument of a command, quoted if need be, in printable characters."""
    if argument.isprintable():
        return shlex.quote(argument)
    # A quote of bash and zsh, for what would end the line or be a command to the terminal.
    return "$'" + "".join(map(_ansi_c, argument)) + "'"


def _ansi_c(character):
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return "".join(f"\\x{b:02x}" for b in character.encode("utf-8", "surrogateescape"))


def parsed(text: str):
    """An override as `hydra.core.override_parser.types.Override`.

    Raises:
        InputError: It is none.
    """
    with hydra_errors_as_input_errors():
        return _parse(text)


def _parse(text):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (override,) = OverridesParser.create().parse_overrides([text])
    return override


def values_of(overrides: list[str]) -> dict:
    """The values that overrides give, by key: of groups their options, of lists and mappings texts.

    Deletions are left out.
    """
    values = {}
    for override in map(parsed, overrides):
        value = None if override.is_delete() else override.value()
        if isinstance(value, (bool, int, float, str)):
            values[override.key_or_group] = value
        elif value is not None:
            values[override.key_or_group] = _written(value)
    return values


def read(path: Path) -> list[str]:
    """The overrides in a run's folder, which may come from a stranger.

    They are a YAML list of texts, each `key=value`, `+key=value` or `~key`. Not allowed are keys
    of Hydra itself, sweeps, options outside `configs/`, `_target_`, and interpolations but of
    other keys and of `${asset:...}`.

    Raises:
        InputError: One line that names the file.
    """
    import yaml

    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise InputError(f"{path}: larger than {LIMIT:,} bytes")
        overrides = yaml.safe_load(content)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: can't be read as plain YAML ({reason})") from error
    if not isinstance(overrides, list) or not all(isinstance(o, str) for o in overrides):
        raise InputError(f"{path}: must be a list of overrides, each a text such as seed=1")
    for text in overrides:
        try:
            check_plain(text)
        except InputError as error:
            raise InputError(f"{path}: {text!r}: {error}") from error
    return overrides


def check_plain(text: str) -> None:
    """Raises `InputError` if an override does more than to set a key to plain data."""
    if "_target_" in text:
        raise InputError(NO_TARGETS)
    try:
        override = parsed(text)
    except InputError as error:
        raise InputError("no override") from error
    key = override.key_or_group
    if override.package is not None or not _KEY.fullmatch(key):
        raise InputError("not of the plain form key=value")
    if key.split(".")[0] == "hydra":
        raise InputError("Hydra's own settings are not taken from a run's folder")
    if override.is_sweep_override():
        raise InputError("a sweep")
    # The parsed value counts: the grammar has escapes that hide from a look at the text.
    texts = [*_texts(override.value())]
    if any("_target_" in part for part in texts):
        raise InputError(NO_TARGETS)
    if any("${" in _INTERPOLATION.sub("", part) for part in texts):
        raise InputError("only ${KEY} and ${asset:NAME} are allowed here")
    # A key without a dot may be a group, whose values name files of configs/.
    if "." not in key and not all(re.fullmatch(r"[\w.-]*", p) and ".." not in p for p in texts):
        raise InputError("no name of an option")


def _texts(value):
    """Every text in a parsed value, keys of mappings included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (*_texts(key), *_texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
    elif value is not None:
        yield str(value)


@contextlib.contextmanager
def hydra_errors_as_input_errors():
    """Turns what Hydra, its grammar and OmegaConf say about a config into an `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever it is: of `generator=null`, a ValueError
        raise InputError(_explained(error)) from error


def _explained(error: Exception) -> str:
    """One line that names the override or the key, and how to quote if it can't be read."""
    from hydra.errors import OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return _how_to_quote(error.override, "Hydra can't read this")
    if several := re.match(r"(?:Ambiguous value for argument|Sweep parameters) '(.*)'", str(error)):
        return _how_to_quote(several[1], "several values, for a sweep with -m")
    if isinstance(error, OSError) and error.filename is not None:
        return f"hydra.run.dir: {error.filename}: {error.strerror}; give hydra.run.dir=FOLDER"
    if (key := re.match(r"Could not override '([\w.]+)'", str(error))) and key[1] in MOVED:
        return f"{key[1]}: is {MOVED[key[1]]} now"
    said = [str(error)]
    if isinstance(error.__cause__, OmegaConfBaseException):
        said.append(str(error.__cause__))
    # Hydra adds where it searched and OmegaConf the types: no help in a single line.
    lines = " ".join(said).split("Config search path")[0].splitlines()
    shown = " ".join(s for line in lines if (s := line.strip()) and not s.startswith(_TYPES))
    where = _at_work_on(error) or getattr(error, "full_key", None)
    return f"{where}: {shown}" if where and where not in shown else shown


_TYPES = ("object_type=", "reference_type=", "full_key:")


def _how_to_quote(override, reason):
    key, equals, value = override.partition("=")
    if not equals or not _KEY.fullmatch(key.lstrip("+~")):
        return f"{override}: {reason}; an override is KEY=VALUE"
    if value.startswith(("[", "{")):
        return f'{override}: {reason}; texts in it are quoted, as in ["a=b","c"]'
    quoted = for_shell(written(key, value.strip("\"'")))
    return f"{override}: {reason}; as one text it is quoted twice: {quoted}"


def _at_work_on(error):
    """The override that Hydra was at when it failed without naming one."""
    from hydra.core.override_parser.types import Override

    found, frame = None, error.__traceback__
    while frame is not None:
        at = frame.tb_frame.f_locals.get("override")
        found = at.input_line if isinstance(at, Override) else found
        frame = frame.tb_next
    return found
