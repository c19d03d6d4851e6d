"""What Hydra composes: as plain data, and of a resumed run from what it was started with.

Nothing here imports Keras.
"""

import logging
from pathlib import Path

from vocoder import overrides as overriding
from vocoder.errors import InputError
from vocoder.kinds import Text, checked
from vocoder.overrides import NO_TARGETS, hydra_errors_as_input_errors
from vocoder.paths import asset, path_of, user_path
from vocoder.registry import known

log = logging.getLogger("vocoder")


def as_plain(node) -> dict:
    """A composed config as plain data, every interpolation resolved, once.

    Raises:
        InputError: A value is missing or can't be resolved, there is a `_target_`, or a text still
            looks like an interpolation, which could read anything if it were resolved once more.
    """
    from omegaconf import OmegaConf

    with hydra_errors_as_input_errors():
        for key in sorted(OmegaConf.missing_keys(node)):
            raise InputError(f"{key}: missing; give {key}=VALUE")
        plain = OmegaConf.to_container(node, resolve=True)
    for key, text in _texts(plain):
        if text == "_target_":
            raise InputError(f"{key}.{NO_TARGETS}")
        if "${" in text and key != "trainer.resume":
            raise InputError(
                f"{key}: {text!r} looks like an interpolation after all have been resolved; "
                "a text without ${ would do"
            )
    return plain


def _texts(node, key=""):
    """Every text in plain data, keys of mappings included, with the key where it stands."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, (dict, list)):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield key, str(name)
            yield from _texts(value, f"{key}.{name}" if key else str(name))


OVERRIDES = "overrides.yaml"


def register_resolvers() -> None:
    """Makes what the configs call known to OmegaConf.

    `${asset:NAME}` is a file that comes with the package; `${run_folder:RESUME,NEW}` the folder of
    the run that RESUME (a run or a checkpoint in it) belongs to, or NEW.
    """
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("asset", _asset, replace=True)
    OmegaConf.register_new_resolver("run_folder", _run_folder, replace=True)


def _asset(name: str) -> str:
    return str(asset(known(name, ("configs", "data/demo"), "asset")))


def _run_folder(resume: str | None, new: str) -> str:
    if not isinstance(resume, str) or resume == "auto":
        return new
    path = user_path(resume)
    if not path.is_dir():
        return new
    return str(path.parents[1] if path.parent.name == "checkpoints" else path)


def with_resumed_overrides(node, overrides: list[str]):
    """Composes the config of a resumed run again: what it was started with, then `overrides`.

    Args:
        node: The composed config.
        overrides: The overrides of this command.

    Returns:
        The config, and the overrides to keep in the run's folder for a later session.

    Raises:
        InputError: `trainer.resume` is no run folder, its overrides are not plain ones, or an
            override does not apply.
    """
    from hydra import compose
    from omegaconf import OmegaConf

    with hydra_errors_as_input_errors():
        resume = checked(OmegaConf.select(node, "trainer.resume"), Text | None, "trainer.resume")
    if resume not in (None, "auto"):
        if not path_of(resume, "trainer.resume").is_dir():
            raise InputError(f"trainer.resume: {resume} is not a folder")
        started_with = Path(_run_folder(resume, "")) / OVERRIDES
        if not started_with.exists():
            raise InputError(f"trainer.resume: {resume} is no run folder: it has no {OVERRIDES}")
        earlier = overriding.read(started_with)
        given = {overriding.parsed(text).key_or_group for text in overrides}
        overrides = [o for o in earlier if o not in overrides] + overrides
        with hydra_errors_as_input_errors():
            node = compose("train", overrides)
        if not given & {"data", "data.cache"}:
            _check_cache(node)
    return node, _to_keep(overrides, as_plain(node))


def _check_cache(node) -> None:
    """Leaves the cache of a resumed run's config out, unless there are indexes in it already.

    The config may be a stranger's, and is not to say where in this machine anything is written.
    """
    from omegaconf import OmegaConf

    cache = OmegaConf.select(node, "data.cache")
    if isinstance(cache, str) and not any(path_of(cache, "data.cache").glob("index-*.npz")):
        log.warning(
            "data.cache: the run's own, %s, holds no index; give data.cache=FOLDER to have one "
            "elsewhere than in your cache folder",
            cache,
        )
        node.data.cache = None


def _to_keep(overrides: list[str], plain: dict) -> list[str]:
    """The overrides that a later session reads, as it accepts them.

    `trainer.resume` is left out. What reads the environment is written as what it read.
    """
    kept = []
    for text in overrides:
        override = overriding.parsed(text)
        key = override.key_or_group
        if key == "trainer.resume":
            continue
        try:
            overriding.check_plain(text)
        except InputError:
            value = plain
            for part in key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if value is not None:
                plus = "+" * (len(text) - len(text.lstrip("+")))
                text = plus + overriding.written(key, value)
        kept.append(text)
    return kept
