"""The rules of the layout, read from the source with ast: who imports whom, who does I/O, how long things are.

Each rule is a function from one file's path and syntax tree to its offences; the last tests plant an offence of each.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("supernet", "search", "proxies", "data", "train", "launch")

MAY_IMPORT = {
    "supernet": set(),
    "proxies": set(),
    "data": set(),
    "train": {"supernet", "data"},
    "search": {"supernet.space"},
    "launch": {"supernet", "proxies", "data", "train", "search"},
}
"""Besides itself: a folder, or one module of a folder."""

PURE = {"supernet", "proxies", "search"}
OUTSIDE_CALLS = {"open", "print", "input", "os.getenv", "io.open", "torch.save", "torch.load", "np.save", "np.load"}
OUTSIDE_METHODS = {"open", "read_text", "write_text", "read_bytes", "write_bytes"}
OUTSIDE_MODULES = {"argparse", "tyro"}

UNSAFE_CALLS = {
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "cloudpickle.load",
    "cloudpickle.loads",
    "joblib.load",
    "marshal.load",
    "marshal.loads",
    "shelve.open",
    "pd.read_pickle",
    "yaml.load",
    "yaml.unsafe_load",
}

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
LONG_WITH_REASON: dict[str, str] = {}
"""File or file::function, and the reason why it passes its limit."""

Rule = Callable[[Path, ast.Module], Iterator[str]]


def name_of(node: ast.expr) -> str:
    """`a.b.c` of a chain of names, empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := name_of(node.value)):
        return f"{before}.{node.attr}"
    return ""


def imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything imported; `from a import b` is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            before = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{before}.{alias.name}") for alias in node.names)


def calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the dotted name that is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, name_of(node.func)


def import_direction(path: Path, tree: ast.Module) -> Iterator[str]:
    """Imports point one way, and are written subshot.<folder>."""
    own = path.parts[0]
    for line, name in imports(tree):
        first, *rest = name.split(".")
        if first == "" or first in FOLDERS:
            yield f"{path}:{line}: imports {name}; write subshot.{own if first == '' else first}"
        if first != "subshot" or rest[0] == own:
            continue
        if not any(".".join(rest[:depth]) in MAY_IMPORT[own] for depth in (1, 2)):
            allowed = ", ".join(sorted(MAY_IMPORT[own])) or "no other folder"
            yield f"{path}:{line}: imports {name}; {own} may import {allowed}"


def domains(path: Path, tree: ast.Module) -> Iterator[str]:
    """What domains take (winners' folders, pages, latency tables) imports none of them."""
    if path.parts[:2] not in {("launch", part) for part in ("winners", "reports", "latency_tables")}:
        return
    for line, name in imports(tree):
        if name.startswith(tuple(f"subshot.launch.{domain}" for domain in ("clicks", "vision", "training_free"))):
            yield f"{path}:{line}: imports {name}; {path.parts[1]} knows no domain"


def purity(path: Path, tree: ast.Module) -> Iterator[str]:
    """supernet, proxies and search read and write nothing but their arguments."""
    if path.parts[0] not in PURE:
        return
    for line, name in imports(tree):
        if name.split(".")[0] in OUTSIDE_MODULES or name in ("os.environ", "os.getenv"):
            yield f"{path}:{line}: imports {name}"
    for node, name in calls(tree):
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in OUTSIDE_CALLS or method in OUTSIDE_METHODS:
            yield f"{path}:{node.lineno}: calls {name or method}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and name_of(node) == "os.environ":
            yield f"{path}:{node.lineno}: reads os.environ"


def distributed(path: Path, tree: ast.Module) -> Iterator[str]:
    """torch.distributed is named in train/dist.py alone."""
    if path == Path("train/dist.py"):
        return
    for line, name in imports(tree):
        if name.startswith("torch.distributed"):
            yield f"{path}:{line}: imports {name}; call subshot.train.dist"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and name_of(node) == "torch.distributed":
            yield f"{path}:{node.lineno}: uses torch.distributed; call subshot.train.dist"


def unsafe_loads(path: Path, tree: ast.Module) -> Iterator[str]:
    """Nothing that is read from a disk can run code."""
    for node, name in calls(tree):
        keywords = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
        if name in UNSAFE_CALLS:
            yield f"{path}:{node.lineno}: {name} can run code"
        if name == "torch.load" and keywords.get("weights_only") is not True:
            yield f"{path}:{node.lineno}: torch.load without weights_only=True"
        if keywords.get("allow_pickle") is True:
            yield f"{path}:{node.lineno}: allow_pickle=True"


def size(path: Path, tree: ast.Module) -> Iterator[str]:
    """A file is at most 400 lines, a function at most 80."""
    lines = len((ROOT / path).read_text().splitlines()) if (ROOT / path).exists() else 0
    if lines > MAX_FILE_LINES and str(path) not in LONG_WITH_REASON:
        yield f"{path}: {lines} lines; split it by concept"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES and f"{path}::{node.name}" not in LONG_WITH_REASON:
                yield f"{path}:{node.lineno}: {node.name} has {length} lines; split it by concept"


RULES: tuple[Rule, ...] = (import_direction, domains, purity, distributed, unsafe_loads, size)


def sources(*folders: str) -> list[Path]:
    """The Python files of some folders, relative to the root."""
    return sorted(path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_source_keeps(rule: Rule) -> None:
    files = sources(*FOLDERS)
    assert {path.parts[0] for path in files} == set(FOLDERS)
    offences = [offence for path in files for offence in rule(path, ast.parse((ROOT / path).read_text()))]
    assert not offences, "\n".join(offences)


def test_tests_and_benchmarks_are_no_longer_than_the_rest() -> None:
    files = sources("tests", "benchmarks")
    assert Path("tests/test_architecture.py") in files
    offences = [offence for path in files for offence in size(path, ast.parse((ROOT / path).read_text()))]
    assert not offences, "\n".join(offences)


def test_tests_are_no_package() -> None:
    """With an __init__.py, pytest would put the root on sys.path, where `import data` works here and fails in use."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


PLANTED = [
    (import_direction, "supernet/x.py", "import subshot.search.evolution"),
    (import_direction, "supernet/x.py", "from subshot import proxies"),
    (import_direction, "search/x.py", "from subshot.supernet.mobilenetv2 import mobilenetv2"),
    (import_direction, "train/x.py", "def f():\n    from subshot.proxies.base import preserved"),
    (import_direction, "data/x.py", "from subshot.launch import presets"),
    (import_direction, "launch/x.py", "import search"),
    (import_direction, "train/x.py", "from . import dist"),
    (domains, "launch/reports/x.py", "from subshot.launch.clicks.findings import dots_of"),
    (domains, "launch/winners/x.py", "from subshot.launch import vision"),
    (purity, "search/x.py", "print('best')"),
    (purity, "supernet/x.py", "with open('f') as f: pass"),
    (purity, "supernet/x.py", "text = path.read_text()"),
    (purity, "proxies/x.py", "import os\nseed = os.environ['SEED']"),
    (purity, "search/x.py", "import argparse"),
    (distributed, "train/warmup.py", "import torch.distributed as dist"),
    (distributed, "launch/x.py", "from torch import distributed"),
    (distributed, "search/x.py", "import torch\nrank = torch.distributed.get_rank()"),
    (unsafe_loads, "train/x.py", "state = pickle.load(file)"),
    (unsafe_loads, "train/x.py", "state = torch.load(path, weights_only=False)"),
    (unsafe_loads, "train/x.py", "state = torch.load(path)"),
    (unsafe_loads, "data/x.py", "table = np.load(path, allow_pickle=True)"),
    (unsafe_loads, "data/x.py", "table = yaml.load(file)"),
    (size, "data/x.py", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
]


@pytest.mark.parametrize(("rule", "path", "source"), PLANTED)
def test_a_planted_offence_is_found(rule: Rule, path: str, source: str) -> None:
    assert len(list(rule(Path(path), ast.parse(source)))) == 1


ALLOWED = [
    ("search/x.py", "from subshot.supernet.space import Genotype\nfrom subshot.supernet import space"),
    ("train/x.py", "from subshot.supernet.base import Bound\nfrom subshot.train import dist"),
    ("train/dist.py", "import torch.distributed as dist\nimport os\nrank = os.environ['RANK']"),
    ("launch/x.py", "from subshot.search import evolution\nprint('done')"),
    ("launch/clicks/x.py", "from subshot.launch.reports import page"),
    ("launch/x.py", "from subshot.launch.clicks import domain"),
    ("data/x.py", "table = np.load(path)\nstate = torch.load(path, weights_only=True)"),
    ("supernet/x.py", "import logging\nlogging.getLogger(__name__).info('text')"),
]


@pytest.mark.parametrize(("path", "source"), ALLOWED)
def test_what_is_allowed_passes(path: str, source: str) -> None:
    assert [offence for rule in RULES for offence in rule(Path(path), ast.parse(source))] == []
