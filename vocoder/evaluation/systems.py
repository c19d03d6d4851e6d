"""What is compared: models, and the two references that go with every comparison."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vocoder.audio.settings import AudioConfig
from vocoder.errors import InputError
from vocoder.evaluation.griffin_lim import GriffinLim
from vocoder.paths import file_name, user_path

RECORDINGS = "recordings"
GRIFFIN_LIM = "griffin-lim"


class System(NamedTuple):
    """Something that makes speech of features.

    Attributes:
        name: Unique; also the folder of its audio.
        audio: Settings of its mel.
        features: (samples,) -> features by name, (frames, ...), the mel among them.
        synthesize: Features -> (frames * hop_length,); None for the recording itself.
        window: Frames of an input -> frames that are computed at a time. The first time that there
            are so many may take longer, for compilation.
        is_model: Or a reference.
    """

    name: str
    audio: AudioConfig
    features: Callable[[np.ndarray], dict[str, np.ndarray]]
    synthesize: Callable[[dict[str, np.ndarray]], np.ndarray] | None
    window: Callable[[int], int] = lambda frames: 0
    is_model: bool = False


def named(models: list[str]) -> list[tuple[str, str]]:
    """(name, path) of models that are given as PATH or NAME=PATH.

    The name of a path is as much of its end as tells it from the others, with "-" for "/".

    Raises:
        InputError: Two have one name, or a name is no name of a folder.
    """
    pairs = []
    for model in models:
        name, equals, path = model.partition("=")
        # A run's folder may have a "=" in its name.
        pairs.append((name, path) if equals and not _exists(model) else (None, model))
    parts = {path: _parts(path) for name, path in pairs if name is None}
    longest = max(map(len, parts.values()), default=0)
    ends = {path: parts[path][-1] for path in parts}
    for count in range(longest, 0, -1):
        shorter = {path: "-".join(parts[path][-count:]) for path in parts}
        if len(set(shorter.values())) < len(parts):
            break
        ends = shorter
    found = [(name if name is not None else file_name(ends[path]), path) for name, path in pairs]
    for i, (name, path) in enumerate(found):
        given = pairs[i][0] is not None
        if not name or (given and ("\\" in name or file_name(name) != name)):
            raise InputError(
                f"MODEL: {name!r} can't be the name of {path}; give a short one without /"
            )
        if name.startswith((RECORDINGS, GRIFFIN_LIM)):
            raise InputError(
                f"MODEL: {name!r} is the name of a reference; NAME={path} gives another"
            )
        if name in [other for other, _ in found[:i]]:
            raise InputError(
                f"MODEL: two are called {name!r}; NAME={path} gives another name to one"
            )
    return found


def _exists(model):
    return os.path.lexists(model) or os.path.lexists(user_path(model))


def _parts(path):
    whole = Path(
        os.path.abspath(user_path(path))
    )  # `resolve` would give a link the name of its target
    if whole.name == "generator.keras":  # of a run
        whole = whole.parent
    parts = [part for part in whole.parts if part != whole.anchor] or [""]
    return [*parts[:-1], parts[-1].removesuffix(".keras")]


def with_references(models: list[System]) -> list[System]:
    """The recordings and Griffin-Lim of the same mels, then the models.

    Models with other audio settings have references of their own, which then are called after the
    first model that they are for.
    """
    first = {}
    for model in models:
        first.setdefault(model.audio, model)
    references = []
    for audio, model in first.items():
        end = f"-{model.name}" if len(first) > 1 else ""
        references += [
            System(RECORDINGS + end, audio, model.features, None),
            System(GRIFFIN_LIM + end, audio, model.features, GriffinLim(audio).synthesize),
        ]
    return references + models
