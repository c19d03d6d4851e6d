"""Imports a published checkpoint: `python -m vocoder.convert CKPT CONFIG OUT.keras`.

Which network it is says its config: HiFi-GAN (`generator_v1` or `g_02500000` and `config.json`,
github.com/jik876/hifi-gan), BigVGAN (`bigvgan_generator.pt` and `config.json`,
github.com/NVIDIA/BigVGAN), or Vocos for mels (`pytorch_model.bin` and `config.yaml`,
github.com/gemelo-ai/vocos). Weight normalisation is folded, and the generator written to a
`.keras` file, for inference. HiFi-GAN's discriminators (`do_02500000`, with the same config) are
written as they are, to train on with. Needs PyTorch (`pip install torch`), which reads the
checkpoint with `weights_only=True`, and YAML is read as data: no code in these files runs.
"""

import argparse
import math
import os
import shutil
import tempfile
from pathlib import Path

from vocoder.errors import InputError, printable
from vocoder.paths import identity, replacing, user_path
from vocoder.startup import command, import_keras


def convert(checkpoint: Path, config: Path, out: Path):
    """Converts a checkpoint and returns its generator or `CombinedDiscriminator`.

    Raises:
        InputError: A file can't be read or written, or names or shapes differ: one line for each.
    """
    from vocoder.convert import bigvgan, discriminators, hifigan, reading, vocos

    # Each says whether a config is its own (`matches`), builds the generator of it (`build`), where
    # the original's arrays go in it (`weights`), how the name of one of them begins (`ANCHOR`), and
    # which names of a checkpoint are no weights (`is_buffer`). The first that matches counts.
    formats = (vocos, bigvgan, hifigan)
    _check_out(out, checkpoint, config)
    settings = reading.read_config(config)
    kind = next(kind for kind in formats if kind.matches(settings))
    try:
        generator = kind.build(settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{config}: {' '.join(str(error).split())}") from error
    loaded = reading.read_checkpoint(checkpoint)
    if discriminators.matches(loaded):
        model = discriminators.build(loaded, checkpoint)
    else:
        state = reading.arrays(reading.unwrapped(loaded), f"a generator of {kind.NAME}", checkpoint)
        state = reading.without_prefix(state, kind.ANCHOR, checkpoint)
        state = {name: value for name, value in state.items() if not kind.is_buffer(name)}
        state = reading.fold(state)
        model = _built(generator, state, checkpoint, config)
        reading.assign(kind.weights(model), state, checkpoint, kind.NAME)
    _save(model, out)
    return model


def _built(generator, state, checkpoint, config):
    """Builds it, unless it is so much larger than the checkpoint that it can't be of it."""
    from vocoder.safe_files import build_generator, built

    stored = sum(value.size for value in state.values())
    try:
        return built(lambda: generator, build_generator, 10 * stored)
    except ValueError as error:
        raise InputError(
            f"{checkpoint}: has {stored:,} numbers, less than a tenth of what {config} is of"
        ) from error


def _check_out(out, *inputs):
    """Refuses, before the work, what would not do as the output."""
    if out.suffix != ".keras":
        raise InputError(f"{out}: the output's name must end in .keras")
    if os.path.isdir(out):
        raise InputError(f"{out}: is a folder; give the name of a file")
    for path in inputs:
        if identity(out) is not None and identity(out) == identity(path):
            raise InputError(f"{out}: would be written over {path}, which is read")


def _save(model, out):
    """Writes a model, under its name when it is whole."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "model.keras"
            model.save(whole)
            out.parent.mkdir(parents=True, exist_ok=True)
            with whole.open("rb") as source, replacing(out, "wb") as target:
                shutil.copyfileobj(source, target)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{out}: can't be written ({reason})") from error


def main(arguments: list[str] | None = None) -> None:
    with command():
        parser = argparse.ArgumentParser(
            prog="python -m vocoder.convert",
            description=__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("checkpoint", metavar="CKPT")
        parser.add_argument("config", metavar="CONFIG", help="the config beside it")
        parser.add_argument("out", metavar="OUT.keras")
        options = parser.parse_args(arguments)
        checkpoint, config = user_path(options.checkpoint), user_path(options.config)
        out = user_path(options.out)
        import_keras()
        model = convert(checkpoint, config, out)
        count = sum(math.prod(variable.shape) for variable in model.trainable_variables)
        print(f"{printable(out)}: {count:,} parameters")
