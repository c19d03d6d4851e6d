"""From the `loss` node of a config to the `MultiLoss` of a generator and of its discriminators."""

from collections.abc import Mapping, Sequence

from keras import ops

from vocoder import registry
from vocoder.errors import InputError
from vocoder.kinds import Number, checked
from vocoder.losses.adversarial import AdversarialLoss, ScoreAccuracy
from vocoder.losses.multi import LossCfg, MultiLoss

# The entries of y_true and y_pred where there are discriminators.
WAVEFORM, FEATURES = "waveform", "features"


def build_multi_loss(
    node: Mapping, sample_rate: int, segment_length: int, sub_discriminators: Sequence[str] = ()
) -> MultiLoss:
    """Builds the parts of `{terms: {NAME: {loss: LOSS, weight: W, argument: value, ...}, ...}}`.

    Without discriminators it is called with two waveforms. With them, y_true and y_pred are
    `{"waveform": (batch, samples), "features": discriminators(waveform)}`, or None as the features,
    which leaves the terms on feature maps out. Such a term is a `MultiLoss` of its own with an
    equal part for each sub-discriminator.

    Args:
        node: The `loss` node; every term is one part, under its own name.
        sample_rate: Hz, for the losses that need it and don't say their own.
        segment_length: Samples of a training segment, on which every part is tried.
        sub_discriminators: Their names, `CombinedDiscriminator.sub_discriminators`.

    Raises:
        InputError: Names the key.
    """
    for key in node:
        registry.known(key, ("terms",), f"loss.{key}")
    terms = node.get("terms") or {}
    if not isinstance(terms, Mapping):
        raise InputError(f"loss.terms: must be a mapping of names to losses, not {terms!r}")
    parts = []
    for name, term in terms.items():
        key = f"loss.terms.{name}"
        if not isinstance(term, Mapping):
            raise InputError(f"{key}: must be a mapping such as {{loss: mel, weight: 1}}")
        term = dict(term)
        weight = checked(term.pop("weight", 1.0), Number, f"{key}.weight")
        provided = {"sample_rate": sample_rate, "name": name}
        loss = registry.build(registry.LOSSES, term, key, name_key="loss", provided=provided)
        if getattr(loss, "of_features", False):
            if not sub_discriminators:
                raise InputError(f"{key}: needs discriminators; discriminator=mpd_msd, for example")
            loss = MultiLoss([LossCfg(loss, 1.0, sub, of=sub) for sub in sub_discriminators], name)
            of = FEATURES
        else:
            _try(loss, key, segment_length)
            of = WAVEFORM if sub_discriminators else None
        try:
            parts.append(LossCfg(loss, weight, name, of))
        except (TypeError, ValueError) as error:
            reason = str(error).removeprefix("weight: ")
            raise InputError(f"{key}.weight: {reason}") from error
    if not parts:
        raise InputError(
            "loss.terms: there are none; +loss.terms.mel={loss: mel, weight: 1} adds one"
        )
    if not any(part.weight for part in parts):
        raise InputError("loss.terms: every weight is 0, so there is nothing to train on")
    try:
        return MultiLoss(parts)
    except ValueError as error:
        raise InputError(f"loss.terms: {error}") from error


def build_discriminator_loss(generator_loss: MultiLoss) -> MultiLoss:
    """The discriminators' side of a generator's adversarial term.

    It is called with `discriminators(waveform)` of recordings and of what is synthesised. Its one
    part, `discriminator`, has a part of its own for each sub-discriminator, summed, and two that
    are watched: `accuracy_real` and `accuracy_synthesised`, the shares of scores on the right side.

    Args:
        generator_loss: Of `build_multi_loss`, with discriminators.

    Raises:
        InputError: There is no adversarial term, or more than one.
    """
    terms = [part.loss.parts for part in generator_loss.parts if part.of == FEATURES]
    terms = [parts for parts in terms if isinstance(parts[0].loss, AdversarialLoss)]
    if len(terms) != 1:
        raise InputError(
            f"loss.terms: discriminators need one adversarial term, not {len(terms)}; "
            "+loss.terms.adversarial={loss: least_squares, weight: 1} adds one"
        )
    (parts,) = terms
    kind = parts[0].loss
    sides = [LossCfg(kind.discriminator_loss(), 1.0, part.name, part.of) for part in parts]
    watched = [
        LossCfg(ScoreAccuracy(side, kind.threshold), 0.0) for side in ("real", "synthesised")
    ]
    return MultiLoss([LossCfg(MultiLoss(sides + watched), 1.0, "discriminator")])


def _try(loss, key, segment_length):
    shortest = getattr(loss, "shortest", 0)
    longer = f"a segment of {shortest} or more" if shortest else "a longer segment"
    try:
        if segment_length < shortest:
            raise ValueError("most of it would be reflections")
        loss(ops.zeros((1, segment_length)), ops.zeros((1, segment_length)))
    except Exception as error:  # whatever a loss raises that wants another length
        raise InputError(
            f"{key}: can't be computed on data.segment_length={segment_length} samples; "
            f"shorter windows or {longer} would do"
        ) from error
