"""The one-way imports of the house, read from the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vocoder"

# What each room may import of this package, beside what is open to all.
OPEN = {"errors", "kinds", "paths"}
MAY_IMPORT = {
    "errors": set(),
    "paths": set(),
    "kinds": set(),
    "overrides": set(),
    "registry": set(),
    "composition": {"overrides", "registry"},
    "config": {"composition", "registry", "audio"},
    "safe_files": {"registry", "discriminators"},
    "audio": set(),
    "layers": {"audio"},
    "heads": {"registry", "audio", "layers"},
    "generators": {"audio", "layers", "heads"},
    "discriminators": {"registry", "audio", "layers"},
    "losses": {"registry", "audio"},
    "data": {"config", "registry", "audio"},
    "evaluation": {"config", "registry", "audio", "data", "losses"},
    "training": {
        "config", "overrides", "registry", "safe_files", "audio", "layers", "data", "generators",
        "discriminators", "losses",
    },
}  # fmt: skip
ENTRY_POINTS = {"train", "synthesize", "evaluate", "convert", "check", "startup", "__init__"}
BACKEND_FREE = {"audio", "layers", "heads", "generators", "discriminators", "losses"}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, also inside functions, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_room_is_known():
    rooms = {room(path) for path in FILES}
    assert rooms <= set(MAY_IMPORT) | ENTRY_POINTS


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    here = room(path)
    for module in imports(path):
        if module.split(".")[0] == "vocoder" and here not in ENTRY_POINTS:
            target = module.split(".")[1]
            assert target in MAY_IMPORT[here] | {here, *OPEN}, f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_hydra_only_at_the_entry(path):
    allowed = ENTRY_POINTS | {"composition", "overrides"}
    for module in imports(path):
        if module.split(".")[0] in ("hydra", "omegaconf"):
            assert room(path) in allowed, f"{path} imports {module}"


@pytest.mark.parametrize(
    "path",
    [p for p in FILES if room(p) in BACKEND_FREE],
    ids=lambda p: str(p.relative_to(PACKAGE)),
)
def test_networks_and_losses_know_no_backend(path):
    for module in imports(path):
        assert module.split(".")[0] not in ("tensorflow", "jax", "torch"), f"imports {module}"


def test_only_the_pipeline_of_the_data_needs_tensorflow():
    for path in (PACKAGE / "data").glob("*.py"):
        heavy = {module.split(".")[0] for module in imports(path)} & {"tensorflow", "keras"}
        assert not heavy or path.name == "pipeline.py", path


def test_nothing_is_instantiated_from_a_dotted_path():
    for path in FILES:
        text = path.read_text()
        assert "hydra.utils" not in text and "get_original_cwd" not in text, path


@pytest.mark.parametrize("argument", ["--help", "--cfg=job"])
def test_help_needs_no_tensorflow(argument, tmp_path):
    program = (
        "import runpy, sys\n"
        f"sys.argv = ['train', {argument!r}]\n"
        "try:\n    runpy.run_module('vocoder.train', run_name='__main__')\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'tensorflow', 'keras', 'librosa', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "generator" in done.stdout
    assert not list(tmp_path.iterdir())
