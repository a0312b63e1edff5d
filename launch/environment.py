"""What a run ran on: versions, processes, machine. Part of its provenance."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from subshot.train.dist import World

PACKAGES = ("torch", "numpy", "deap", "nvidia-dali-cuda130", "scipy", "safetensors")


def describe_environment(config: Any, world: World) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
        "processes": world.size,
        "device": str(world.device),
        "device_name": torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else processor_name(),
        "cpu_cores": os.cpu_count(),
        "threads_per_process": torch.get_num_threads(),
        "gradient_sum": gradient_sum(config),
    }


def gradient_sum(config: Any) -> str:
    """How the warm-up's gradients of several processes become one: whether their number can matter."""
    if not hasattr(config, "warmup"):
        return "no warm-up"
    if config.warmup.recipe.gradient_sum == "all_reduce":
        return "one flat all-reduce: equal to rounding on another number of processes"
    if getattr(getattr(config, "tables", None), "sharding", "none") == "dmp":
        return "networks in fixed order, tables by DistributedModelParallel: equal to rounding on another number"
    return "fixed order over virtual shards: the same bits on any number of processes (CPU, one thread each)"


def processor_name() -> str:
    """As the kernel names it; what Python knows where it does not."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
