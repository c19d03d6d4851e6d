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
from pathlib import Path

from vocoder.errors import InputError, printable
from vocoder.paths import user_path
from vocoder.startup import command, import_keras


def convert(checkpoint: Path, config: Path, out: Path):
    """Converts a checkpoint and returns its generator or `Discriminators`.

    Raises:
        InputError: A file can't be read, or names or shapes differ: one line for each.
    """
    from vocoder.convert import bigvgan, discriminators, hifigan, reading, vocos

    # Each says whether a config is its own (`matches`), builds the generator of it (`build`), where
    # the original's arrays go in it (`places`), and which names of a checkpoint are no weights
    # (`is_buffer`). The first that matches counts.
    formats = (vocos, bigvgan, hifigan)
    if out.suffix != ".keras":
        raise InputError(f"{out}: the output's name must end in .keras")
    settings = reading.read_config(config)
    kind = next(kind for kind in formats if kind.matches(settings))
    try:
        generator = kind.build(settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"{config}: {error}") from error
    loaded = reading.read_checkpoint(checkpoint)
    if discriminators.matches(loaded):
        model = discriminators.build(loaded, checkpoint)
    else:
        model = generator
        model.build((None, None, model.n_mels))
        arrays = reading.arrays(loaded.get("generator", loaded), "a generator", checkpoint)
        state = {name: value for name, value in arrays.items() if not kind.is_buffer(name)}
        reading.assign(kind.places(model), reading.fold(state), checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    model.save(out)
    return model


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
