import importlib

import pytest

from vocoder import registry
from vocoder.errors import InputError


@pytest.mark.parametrize(
    "table", ["GENERATORS", "DISCRIMINATORS", "LOSSES", "METRICS", "SCHEDULES"]
)
def test_every_entry_can_be_imported(table):
    for target in getattr(registry, table).values():
        module, attribute = target.split(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_build_passes_what_the_node_leaves_out():
    node = {"loss": "mel", "n_mels": 20}
    provided = {"sample_rate": 16000, "n_mels": 40, "unused": 1}
    loss = registry.build(registry.LOSSES, node, "k", name_key="loss", provided=provided)
    assert (loss.sample_rate, loss.n_mels) == (16000, 20)


def test_a_missing_argument_is_named():
    table = {"pair": "tests_pair:pair"}
    with pytest.raises(InputError, match="k.name: unknown 'pai'; did you mean 'pair'"):
        registry.build(table, {"name": "pai"}, "k")
    table = {"index": "vocoder.training.log:read_losses"}
    with pytest.raises(InputError, match="k.run: missing; index needs it"):
        registry.build(table, {"name": "index"}, "k")


def test_no_dotted_path_is_imported():
    for name in ("os:system", "os.system", "vocoder.losses.mel:MelLoss"):
        with pytest.raises(InputError, match="unknown"):
            registry.build(registry.LOSSES, {"loss": name}, "k", name_key="loss")
