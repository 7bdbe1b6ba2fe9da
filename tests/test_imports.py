"""The house stands: imports point down, nothing is called utils, files stay short, light commands stay light."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "stopgrad"

# From the bottom up (design.md). A thing imports what stands on a lower floor, and itself.
FLOORS = [
    ["contracts", "version", "lazy", "rng", "own_code", "processes", "dist", "losses", "optim"],
    ["nn", "method", "rundir", "diagnose"],
    ["siamese", "views"],
    ["data"],
    ["media"],
    ["methods", "eval", "encoder", "reporting"],
    ["training"],
    ["recipe"],
    ["recipes"],
    ["assemble"],
    ["study"],
    ["cli"],
]
TOP = {"__init__", "__main__"}
# On one floor, but a class of the second is built from the first.
BESIDE = {
    "own_code": {"contracts"},
    "processes": {"contracts"},
    "dist": {"contracts", "processes"},
    "losses": {"contracts"},
    "optim": {"contracts"},
    "method": {"contracts"},
}


def place(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_places(path: Path) -> set[str]:
    """Rooms of the package a file imports from, function-level and type-checking imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "stopgrad" else [module]
        else:
            assert not isinstance(node, ast.ImportFrom), f"{path}: relative import; write it out"
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("stopgrad.")}
    return found


def files() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_below_it(path: Path) -> None:
    here = place(path)
    if here in TOP:
        return
    floor = next((i for i, rooms in enumerate(FLOORS) if here in rooms), None)
    assert floor is not None, f"{here} stands on no floor; add it to FLOORS and to the docs"
    allowed = {room for rooms in FLOORS[:floor] for room in rooms} | {here} | BESIDE.get(here, set())
    assert imported_places(path) <= allowed, f"{path} imports {imported_places(path) - allowed}, which stands above"


def test_every_room_is_named_for_what_it_owns() -> None:
    vague = {"utils", "util", "misc", "common", "helpers", "core"}
    assert not [path for path in files() if vague & set(path.relative_to(ROOT).with_suffix("").parts)]


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {str(path): len(path.read_text().splitlines()) for path in files()}
    assert not {path: lines for path, lines in lengths.items() if lines > 400}


@pytest.mark.parametrize(
    "module",
    [
        "stopgrad",
        "stopgrad.contracts",
        "stopgrad.rng",
        "stopgrad.views",
        "stopgrad.media",
        "stopgrad.eval",
        "stopgrad.encoder",
    ],
)
def test_what_must_start_fast_does_not_import_torch(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules, 'torch was imported'"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("room", ["views", "eval", "encoder"])
def test_a_name_that_brings_its_file_later_is_there_and_no_other(room: str) -> None:
    module = import_module(f"stopgrad.{room}")
    assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match=f"module 'stopgrad.{room}' has no attribute 'nothing'"):
        module.nothing  # noqa: B018


def test_no_public_function_is_hidden_by_a_room_of_the_same_name() -> None:
    """Importing stopgrad.x rebinds the attribute x of the package: a function of that name would be gone."""
    import stopgrad

    rooms = {place(path) for path in files()}
    assert not rooms & set(stopgrad.__all__)
