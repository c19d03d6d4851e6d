"""Networks from strangers: a `.keras` file is checked whole before any of it is deserialised.

Keras' safe mode stands behind these checks. What is promised is in SECURITY.md.
"""

import inspect
import io
import json
import math
import os
import stat
import tempfile
import warnings
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras.src.backend.common import global_state

from vocoder import registry
from vocoder.errors import InputError
from vocoder.paths import open_regular

# Bytes of a file and of all its members unpacked. BigVGAN, the largest here, has 450 MB.
SIZE_LIMIT = 4 * 2**30
CONFIG_LIMIT = 2**20  # bytes of config.json; ours have a thousand
# Keras packs nothing, and weights that somebody packed hardly shrink.
RATIO_LIMIT = 100
MEMBERS = {"config.json", "metadata.json", "model.weights.h5"}

KERAS_MODULES = {
    "keras", "keras.models", "keras.layers", "keras.activations", "keras.initializers",
    "keras.regularizers", "keras.constraints", "keras.dtype_policies",
}  # fmt: skip
# Built-in, but they run code that comes with the model, or read files that it names.
REFUSED = {
    "Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "StringLookup",
    "IntegerLookup", "IndexLookup", "TextVectorization", "__lambda__", "__typespec__",
}  # fmt: skip
PLAIN = {"__bytes__", "__ellipsis__", "__keras_tensor__", "__numpy__", "__slice__", "__tensor__"}


def load_generator(path):
    """Loads a generator from a `.keras` file, for inference.

    Raises:
        InputError: It is no model, holds what is not allowed (named in the message), its model
            is no generator of this package, or its weights are not all there or not finite.
    """
    what = "generator of vocoder with its audio settings"
    classes = _classes(registry.GENERATORS)
    return _load(path, classes, what, build_generator)


def load_discriminators(path):
    """Loads `vocoder.discriminators.CombinedDiscriminator` from a `.keras` file, to train on with.

    Raises:
        InputError: As for `load_generator`.
    """
    from vocoder.discriminators import CombinedDiscriminator

    _classes(registry.DISCRIMINATORS)
    return _load(
        path, {CombinedDiscriminator}, "discriminators of vocoder", lambda network: network.build()
    )


def build_generator(generator) -> None:
    """Makes the variables of a generator."""
    generator.build(generator.input_shapes)


def _classes(table):
    """The classes of a table of the registry; finding them registers them and their layers."""
    return {registry.find(table, name, "name") for name in table}


def _load(path, classes, what, build):
    """Loads a model of one of the classes, whose variables `build` makes.

    Keras gets a private file of the very bytes that were checked: whoever changes `path` meanwhile,
    or lets two readers see two things in one zip file, changes nothing.
    """
    path = Path(path)
    config, weights = _read(path)
    _check_objects(path, config)
    if _registered(config) not in classes:
        raise InputError(f"{path}: no {what}")
    stored = _check_weights(path, weights)
    arguments = inspect.signature(_registered(config)).parameters
    given = config.get("config")
    if unknown := sorted(set(given) - set(arguments) if isinstance(given, dict) else ()):
        line = f"unknown {', '.join(map(repr, unknown))}; another version of vocoder wrote it"
        raise _no_model(path, line)
    with tempfile.TemporaryDirectory() as folder:
        private = Path(folder) / "model.weights.h5"
        private.write_bytes(weights)
        try:
            # Keras' own loading goes on when a network can't be built, and loads nothing into it.
            model = built(
                lambda: keras.saving.deserialize_keras_object(config, safe_mode=True), build, stored
            )
            floats = [v for v in model.variables if "float" in v.dtype]
            for variable in floats:
                variable.assign(np.full(variable.shape, np.nan, np.float32))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what it skips, which is looked at below
                model.load_weights(private)
        except Exception as error:  # whatever arguments or weights that do not fit make Keras raise
            raise _no_model(path, error) from error
    for variable in floats:
        if not np.isfinite(np.asarray(keras.ops.convert_to_numpy(variable), np.float32)).all():
            raise InputError(f"{path}: {variable.path} is missing or holds what is not finite")
    return model


def built(make, build, most: int):
    """A network with new weights.

    Args:
        make: Makes the network, without variables.
        build: Makes its variables.
        most: Numbers that there are for its weights.

    Raises:
        ValueError: Its weights would be more numbers. None of them has been made by then.
    """
    with keras.StatelessScope() as scope:  # in it, a variable has a shape and no values
        try:
            model = make()
            build(model)
            count = sum(math.prod(variable.shape) for variable in model.variables)
            if count > most:
                raise ValueError(f"its config is of {count:,} numbers, its weights are {most:,}")
        except BaseException:
            # The end of the scope, of this one or of any later, would give values to all.
            scope.initialize_variables = False
            global_state.set_global_attribute("uninitialized_variables", [])
            raise
    return model


def _no_model(path, reason):
    said = " ".join(str(reason).split()) or type(reason).__name__
    return InputError(f"{path}: not a model that can be loaded ({said[:300]})")


def _read(path) -> tuple[dict, bytes]:
    """The config and the weights' file of an archive, each read once and within the limits."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            if file.read(8) == b"\x89HDF\r\n\x1a\n":
                raise InputError(
                    f"{path}: an HDF5 (.h5) file; whole models in it can hold code and are refused:"
                    " give a .keras file"
                )
            if file.seek(0, io.SEEK_END) > SIZE_LIMIT:
                raise InputError(f"{path}: larger than the limit of {SIZE_LIMIT:,} bytes")
            with zipfile.ZipFile(file) as archive:
                members = archive.infolist()
                _check_members(path, members)
                read = {m.filename: _member(path, archive, m) for m in members}
        for name in ("config.json", "model.weights.h5"):
            if name not in read:
                raise _no_model(path, f"it has no {name}")
        config = _without_builds(json.loads(read["config.json"]))
    except InputError:
        raise
    except Exception as error:  # a broken archive makes zipfile, zlib and json raise many kinds
        raise _no_model(path, error) from error
    if not isinstance(config, dict):
        raise _no_model(path, "its config.json is no mapping")
    return config, read["model.weights.h5"]


def _without_builds(node):
    """A config without what Keras would build and compile its models by; they are built here."""
    if isinstance(node, dict):
        unused = ("build_config", "compile_config")
        return {key: _without_builds(node[key]) for key in node if key not in unused}
    return [_without_builds(value) for value in node] if isinstance(node, list) else node


def _check_members(path, members):
    names = set()
    for member in members:
        name = member.filename
        if name.startswith(("/", "\\")) or ".." in name or "\\" in name or ":" in name:
            raise InputError(f"{path}: member {name!r} leads out of the archive; refused")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise InputError(f"{path}: member {name!r} is a symbolic link; refused")
        if name not in MEMBERS:
            known = ", ".join(sorted(MEMBERS))
            raise InputError(f"{path}: member {name!r} is no part of a network (known: {known})")
        if name in names:
            raise InputError(f"{path}: holds {name!r} twice; refused")
        names.add(name)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{path}: member {name!r} is packed in a way Keras does not; refused")
        if member.file_size > RATIO_LIMIT * max(member.compress_size, 1024):
            raise InputError(
                f"{path}: member {name!r} unpacks to more than {RATIO_LIMIT} times its size; "
                "refused as a zip bomb"
            )
    if sum(member.file_size for member in members) > SIZE_LIMIT:
        raise InputError(f"{path}: unpacks to more than the limit of {SIZE_LIMIT:,} bytes")


def _member(path, archive, member) -> bytes:
    """Reads a member, but no more than the limit, whatever size it declares."""
    limit = SIZE_LIMIT if member.filename.endswith(".h5") else CONFIG_LIMIT
    with archive.open(member) as file:
        content = file.read(min(limit, member.file_size) + 1)
    if len(content) > limit:
        raise InputError(f"{path}: {member.filename} is larger than the limit of {limit:,} bytes")
    if len(content) != member.file_size:
        raise _no_model(path, f"{member.filename} has not the size it declares")
    return content


def _registered(node):
    """The class of this package that a node of a config names, or None."""
    name = node.get("registered_name")
    if not isinstance(name, str) or not name.startswith("vocoder>"):
        return None
    found = keras.saving.get_registered_object(name)
    ours = isinstance(found, type) and found.__module__.split(".")[0] == "vocoder"
    fits = ours and (node.get("module"), node.get("class_name")) == (
        found.__module__,
        found.__name__,
    )
    return found if fits else None


def _check_objects(path, config):
    """Refuses whatever Keras would make that is on no allow-list; imports nothing it names."""
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                _check_object(path, node)
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _check_object(path, node):
    name, module = node["class_name"], node.get("module")
    if not isinstance(name, str) or name in PLAIN:
        if isinstance(name, str):
            return
        raise InputError(f"{path}: holds a class_name that is no text; refused")
    if name in REFUSED:
        raise InputError(
            f"{path}: holds a {name} layer, which can run code or read files; only layers of "
            "vocoder and plain ones of Keras are loaded"
        )
    if _registered(node):
        return
    # Keras looks up the registered name before the module: it must not name something else.
    builtin = node.get("registered_name") in (None, name) and module in KERAS_MODULES
    if builtin:
        home = keras
        for part in module.split(".")[1:]:
            home = getattr(home, part)
        found = vars(home).get(name)
        if isinstance(found, type) and found.__module__.split(".")[0] == "keras":
            return
    if name == "function":
        name = node.get("registered_name") or node.get("config")
    full = " ".join(f"{module}.{name}".split())[:200]
    raise InputError(
        f"{path}: holds {full}, which is neither a layer of vocoder nor a built-in one of Keras; "
        "it could run code, so it is refused"
    )


def _check_weights(path, content: bytes) -> int:
    """Refuses HDF5 that points at other files or declares more numbers than it stores.

    Returns:
        How many numbers there are.
    """
    import h5py

    count = 0

    def refuse(name, what):
        raise InputError(f"{path}: model.weights.h5 holds {what} at {name!r}; refused")

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            seen = set()  # hard links can make a circle
            waiting = [file["/"]]
            while waiting:
                group = waiting.pop()
                for key in group:
                    name = f"{group.name.rstrip('/')}/{key}"
                    link = group.get(key, getlink=True)
                    if isinstance(link, h5py.ExternalLink):
                        refuse(name, "an external link")
                    if not isinstance(link, h5py.HardLink):
                        refuse(name, "a soft link")
                    item = group[key]
                    address = h5py.h5o.get_info(item.id).addr
                    if address in seen:
                        refuse(name, "a second link to one object")
                    seen.add(address)
                    if isinstance(item, h5py.Group):
                        waiting.append(item)
                    elif not isinstance(item, h5py.Dataset):
                        refuse(name, "a type")
                    elif item.external:
                        refuse(name, "numbers stored in another file")
                    elif item.is_virtual:
                        refuse(name, "a virtual dataset")
                    elif item.dtype.kind not in "biufV" or item.dtype.hasobject:
                        refuse(name, "no numbers")
                    elif item.nbytes > item.id.get_storage_size():
                        refuse(name, f"{item.nbytes:,} bytes, more than it stores,")
                    else:
                        count += item.size
    except InputError:
        raise
    except Exception as error:  # HDF5 raises many kinds at broken files
        raise _no_model(path, f"model.weights.h5: {error}") from error
    return count
