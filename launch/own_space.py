"""The chain space that a run names: one of SPACES, or FILE.py:FUNCTION, which the user wrote.

Such a file is the user's own program and runs here. A run records its path in config.json and its sha256 in data.json,
and does not go on with a changed one.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from subshot.launch.cli import nearest
from subshot.launch.config import SpaceConfig
from subshot.supernet import SPACES
from subshot.supernet.chain import ChainSpace
from subshot.supernet.chain_check import why_unsound
from subshot.supernet.network import ACTIVATIONS
from subshot.train.run_dir import file_digest

TAKES = "(input_size, classes, width, reduced_strides)"


def build_space(config: SpaceConfig, classes: int) -> ChainSpace:
    """Raises ValueError, naming file and line, where there is no such space or one's own cannot be built."""
    arguments = (config.input_size, classes, config.width, config.reduced_strides)
    own = own_file(config.name)
    if own is not None:
        return _own_space(*own, arguments)
    if config.name not in SPACES:
        known = nearest(config.name, SPACES)
        raise ValueError(f"there is no space {config.name!r}; {known} (or FILE.py:FUNCTION, a space of your own)")
    return SPACES[config.name](*arguments)


def own_file(name: str) -> tuple[Path, str] | None:
    """The file and the function in it; None for a name of SPACES."""
    file, colon, function = name.rpartition(":")
    return (Path(file), function) if colon else None


def placed(config: SpaceConfig) -> SpaceConfig:
    """With the whole path of one's own file, so that the run goes on from any folder."""
    own = own_file(config.name)
    return config if own is None else replace(config, name=f"{own[0].absolute()}:{own[1]}")


def space_fingerprint(config: SpaceConfig) -> dict[str, Any]:
    """What data.json holds besides the images: the sha256 of one's own file."""
    own = own_file(config.name)
    return {} if own is None else {"space_sha256": file_digest(own[0])}


def require_unchanged(config: SpaceConfig, data: dict[str, Any]) -> None:
    """Raises ValueError where one's own file is not the one of data.json."""
    own = own_file(config.name)
    if own is None or not own[0].is_file() or data.get("space_sha256") in (None, file_digest(own[0])):
        return
    raise ValueError(f"{own[0]} was changed since the run was begun; put it back, and give a variant another name")


def _own_space(path: Path, function: str, arguments: tuple[int, int, float, int]) -> ChainSpace:
    if not path.is_file():
        raise ValueError(f"the file {path} of the space does not exist; name one as FILE.py:FUNCTION")
    module = _told(path, lambda: _loaded(path))
    build = getattr(module, function, None)
    if not callable(build):
        functions = [
            name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
        ]
        raise ValueError(f"{path} has no function {function!r}; {nearest(function, functions)}")
    space = _told(path, lambda: build(*arguments), f"{function} is called as {function}{TAKES}: ")
    line = getattr(getattr(build, "__code__", None), "co_firstlineno", 1)
    where = f"{path}, line {line}: the space of {function}"
    if not isinstance(space, ChainSpace):
        raise ValueError(f"{where} is a {type(space).__name__}; it must be a subshot.supernet.chain.ChainSpace")
    for name, wanted in (("input_size", arguments[0]), ("classes", arguments[1])):
        if getattr(space, name) != wanted:
            raise ValueError(f"{where}: {name} is {getattr(space, name)}; take the {wanted} that {function} is given")
    if space.activation not in ACTIVATIONS:
        raise ValueError(f"{where}: activation is {space.activation!r}; {nearest(space.activation, ACTIVATIONS)}")
    wrong = why_unsound(space)
    if wrong is not None:
        raise ValueError(f"{where}: {wrong}")
    return space


def _loaded(path: Path) -> ModuleType:
    name = f"subshot_own_space_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path} is no Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _told(path: Path, work: Callable[[], Any], called: str = "") -> Any:
    """What `work` gives. Raises ValueError with the line of the file where it failed."""
    try:
        return work()
    except Exception as error:
        if isinstance(error, SyntaxError) and error.filename == str(path):
            raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        where = f"{path}, line {lines[-1]}: " if lines else f"{path}: {called}"
        raise ValueError(f"{where}{type(error).__name__}: {error}") from error
