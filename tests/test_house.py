"""How the sources are built: imports run one way, no file and no function grows long, no room most of the house."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "megatron_iberis"

# The rooms of the package from the ground up: one imports those of the floors below its own, and none on its floor.
FLOORS = (
    {"errors", "_C"},
    {"kernels", "processes", "storage"},
    {"config", "hub", "launcher", "sandbox", "tokenizer"},
    {"tasks"},
    {"data", "parallel", "run_folder"},
    {"hardware", "model", "resilience", "text"},
    {"command", "monitor", "sharding"},
    {"checkpoint", "training"},
    {"convert", "inference", "planner"},
    {"evaluation", "rollouts"},
    {"doctor", "report", "serving", "stages"},
    {"cli"},
)
FLOOR_OF = {room: number for number, floor in enumerate(FLOORS) for room in floor}

FOLDERS = ("megatron_iberis", "csrc", "data_tools", "examples", "benchmarks", "tests")
MOST_LINES = 400
# Longer files, and why. Nothing else may be.
LONG_FILES = {}
MOST_LINES_OF_A_FUNCTION = 60
LONG_FUNCTIONS = {}
MOST_OF_THE_PACKAGE = 0.18


def sources(*endings: str) -> Iterator[Path]:
    for folder in FOLDERS:
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in endings)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    """The modules that a file of the package imports anywhere in it, also in functions and for types only."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)} imports relatively: write the whole name"
            module = node.module or ""
            yield from (f"{module}.{alias.name}" if module == PACKAGE.name else module for alias in node.names)


def rooms_used() -> dict[str, dict[str, set[str]]]:
    """room -> the rooms that it imports -> the files in which it does so."""
    graph: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for module in imported(path):
            first, _, rest = module.partition(".")
            if first == PACKAGE.name and (used := rest.partition(".")[0]) not in (room, "", "__version__"):
                graph[room][used].add(name_of(path))
    return graph


def test_imports_run_one_way() -> None:
    graph = rooms_used()
    assert sum(len(used) for used in graph.values()) > 40, "the imports were not found"
    rooms = graph.keys() | {room for used in graph.values() for room in used}
    assert rooms <= FLOOR_OF.keys(), f"give these rooms a floor: {sorted(rooms - FLOOR_OF.keys())}"
    upward = [
        f"{room} imports {used} in {', '.join(sorted(files))}"
        for room, uses in graph.items()
        for used, files in uses.items()
        if FLOOR_OF[used] >= FLOOR_OF[room]
    ]
    assert upward == []


def test_every_room_is_known() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__"} <= FLOOR_OF.keys()


def test_no_file_is_long() -> None:
    long = {name_of(path): len(path.read_text().splitlines()) for path in sources(".py", ".pyi", ".cpp", ".h")}
    assert {name: lines for name, lines in long.items() if lines > MOST_LINES and name not in LONG_FILES} == {}


def python_functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def cpp_functions(path: Path) -> Iterator[tuple[str, int]]:
    """As clang-format lays them out: free ones and methods end with a "}" of the indent that they begin with."""
    lines = path.read_text().splitlines()
    for indent in ("", "  "):
        start = None
        for number, line in enumerate(lines):
            if line == indent + "}" and start is not None:
                yield lines[start].strip(), number - start + 1
                start = None
            elif re.match(indent + r"[\w~].*[({,]", line) and not line.endswith(";"):
                block = re.match(r" *(if|for|while|switch|do|else|namespace|struct|class|enum|const auto)\b", line)
                start = None if block else number


@pytest.mark.parametrize("language", ["python", "c++"])
def test_no_function_is_long(language: str) -> None:
    functions = python_functions if language == "python" else cpp_functions
    paths = sources(".py") if language == "python" else sources(".cpp", ".h")
    found = {f"{name_of(path)} {name}": lines for path in paths for name, lines in functions(path)}
    assert len(found) > 80, "the functions were not found"
    assert {
        name: lines
        for name, lines in found.items()
        if lines > MOST_LINES_OF_A_FUNCTION and name not in LONG_FUNCTIONS
    } == {}


def test_no_room_is_most_of_the_house() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    of_room: dict[str, int] = defaultdict(int)
    for path, count in lines.items():
        of_room[path.relative_to(PACKAGE).parts[0]] += count
    total = sum(lines.values())
    shares = {room: count / total for room, count in of_room.items()}
    assert {room: share for room, share in shares.items() if share > MOST_OF_THE_PACKAGE} == {}
