"""docs/reference.md from docstrings: python docs/make_reference.py writes it (make docs); --check says whether it is up
to date, by its exit status.

The public names of a module are those that it defines itself, at its top level, without an underscore and with a
docstring. The source is read, not run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference.md"
FOLDERS = {
    "supernet": "spaces, supernets, costs, initialisation",
    "proxies": "scores of a network without training it to the end",
    "search": "evolution, exact optimum, sampling, ranking",
    "data": "images and click logs",
    "train": "the loop, recipes, processes, the run folder",
    "launch": "the commands",
}
HEAD = """# Reference

Written by `make docs` from the docstrings; do not edit. A name in `launch/search.py` is imported as
`from subshot.launch.search import name`. Here stands the first sentence of each docstring; the source has the rest.
"""


def page() -> str:
    commands = [command(path) for path in sorted((ROOT / "launch").glob("*.py")) if "\ndef main(" in path.read_text()]
    parts = [HEAD, "## Commands\n", "\n".join(commands)]
    for folder, what in FOLDERS.items():
        parts.append(f"## {folder}/: {what}\n")
        parts += [module(path) for path in sorted((ROOT / folder).rglob("*.py"), key=by_folder)]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def by_folder(path: Path) -> tuple[Path, str]:
    """A folder's own modules stand before those of the folders in it."""
    return path.parent, path.name


def command(path: Path) -> str:
    """A command's own words; all its options are in its --help."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return f"### launch/{path.name}\n\n" + "\n".join(f"    {line}".rstrip() for line in text.splitlines()) + "\n"


def module(path: Path) -> str:
    """A heading, what the module is, and a line for each public name; nothing for a module without any."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = [line for node in tree.body for line in entries(node)]
    title = f"### `{path.relative_to(ROOT)}`\n\n{first_sentence(tree)}\n"
    return f"{title}\n" + "\n".join(lines) + "\n" if lines else ""


def entries(node: ast.stmt) -> Iterator[str]:
    if not isinstance(node, ast.FunctionDef | ast.ClassDef) or not is_public(node):
        return
    if isinstance(node, ast.FunctionDef):
        yield entry(signature(node), node)
        return
    yield entry(f"class {node.name}", node)
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and is_public(part):
            yield "  " + entry(f"{node.name}.{signature(part)}", part)


def is_public(node: ast.FunctionDef | ast.ClassDef) -> bool:
    return not node.name.startswith("_") and bool(ast.get_docstring(node))


def entry(title: str, node: ast.FunctionDef | ast.ClassDef) -> str:
    return f"- `{title}`: {first_sentence(node)}"


def signature(node: ast.FunctionDef) -> str:
    """name(parameters), without annotations and defaults; of a property the name alone."""
    if any(isinstance(each, ast.Name) and each.id.endswith("property") for each in node.decorator_list):
        return node.name
    given = node.args
    words = [argument.arg for argument in (*given.posonlyargs, *given.args)]
    words += [f"*{given.vararg.arg}"] if given.vararg else ["*"] if given.kwonlyargs else []
    words += [argument.arg for argument in given.kwonlyargs]
    words += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return f"{node.name}({', '.join(word for word in words if word not in ('self', 'cls'))})"


def first_sentence(node: ast.Module | ast.FunctionDef | ast.ClassDef) -> str:
    """On one line, with what markdown would take for its own escaped."""
    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
    text = re.split(r"(?<=[.:])\s(?=[A-Z`])", text)[0].rstrip(".:") + "."
    return "".join(f"\\{letter}" if letter in "*<>|[]_" else letter for letter in text)


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
