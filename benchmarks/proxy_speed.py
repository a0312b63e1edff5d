"""What each proxy costs: multiples of one plain forward and backward pass, measured side by side in one run.

    python benchmarks/proxy_speed.py [--batch-size 64] [--repeats 5] [--threads 2] [--only NAME ...]
    python benchmarks/proxy_speed.py --memory [--only NAME ...]
    python benchmarks/proxy_speed.py --quick

Three networks of NAS-Bench-201: A1 all 3x3 convolutions, A2 mixed, A3 pooling and 1x1. The plain pass: cross entropy,
train mode, torch's default layout, gradients of all weights, the same batch. It is taken before and after every call of
a proxy; a ratio is the proxy's wall time over the mean of the two, and the median of the ratios is printed, with their
range, beside what the public code took (measured the same way) and the limit. ntk_condition is called once, being long.

--memory: peak memory above that of the process with libraries, network and batches, in a fresh process each, as a
multiple of the plain pass's. --only: rows by the names that the tables print, or by the part before the colon; any
name in PROXIES too. --quick: batches of 8 and one repeat, only to see that everything runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies import PROXIES, Proxy, ProxyUndefined, measure
from subshot.supernet.nasbench201 import NasBench201Space, from_string

Batches = list[tuple[Tensor, Tensor]]

NETWORKS = {
    "A1": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "A2": "|nor_conv_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|",
    "A3": "|avg_pool_3x3~0|+|nor_conv_1x1~0|nor_conv_1x1~1|+|skip_connect~0|avg_pool_3x3~1|nor_conv_1x1~2|",
}
NUM_BATCHES = 4

VARIANTS = frozenset(
    {
        "grad_norm_global",
        "fisher_channel_sum",
        "sigeo_zico",
        "sigeo_fr",
        "sigeo_loss",
        "grad_angle",
        "vkdnw_single",
        "vkdnw_code",
        "vkdnw_single_code",
        "ntk_condition_eval",
        "log_synflow",
        "synflow_freerea",
        "synflow_bn",
        "synflow_zennas",
        "zen_zennas",
        "az_trainability_nasbench201",
    }
)
"""Terms and other versions of a proxy that is in the list under another name."""
DISTINCT = tuple(name for name in PROXIES if name not in VARIANTS)
"""The list: what "all" measures in one call."""

AZ_NAS = ("az_expressivity", "az_progressivity", "az_trainability")
BY_SAMPLE = ("gradsign", "gradalign1", "gradalign2")
BY_BATCH = ("zico", "sigeo")

LIMITS = {
    **dict.fromkeys(("grad_norm", "snip", "plain", "fisher", "jacob_cov", "epe_nas"), 1.1),
    "synflow": 0.3,
    "naswot": 0.6,
    "zen": 0.75,
    "az_nas": 1.0,
    **dict.fromkeys((f"{name}, each batch" for name in BY_BATCH), 1.0),
    "grasp": 3.2,
    **dict.fromkeys((f"{name}:{mode}" for name in BY_SAMPLE for mode in ("single", "eval")), 1.8),
    "vkdnw": 3.5,
    "ntk_condition": 20.0,
    "ntk_condition_eval": 2.0,
    "all": 25.0,
}
MEMORY_LIMIT = 3.0
PUBLIC = {
    **dict.fromkeys(("grad_norm", "snip", "plain", "jacob_cov"), ("1.3-1.4", "1.6-1.7", "1.8-1.9")),
    "forward": ("0.45-0.5", "0.45-0.5", "0.45-0.5"),
    "fisher": ("1.4", "1.8", "2.1"),
    "grasp": ("4.8", "5.1", "4.5"),
    "synflow": ("0.5", "0.8", "0.9"),
    "naswot": ("2.1 / 1.3 / 1.0", "2.3 / 1.4 / 1.2", "1.7 / 1.2 / 0.8"),
    "zen": ("0.8", "0.8", "1.0"),
    "az_nas": ("1.0", "1.2", "1.5"),
    "epe_nas": ("1.0", "0.9", "1.0"),
    "zico": ("2.0", "2.0", "1.8"),
    "sigeo": ("4.3", "3.9", "4.1"),
    "linear_regions": ("1.2", "1.6", "0.8"),
    **dict.fromkeys(("gradsign:single", "gradsign:eval"), ("10.9", "11.6", "5.8")),
    **dict.fromkeys(
        ("gradalign1:single", "gradalign1:eval", "gradalign2:single", "gradalign2:eval"), ("10.0", "10.6", "5.6")
    ),
    "vkdnw": ("13.5", "15.5", "9.8"),
    "ntk_condition": ("38.5", "31.7", "34.3"),
}
"""Multiples of a plain pass on A1, A2 and A3 that the public code took: batch 64, two threads, another machine. naswot:
its authors' code, Zen-NAS's copy, NASLib's. gradsign and gradalign: a sample at a time."""

PLAIN = "plain_pass"
LONG = frozenset({"ntk_condition"})
"""Called once."""
IN_MEMORY_TABLE = ("gradsign:single", "vkdnw", "grasp", "ntk_condition", "all")


@dataclass(frozen=True)
class Arguments:
    batch_size: int = 64
    repeats: int = 5
    threads: int = 2
    only: tuple[str, ...] = ()
    memory: bool = False
    quick: bool = False
    memory_of: tuple[str, str] | None = None
    """Used by the benchmark itself: a network and a row; prints the extra peak memory of this process in MiB."""


@dataclass(frozen=True)
class Row:
    """What is measured by one call. proxies: none for the passes that stand beside them."""

    name: str
    proxies: tuple[Proxy, ...] = ()


@dataclass(frozen=True)
class Ratios:
    """values: of each repeat, the call's time over that of the plain passes around it. plain: seconds of those.
    undefined: the proxies that had no score."""

    values: tuple[float, ...]
    plain: tuple[float, ...]
    undefined: tuple[str, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def all_rows() -> dict[str, Row]:
    """By name, in the order of the table."""
    rows = [Row("forward"), Row("channels_last")]
    for name in DISTINCT:
        if name in BY_SAMPLE:
            rows += [Row(f"{name}:{mode}", (in_mode(name, mode),)) for mode in ("single", "eval")]
        else:
            rows.append(Row(name, (PROXIES[name],)))
        if name == AZ_NAS[-1]:
            rows.append(Row("az_nas", tuple(PROXIES[part] for part in AZ_NAS)))
        if name == "ntk_condition":
            rows.append(Row("ntk_condition_eval", (PROXIES["ntk_condition_eval"],)))
    rows.append(Row("all", tuple(PROXIES[name] for name in DISTINCT)))
    return {row.name: row for row in rows}


def in_mode(name: str, mode: str) -> Proxy:
    """Equal to the proxy in the table where this is its own mode of BatchNorm."""
    proxy = PROXIES[name]
    return replace(proxy, setting=replace(proxy.setting, batch_norm=mode))


def selected(rows: Mapping[str, Row], only: Sequence[str]) -> list[Row]:
    """Raises SystemExit for a name that is neither a row's nor a proxy's."""
    if not only:
        return list(rows.values())
    chosen: dict[str, Row] = {}
    for name in only:
        found = {row.name: row for row in rows.values() if name in (row.name, row.name.partition(":")[0])}
        if not found and name in PROXIES:
            found = {name: Row(name, (PROXIES[name],))}
        if not found:
            raise SystemExit(f"--only {name}: no such row; there are {', '.join(dict.fromkeys((*rows, *PROXIES)))}")
        chosen.update(found)
    return list(chosen.values())


def built(network: str, batch_size: int) -> tuple[nn.Module, Batches]:
    torch.manual_seed(0)
    model = NasBench201Space().build(from_string(NETWORKS[network]))
    generator = torch.Generator().manual_seed(1)
    batches = [
        (
            torch.randn(batch_size, 3, 32, 32, generator=generator),
            torch.randint(10, (batch_size,), generator=generator),
        )
        for _ in range(NUM_BATCHES)
    ]
    return model, batches


def plain_pass(model: nn.Module, images: Tensor, targets: Tensor) -> None:
    torch.autograd.grad(F.cross_entropy(model(images), targets), list(model.parameters()), allow_unused=True)


def call_of(row: Row, model: nn.Module, batches: Batches) -> Callable[[], list[str]]:
    """What is timed; returns the names of the proxies that were undefined."""
    images, targets = batches[0]
    channels_last = images.contiguous(memory_format=torch.channels_last)

    def forward() -> list[str]:
        with torch.no_grad():
            model(images)
        return []

    def plain() -> list[str]:
        plain_pass(model, channels_last if row.name == "channels_last" else images, targets)
        return []

    def proxies() -> list[str]:
        scores = measure(model, row.proxies, batches)
        return [name for name, score in scores.items() if isinstance(score, ProxyUndefined)]

    if row.proxies:
        return proxies
    return forward if row.name == "forward" else plain


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def interleaved(row: Row, model: nn.Module, batches: Batches, repeats: int) -> Ratios:
    """Plain, proxy, plain, proxy, ..., plain, after a warm-up of both, or of the first alone before one repeat."""
    call, plain = call_of(row, model, batches), call_of(Row(PLAIN), model, batches)
    plain()
    repeats = 1 if row.name in LONG else repeats
    undefined = call() if repeats > 1 else []
    plains, values = [seconds(plain)], []
    for _ in range(repeats):
        began = time.perf_counter()
        undefined = call()
        taken = time.perf_counter() - began
        plains.append(seconds(plain))
        values.append(taken / statistics.mean(plains[-2:]))
    return Ratios(tuple(values), tuple(plains), tuple(undefined))


def line(name: str, network: str, ratios: Ratios, parts: int = 1) -> str:
    """A row of the table; parts: into how many the time is divided."""
    limit = LIMITS.get(name)
    values = [value / parts for value in (ratios.median, min(ratios.values), max(ratios.values))]
    public = PUBLIC[name][list(NETWORKS).index(network)] if name in PUBLIC else "-"
    remarks = ["MISSED"] if limit is not None and values[0] > limit else []
    remarks += [f"undefined: {', '.join(ratios.undefined)}"] if ratios.undefined else []
    middle = f"{values[0]:.2f} | {values[1]:.2f} to {values[2]:.2f}"
    return f"| {name} | {middle} | {public} | {'-' if limit is None else f'{limit:g}'} | {'; '.join(remarks)} |"


def lines_of(network: str, rows: Sequence[Row], arguments: Arguments) -> Iterator[str]:
    """The table of a network, each line as soon as it is known, and the plain pass below."""
    model, batches = built(network, arguments.batch_size)
    yield f"\n### {network}: {NETWORKS[network].replace('|', chr(92) + '|')}\n"
    yield "| proxy | plain passes | range | public code | limit | |\n|---|---|---|---|---|---|"
    single: dict[str, float] = {}
    plains: list[float] = []
    for row in rows:
        ratios = interleaved(row, model, batches, arguments.repeats)
        plains += ratios.plain
        if len(row.proxies) == 1 and row.proxies[0] == PROXIES[row.proxies[0].name]:
            single[row.proxies[0].name] = ratios.median
        yield line(row.name, network, ratios)
        if row.name in BY_BATCH:
            yield line(f"{row.name}, each batch", network, ratios, parts=row.proxies[0].num_batches)
        if row.name == "all" and set(DISTINCT) <= set(single):
            yield f"| sum of the single ones of all | {sum(single[name] for name in DISTINCT):.2f} | | - | - | |"
    yield f"\nPlain pass: median {1e3 * statistics.median(plains):.0f} ms, of {len(plains)}."


def memory_lines(network: str, rows: Sequence[Row], arguments: Arguments) -> Iterator[str]:
    plain = peak_of_child(network, PLAIN, arguments)
    yield f"| {network} | {PLAIN} | {plain:.0f} | 1.00 | - | |"
    for row in rows:
        peak = peak_of_child(network, row.name, arguments)
        missed = "MISSED" if peak > MEMORY_LIMIT * plain else ""
        yield f"| {network} | {row.name} | {peak:.0f} | {peak / plain:.2f} | {MEMORY_LIMIT:g} | {missed} |"


def peak_of_child(network: str, name: str, arguments: Arguments) -> float:
    """In MiB."""
    settings = ["--batch-size", str(arguments.batch_size), "--threads", str(arguments.threads)]
    command = [sys.executable, __file__, "--memory-of", network, name, *settings]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed memory leaves the process at once
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return float(done.stdout)


def extra_peak_mib(network: str, row: Row, batch_size: int) -> float:
    """Peak memory of this process in the call, less what it holds before: libraries, network, batches."""
    model, batches = built(network, batch_size)
    call_of(row, model, [(images[:2], targets[:2]) for images, targets in batches])()  # loads what torch loads late
    call = call_of(row, model, batches)
    before = status_mib("VmRSS")
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    except OSError:
        pass  # then it is that of the imports, where the call stays below it
    call()
    return status_mib("VmHWM") - before  # getrusage's peak would be that of the process which started this


def status_mib(field: str) -> float:
    return float(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 2**10


def cpu_name() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text().splitlines() if found.exists() else []
    names = [text.partition(":")[2].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown CPU"


def main() -> None:
    arguments = tyro.cli(Arguments, description=__doc__)
    if arguments.quick:
        arguments = replace(arguments, batch_size=8, repeats=1)
    torch.set_num_threads(arguments.threads)
    rows = all_rows()
    if arguments.memory_of is not None:
        network, name = arguments.memory_of
        row = Row(PLAIN) if name == PLAIN else selected(rows, [name])[0]
        print(extra_peak_mib(network, row, arguments.batch_size))
        return
    chosen = selected(rows, arguments.only or (IN_MEMORY_TABLE if arguments.memory else ()))
    where = f"{arguments.threads} threads, torch {torch.__version__}, {cpu_name()}"
    print(f"Batches of {arguments.batch_size} images 3x32x32, {arguments.repeats} repeats; {where}.", flush=True)
    if arguments.memory:
        print("\n| network | proxy | peak MiB | plain passes | limit | |\n|---|---|---|---|---|---|", flush=True)
    for network in NETWORKS:
        for text in (memory_lines if arguments.memory else lines_of)(network, chosen, arguments):
            print(text, flush=True)


if __name__ == "__main__":
    main()
