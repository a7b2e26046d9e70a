"""The floors of the house, and what no start-up may pay for."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

FLOORS = {
    "cache": 1, "data": 2, "extract": 3, "classify": 3, "finetune": 4, "predict": 5, "report": 5,
    "onepass": 6,
}  # fmt: skip
HEAVY = ("tensorflow", "keras", "keras_hub", "jax", "torch")
FILES = sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))
COMMANDS = [
    ("cache",), ("cache", "list"), ("cache", "show"), ("cache", "verify"), ("cache", "delete"),
    ("data",), ("data", "prepare"), ("data", "list"), ("data", "show"), ("data", "verify"),
    ("extract",), ("classify",), ("classify", "ensemble"), ("classify", "sweep"), ("finetune",), ("predict",), ("predict", "export"),
    ("finetune", "find-lr"), ("finetune", "ablate"), ("finetune", "errors"), ("report",),
    ("classify", "transfer"), ("classify", "inspect"),
]  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide the floor"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        names |= {room_of(module) for module in modules}
    return names


def room_of(module: str) -> str:
    """The room of one of our modules; of another, its top-level package."""
    first, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    return room if first == "onepass" and room in FLOORS else first


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_package_imports_only_from_floors_below(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    others = imported(path) & FLOORS.keys() - {room}
    assert all(FLOORS[other] < FLOORS[room] for other in others), f"{room} imports {others}"


def test_the_cache_needs_h5py_and_numpy_only() -> None:
    for path in (ROOT / "cache").rglob("*.py"):
        foreign = imported(path) - set(sys.stdlib_module_names) - {"cache"}
        assert foreign <= {"h5py", "numpy", "pydantic"}, f"{path}: {foreign}"


def test_no_module_runs_foreign_code() -> None:
    """pickle, joblib.load, load_model and eval are how a file becomes a program."""
    forbidden = {
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "load_model",
        "torch.load",
        "eval(",
        "exec(",
    }
    for path in FILES:
        calls = {
            ast.unparse(n.func)
            for n in ast.walk(ast.parse(path.read_text()))
            if isinstance(n, ast.Call)
        }
        bad = {
            call
            for call in calls
            if call in forbidden or call.endswith("load_model") or call in ("eval", "exec")
        }
        assert not bad, f"{path}: {bad}"


def loaded_after(code: str) -> set[str]:
    """Which heavy modules a fresh process has loaded after running `code`."""
    probe = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    last = run.stdout.strip().splitlines()[-1]
    assert last.startswith("LOADED"), run.stderr
    return set(ast.literal_eval(last.removeprefix("LOADED ")))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_there_and_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    argv = [f"onepass {words[0]}", *words[1:], "--help"]
    code = f"import runpy; sys.argv = {argv!r}; runpy.run_module({words[0]!r}, run_name='__main__', alter_sys=False)"
    assert loaded_after(code) == set()
    run = subprocess.run(
        [sys.executable, "-m", words[0], *words[1:], "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0 and run.stdout.startswith("usage: onepass " + words[0]), run


@pytest.mark.parametrize(
    "code",
    [
        "import onepass.cache.__main__, onepass.cache.rows, onepass.cache.features",
        "from onepass.data.__main__ import COMMANDS; from onepass.cache.commandline.command import main; main('data', COMMANDS, ['list'])",
        "import onepass.extract.config, onepass.extract.spec; from onepass.extract.backbones import registry; registry.all_backbones()",
        "import onepass.classify.heads.linear.logistic, onepass.classify.heads.linear.ridge, onepass.classify.protocol.evaluate, onepass.classify.leaderboard.board",
    ],
)
def test_light_work_loads_nothing_heavy(code: str) -> None:
    assert loaded_after(code) == set()


def test_files_and_functions_stay_readable() -> None:
    for path in FILES:
        source = path.read_text()
        assert source.count("\n") <= 300, f"{path} has {source.count(chr(10))} lines"
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                body = node.end_lineno - node.body[0].lineno  # type: ignore[operator]
                assert body <= 60, f"{path}:{node.lineno} {node.name} is {body} lines long"
