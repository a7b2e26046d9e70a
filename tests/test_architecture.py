"""The floors of the house, and what no start-up may pay for."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

from conftest import ROOT
from onepass.__main__ import FROM_ABOVE, commands_of

FLOORS = {
    "cache": 1, "data": 2, "extract": 3, "classify": 3, "finetune": 4, "predict": 5, "report": 6,
    "onepass": 7,
}  # fmt: skip
HEAVY = ("tensorflow", "keras", "keras_hub", "jax", "torch")  # seconds
SLOW = (
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "PIL",
    "jinja2",
    "pydantic",
)  # tenths of one, together a second
FILES = sorted(path for room in FLOORS for path in (ROOT / room).rglob("*.py"))
COMMANDS = [
    ("cache",), ("cache", "list"), ("cache", "show"), ("cache", "verify"), ("cache", "delete"), ("cache", "migrate"),
    ("data",), ("data", "prepare"), ("data", "list"), ("data", "show"), ("data", "verify"),
    ("extract",), ("classify",), ("classify", "ensemble"), ("classify", "sweep"), ("finetune",), ("predict",), ("predict", "export"),
    ("finetune", "find-lr"), ("finetune", "ablate"), ("finetune", "errors"), ("report",),
    ("classify", "transfer"), ("classify", "inspect"),
]  # fmt: skip


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def files_of(room: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(ROOT).parts[0] == room]


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, also inside its functions."""
    names = set()
    for node in ast.walk(tree_of(path)):
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


@pytest.mark.parametrize("room", FLOORS)
def test_a_package_imports_only_from_floors_below(room: str) -> None:
    for path in files_of(room):
        others = imported(path) & FLOORS.keys() - {room}
        assert all(FLOORS[other] < FLOORS[room] for other in others), f"{path} imports {others}"


def test_the_cache_needs_h5py_and_numpy_only() -> None:
    for path in (ROOT / "cache").rglob("*.py"):
        foreign = imported(path) - set(sys.stdlib_module_names) - {"cache"}
        allowed = {"h5py", "numpy", "pydantic"}
        if path.parent.name == "cluster":
            allowed |= {"cloudpickle", "grpc", "distributed", "joblib", "ray"}
        allowed |= {"tracking.py": {"tensorboard", "mlflow"}, "keras_settings.py": {"keras"}}.get(
            path.name, set()
        )
        assert foreign <= allowed, f"{path}: {foreign}"


def running_foreign_code(tree: ast.Module) -> set[str]:
    """The calls in a module by which a file would become a program."""
    forbidden = {"pickle.load", "pickle.loads", "joblib.load", "torch.load", "eval", "exec"}
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    bad = {
        name
        for name in (ast.unparse(c.func) for c in calls)
        if name in forbidden or name.endswith("load_model")
    }
    options = [
        (ast.unparse(c.func), o) for c in calls for o in c.keywords if o.arg == "allow_pickle"
    ]
    return bad | {
        f"{name}({ast.unparse(o)})" for name, o in options if ast.unparse(o.value) != "False"
    }


@pytest.mark.parametrize(
    "line",
    [
        "eval(text)",
        "exec(code)",
        "pickle.loads(b)",
        "keras.saving.load_model(p)",
        "np.load(p, allow_pickle=True)",
    ],
)
def test_foreign_code_would_be_noticed(line: str) -> None:
    assert running_foreign_code(ast.parse(f"def f():\n    return [{line}]"))


@pytest.mark.parametrize("room", FLOORS)
def test_no_module_runs_foreign_code(room: str) -> None:
    for path in files_of(room):
        assert running_foreign_code(tree_of(path)) == set(), path


def imported_at_once(path: Path) -> set[str]:
    """Our modules that a module imports while it is itself imported."""
    found: set[str] = set()
    waiting: list[ast.AST] = [tree_of(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside if inside <= MODULES.keys() else inside | {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        waiting += ast.iter_child_nodes(node)
    return found & MODULES.keys()


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("onepass", *parts) if parts[0] != "onepass" else parts).removesuffix(
        ".__init__"
    )


MODULES = {module_of(path): path for path in FILES}


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert "onepass.cache.errors" in imported_at_once(MODULES["onepass.cache.rows"])
    order = TopologicalSorter({name: imported_at_once(path) for name, path in MODULES.items()})
    assert len(list(order.static_order())) == len(
        MODULES
    )  # raises CycleError, which names the circle


def names_in(path: Path) -> set[str]:
    """What a module imports, calls and takes out of something, as it is written."""
    kinds = (ast.Import, ast.ImportFrom, ast.Attribute)
    nodes = list(ast.walk(tree_of(path)))
    found = {ast.unparse(node) for node in nodes if isinstance(node, kinds)}
    return found | {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


@pytest.mark.parametrize("room", FLOORS)
def test_signals_and_printing_belong_to_the_command_line(room: str) -> None:
    for path in files_of(room):
        if path.parent == ROOT / "cache" / "commandline":
            continue
        found = names_in(path)
        signals = {name for name in found if "import signal" in name or name[:7] == "signal."}
        assert not signals, path
        assert "print" not in found, path
        assert "sys.argv" not in found or path.name == "__main__.py", path


def ran(code: str, names: tuple[str, ...] = HEAVY) -> tuple[str, set[str]]:
    """What a fresh process prints that runs `code`, and which of these modules it has loaded then."""
    probe = f"import sys\ntry:\n    {code}\nexcept SystemExit as end: assert not end.code\nprint('LOADED', [m for m in {names!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, cwd=ROOT)
    printed, _, loaded = run.stdout.rpartition("LOADED ")
    assert loaded, run.stderr
    return printed, set(ast.literal_eval(loaded))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_is_there_and_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    argv = [f"onepass {words[0]}", *words[1:], "--help"]
    code = f"import runpy; sys.argv = {argv!r}; runpy.run_module({words[0]!r}, run_name='__main__', alter_sys=False)"
    printed, loaded = ran(code, HEAVY + SLOW)
    assert loaded == set() and printed.startswith("usage: onepass " + words[0])


@pytest.mark.parametrize("word", FROM_ABOVE)
def test_commands_from_the_floor_above_answer_at_once(word: str) -> None:
    for command in commands_of(word)[len(import_module(f"onepass.{word}.__main__").COMMANDS) :]:
        argv = [word, command.name, "--help"]
        assert ran(f"from onepass.__main__ import run; run({argv!r})", HEAVY + SLOW)[1] == set()


@pytest.mark.parametrize(
    "code",
    [
        "import onepass.cache.__main__, onepass.cache.rows, onepass.cache.features",
        "from onepass.data.__main__ import COMMANDS; from onepass.cache.commandline.command import main; main('data', COMMANDS, ['list'])",
        "import onepass.extract.config, onepass.extract.backbones.spec; from onepass.extract.backbones import registry; registry.all_backbones()",
        "import onepass.extract.cluster.executor, onepass.extract.pipeline",  # a cluster's driver computes nothing
        "import onepass.classify.heads.linear.logistic, onepass.classify.heads.linear.ridge, onepass.classify.protocol.evaluate, onepass.classify.leaderboard.board",
    ],
)
def test_light_work_loads_nothing_heavy(code: str) -> None:
    assert ran(code)[1] == set()
