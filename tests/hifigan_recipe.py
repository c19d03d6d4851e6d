"""The weights of the golden discriminators, which are made from their names: golden/README.md.

Names and shapes are PyTorch's, of `MultiPeriodDiscriminator` ("mpd") and `MultiScaleDiscriminator`
("msd") in github.com/jik876/hifi-gan.
"""

import zlib

import numpy as np
import scipy.linalg


def made(name, shape):
    """Values of a parameter, whose name is such as "mpd/discriminators.0.conv_post.bias"."""
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("weight_g"):
        return 1 + np.float32(0.1) * n
    return np.float32(0.1) * n if name.endswith("bias") else n


def parameters(discriminator):
    """(PyTorch's name, our variable) of each trainable parameter of an MPD or MSD."""
    for i, (stack, score) in enumerate(
        zip(discriminator.stacks, discriminator.scores, strict=True)
    ):
        names = [f"convs.{j}" for j in range(len(stack.convolutions))]
        for name, layer in zip([*names, "conv_post"], [*stack.convolutions, score], strict=True):
            prefix = f"{discriminator.name}/discriminators.{i}.{name}"
            if hasattr(layer, "g"):
                yield f"{prefix}.weight_g", layer.g
                yield f"{prefix}.weight_v", layer.v
            else:
                yield f"{prefix}.weight_orig", layer._kernel
            yield f"{prefix}.bias", layer.bias


def fill(discriminator):
    """Gives a built MPD or MSD the golden weights."""
    kernel_tail = (1,) if discriminator.name == "mpd" else ()  # of a 2-D kernel in PyTorch
    for name, variable in parameters(discriminator):
        if name.endswith(("weight_v", "weight_orig")):
            _, taps, channels_in, channels_out = variable.shape
            shape = (channels_out, channels_in, taps, *kernel_tail)
            values = made(name, shape).reshape(shape[:3])
            variable.assign(np.transpose(values, (2, 1, 0))[None])
        elif name.endswith("weight_g"):
            shape = (variable.shape[0], 1, 1, *kernel_tail)
            variable.assign(made(name, shape).ravel())
        else:
            variable.assign(made(name, variable.shape))
    for layer in discriminator._flatten_layers():
        if hasattr(layer, "u"):  # the exact singular vectors
            kernel = np.asarray(layer._kernel, "float64")
            matrix = kernel.reshape(-1, kernel.shape[-1])
            last = [matrix.shape[1] - 1] * 2
            _, vectors = scipy.linalg.eigh(matrix.T @ matrix, subset_by_index=last)
            v = matrix @ vectors[:, -1]
            layer.u.assign(vectors[:, -1])
            layer.v.assign(v / np.linalg.norm(v))
    return discriminator
