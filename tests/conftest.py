"""What every test may use: commands in this process or in their own, checks of costs and gradients, the data beside the
repository, a small disk."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from subshot.data.clicks import ClickEvalLoader, open_clicks

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 200
"""How long a test waits for what a process does."""


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread() -> None:
    """Several test processes share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables, images and click logs that may lie beside the repository."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the shared data folder {folder} is missing")
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of an empty file system of 4 MiB, whose options a test may change."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def status_of() -> Callable[..., int]:
    """status_of(module, *words): the exit status of a command, given these words in this process."""

    def status(module: ModuleType, *words: str | Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [f"launch/{module.__name__.rsplit('.', 1)[-1]}.py", *map(str, words)])
            try:
                return int(module.main())
            except SystemExit as stop:
                assert isinstance(stop.code, int)
                return stop.code

    return status


@pytest.fixture
def mistake_of(status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """mistake_of(module, *words): what a command says that ends with 2, on one line and without the box around it."""

    def mistake(module: ModuleType, *words: str | Path) -> str:
        assert status_of(module, *words) == 2
        return " ".join(capsys.readouterr().err.replace("│", " ").split())

    return mistake


def command_line(program: str | Path, words: Sequence[str | Path]) -> list[str]:
    """program: the name of a command in launch/, or the path of any other."""
    path = ROOT / "launch" / f"{program}.py" if isinstance(program, str) else program
    return [str(path), *map(str, words)]


@pytest.fixture(scope="session")
def launched() -> Callable[..., subprocess.CompletedProcess[str]]:
    """launched(program, *words, folder=None, processes=1, timeout=300, **variables): what came of a command that had
    processes of its own, torchrun's where they are several, one torch thread each."""

    def launch(
        program: str | Path,
        *words: str | Path,
        folder: Path | None = None,
        processes: int = 1,
        timeout: float = 300,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        return subprocess.run(
            [sys.executable, *(torchrun if processes > 1 else []), *command_line(program, words)],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return launch


@pytest.fixture
def started() -> Iterator[Callable[..., list[subprocess.Popen[str]]]]:
    """started(program, *words, folder=None, ranks=1): the processes of a command at work, without a launcher that would
    restart, signal or outlive them. They end with the test."""
    begun: list[subprocess.Popen[str]] = []

    def start(
        program: str | Path, *words: str | Path, folder: Path | None = None, ranks: int = 1
    ) -> list[subprocess.Popen[str]]:
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(ranks)}
        for rank in range(ranks):
            joined = where | {"LOCAL_WORLD_SIZE": str(ranks), "RANK": str(rank)} if ranks > 1 else {}
            process = subprocess.Popen(
                [sys.executable, *command_line(program, words)],
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | joined,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            begun.append(process)
        return begun[-ranks:]

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """wait_for(condition, processes): until it holds; fails where it never does, or a process ends before."""

    def wait(condition: Callable[[], object], processes: Sequence[subprocess.Popen[str]]) -> None:
        end = time.monotonic() + SECONDS
        while not condition() and time.monotonic() < end:
            assert all(process.poll() is None for process in processes), [p.communicate()[1] for p in processes]
            time.sleep(0.003)
        assert condition()

    return wait


@pytest.fixture(scope="session")
def once() -> Callable[..., threading.Thread]:
    """once(condition, action): does it as soon as the condition holds, from a thread of its own, which is returned."""

    def begin(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
        def wait() -> None:
            end = time.monotonic() + SECONDS
            while not condition() and time.monotonic() < end:
                time.sleep(0.003)
            action()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread

    return begin


@pytest.fixture(scope="session")
def check_costs() -> Callable[..., None]:
    """check_costs(space, genotype, build=space.build): that the space's costs (MACs, parameters, elements put out by
    convolutions and classifier) are those of the network, which is built on the meta device."""

    def check(space: Any, genotype: Any, build: Callable[[Any], nn.Module] | None = None) -> None:
        with torch.device("meta"):
            network, image = (build or space.build)(genotype).eval(), torch.empty(1, 3, *[space.input_size] * 2)
        elements: list[int] = []
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(lambda _module, _inputs, output: elements.append(output.numel()))
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            assert network(image).shape == (1, space.classes)
        flops, params = counter.get_total_flops(), sum(parameter.numel() for parameter in network.parameters())
        assert flops % 2 == 0
        cost = space.cost(genotype)
        assert (cost.macs, cost.params, cost.activation_elements) == (flops // 2, params, sum(elements))

    return check


@pytest.fixture(scope="session")
def check_gradients() -> Callable[..., None]:
    """check_gradients(loss, parameters, gradients, atol): by differences, along a random direction of all parameters,
    which are of float64 and are moved in place."""

    def check(
        loss: Callable[[], torch.Tensor], parameters: Sequence[nn.Parameter], gradients: Sequence[Any], atol: float
    ) -> None:
        generator = torch.Generator().manual_seed(5)
        directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
        slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        ends, step = [], 1e-7
        with torch.no_grad():
            for sign in (1, -2):
                for parameter, direction in zip(parameters, directions, strict=True):
                    parameter.add_(direction, alpha=sign * step)
                ends.append(loss())
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-3, atol=atol)

    return check


@pytest.fixture(scope="session")
def require_prepared() -> Callable[..., NDArray[np.float64]]:
    """require_prepared(found, prepared, cap): the rows of all splits as the loaders give them, dense values and ids
    [N, D + F], after a check that `found` are the same in some order, to the last bit."""

    def in_order(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows[np.lexsort(rows.T[::-1])]

    def check(found: NDArray[np.float64], prepared: Path, cap: int) -> NDArray[np.float64]:
        clicks, parts = open_clicks(prepared), []
        for split in (clicks.train, clicks.val, clicks.test):
            for batch in ClickEvalLoader(split, batch_size=999, max_rows_per_table=cap):
                ids = batch.sparse.values().view(len(split.categorical_fields), -1).t().numpy()
                parts.append(np.concatenate([batch.dense.numpy().astype(np.float64), ids], axis=1))
        rows = np.concatenate(parts)
        assert np.array_equal(in_order(found), in_order(rows))
        return rows

    return check
