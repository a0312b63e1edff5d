"""Checks the machine that subshot is to run on, and says for each thing that is wrong how to mend it.

    python launch/doctor.py [RUN_DIR]

Each finding is one line: `ok` with what was found, `warn` with what may hurt, or `FAIL`; the last two end in ` -> ` and
the mend. Exit status: 0 when nothing failed, 1 when something did, 2 when RUN_DIR cannot be used.

Only the standard library is imported before the checks begin, so that a broken installation can be examined too.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

MODULES = {
    "deap": "deap",
    "iopath": "iopath",
    "jsonschema": "jsonschema",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "onnxscript": "onnxscript",
    "PIL": "pillow",
    "polars": "polars",
    "pyarrow": "pyarrow",
    "pyre_extensions": "pyre-extensions",
    "safetensors": "safetensors",
    "sklearn": "scikit-learn",
    "scipy": "scipy",
    "tensorboard": "tensorboard",
    "tensordict": "tensordict",
    "torchmetrics": "torchmetrics",
    "tqdm": "tqdm",
    "tyro": "tyro",
}
"""Import name and distribution of what subshot needs besides torch, torchrec, fbgemm and DALI, checked on their own."""

SETUP = "run: make setup"
FRESH_SETUP = "run: make distclean setup"
CUDA_SETUP = "run: make setup DEVICE=cuda"
GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    level: Literal["ok", "warn", "FAIL"]
    text: str
    mend: str = ""

    def __str__(self) -> str:
        mend = f" -> {self.mend}" if self.mend else ""
        return f"{self.level:<4} {self.text}{mend}"


def version_of(distribution: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def why_not_importable(module: str) -> str | None:
    """Imports the module; the first line of what went wrong, or None.

    A library that was built for another torch fails with whatever its loader raises, so nothing narrower is caught.
    """
    try:
        importlib.import_module(module)
    except Exception as error:  # reported, not hidden
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def why_mismatched(torch: str, fbgemm: str, torchrec: str) -> str | None:
    """What is wrong with three versions, or None: fbgemm 1.X needs torch 2.(X+5), and torchrec 1.X needs fbgemm 1.X."""
    torch_minor, fbgemm_minor, torchrec_minor = (tuple(map(int, v.split(".")[:2])) for v in (torch, fbgemm, torchrec))
    needed = (2, fbgemm_minor[1] + 5)
    if fbgemm_minor[0] != 1 or torch_minor != needed:
        return f"fbgemm {fbgemm} needs torch {needed[0]}.{needed[1]}, and torch is {torch}"
    if torchrec_minor != fbgemm_minor:
        return f"torchrec {torchrec} needs fbgemm {torchrec_minor[0]}.{torchrec_minor[1]}, and fbgemm is {fbgemm}"
    return None


def check_python() -> Iterator[Finding]:
    """This Python, and subshot installed in it."""
    yield Finding("ok", f"Python {'.'.join(map(str, sys.version_info[:3]))} at {sys.executable}")
    subshot = version_of("subshot")
    if subshot is None:
        yield Finding("FAIL", "subshot is not installed for this Python", f"{SETUP}, then use .venv/bin/python")
    else:
        yield Finding("ok", f"subshot {subshot}")


def check_triple() -> Iterator[Finding]:
    """torch, fbgemm and torchrec: present, made for each other, importable."""
    builds = {name: v for name in ("fbgemm-gpu", "fbgemm-gpu-cpu") if (v := version_of(name)) is not None}
    if len(builds) == 2:
        yield Finding("FAIL", "fbgemm-gpu and fbgemm-gpu-cpu are both installed and share one folder", FRESH_SETUP)
    versions = {"torch": version_of("torch"), "torchrec": version_of("torchrec"), **builds}
    missing = [name for name, version in versions.items() if version is None] + ([] if builds else ["fbgemm"])
    if missing:
        yield Finding("FAIL", f"missing: {', '.join(missing)}", SETUP)
    else:
        named = ", ".join(f"{name} {version}" for name, version in versions.items())
        trouble = why_mismatched(str(versions["torch"]), next(iter(builds.values())), str(versions["torchrec"]))
        yield Finding("FAIL", trouble, FRESH_SETUP) if trouble else Finding("ok", f"{named} belong together")
    for module in ("torch", "fbgemm_gpu", "torchrec"):
        why = why_not_importable(module)
        yield Finding("FAIL", f"import {module}: {why}", FRESH_SETUP) if why else Finding("ok", f"import {module}")


def check_modules() -> Iterator[Finding]:
    """Everything else that subshot imports."""
    found = []
    for module, distribution in MODULES.items():
        version = version_of(distribution)
        why = "not installed" if version is None else why_not_importable(module)
        if why is None:
            found.append(f"{distribution} {version}")
        else:
            yield Finding("FAIL", f"import {module}: {why}", SETUP)
    if found:
        yield Finding("ok", f"import {', '.join(found)}")


def check_dali() -> Iterator[Finding]:
    """DALI decodes one small JPEG on the CPU."""
    version = version_of("nvidia-dali-cuda130")
    if version is None:
        yield Finding("FAIL", "nvidia-dali-cuda130 is not installed", SETUP)
        return
    try:
        height_width_channels, colour = decode_one_jpeg()
    except Exception as error:  # reported, not hidden
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        yield Finding("FAIL", f"DALI {version} does not decode a JPEG: {why}", FRESH_SETUP)
        return
    if height_width_channels == (8, 16, 3) and abs(colour - 200) < 4:
        yield Finding("ok", f"DALI {version} decodes a JPEG on the CPU")
    else:
        wrong = f"shape {height_width_channels}, red {colour:.0f} instead of (8, 16, 3), 200"
        yield Finding("FAIL", f"DALI {version} decodes a JPEG wrongly: {wrong}", FRESH_SETUP)


def decode_one_jpeg() -> tuple[tuple[int, ...], float]:
    """The shape (height, width, channels) and mean red value that DALI finds in a 16 x 8 picture of red 200."""
    import io

    import numpy as np
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (16, 8), (200, 10, 20)).save(file, "JPEG", quality=95)
    encoded = np.frombuffer(file.getvalue(), np.uint8)
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        source = fn.external_source(lambda: [encoded])
        pipeline.set_outputs(fn.decoders.image(source, device="cpu", output_type=types.RGB))
    pipeline.build()
    (images,) = pipeline.run()
    image = np.asarray(images.at(0))
    return image.shape, float(image[..., 0].mean())


def check_devices() -> Iterator[Finding]:
    """The GPUs that the driver sees against those that torch sees."""
    try:
        import torch
    except Exception:  # check_triple has said why
        return
    listed: list[str] = []
    if shutil.which("nvidia-smi") is not None:
        answer = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
        listed = [line for line in answer.stdout.splitlines() if line.startswith("GPU")]
        if answer.returncode != 0:
            yield Finding("warn", f"nvidia-smi failed with status {answer.returncode}", "repair the NVIDIA driver")
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not listed and not seen:
        yield Finding("ok", "no NVIDIA GPU; everything runs on the CPU")
    elif seen == 0:
        mend = CUDA_SETUP if torch.version.cuda is None else "update the NVIDIA driver"
        yield Finding("FAIL", f"torch {torch.__version__} sees none of {len(listed)} NVIDIA GPUs", mend)
    else:
        for index in range(seen):
            device = torch.cuda.get_device_properties(index)
            yield Finding("ok", f"GPU {index}: {device.name}, {device.total_memory / GIB:.0f} GiB")
        if version_of("fbgemm-gpu") is None:
            yield Finding("FAIL", "torch sees a GPU and the CUDA build, fbgemm-gpu, is not installed", CUDA_SETUP)


def check_threads() -> Iterator[Finding]:
    """Cores that this process may use against the threads that torch starts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        import torch
    except Exception:  # check_triple has said why
        yield Finding("ok", f"{cores} cores")
        return
    threads = torch.get_num_threads()
    if threads > cores:
        yield Finding("warn", f"torch starts {threads} threads on {cores} cores", f"set OMP_NUM_THREADS to {cores}")
    else:
        yield Finding("ok", f"{cores} cores, {threads} torch threads")


def free_memory() -> int | None:
    """Bytes that this process could still take, the limit of its control group included; None where unknown."""
    limits = []
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        limits.append(int(fields["MemAvailable"].split()[0]) * 1024)
    group = Path("/sys/fs/cgroup")
    if (group / "memory.max").exists() and (most := (group / "memory.max").read_text().strip()) != "max":
        limits.append(int(most) - int((group / "memory.current").read_text()))
    return min(limits, default=None)


def check_memory() -> Iterator[Finding]:
    """Free memory: the demo takes about 2 GiB, a search on ImageNet 8 GiB a process."""
    free = free_memory()
    if free is None:
        yield Finding("warn", "free memory is unknown on this system", "make sure that 8 GiB are free")
    elif free < 2 * GIB:
        yield Finding("FAIL", f"{free / GIB:.1f} GiB of memory free", "free at least 2 GiB")
    elif free < 8 * GIB:
        yield Finding("warn", f"{free / GIB:.1f} GiB of memory free", "8 GiB are needed for each process on ImageNet")
    else:
        yield Finding("ok", f"{free / GIB:.1f} GiB of memory free")


def check_run_folder(folder: Path) -> Iterator[Finding]:
    """Free disk, and the write, fsync and rename that keep a run's files whole, in an existing folder."""
    free = shutil.disk_usage(folder).free
    text = f"{free / GIB:.1f} GiB of disk free in {folder}"
    if free < GIB:
        yield Finding("FAIL", text, "free at least 1 GiB, or name a run folder on another disk")
    elif free < 20 * GIB:
        yield Finding("warn", text, "a search with checkpoints on ImageNet wants 20 GiB")
    else:
        yield Finding("ok", text)
    try:
        milliseconds = replace_once(folder)
    except OSError as error:
        yield Finding("FAIL", f"fsync and rename in {folder}: {error}", "name a run folder on another file system")
        return
    text = f"write, fsync and rename take {milliseconds:.0f} ms in {folder}"
    if milliseconds > 1000:
        yield Finding("warn", text, "checkpoints will be slow; name a run folder on a local disk")
    else:
        yield Finding("ok", text)


def replace_once(folder: Path) -> float:
    """Replaces a file by another as a run's checkpoint is replaced, and reads it back; milliseconds."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=folder) as scratch:
        target, temporary = Path(scratch, "state.json"), Path(scratch, "state.json.tmp")
        target.write_text("old")
        start = time.perf_counter()
        with temporary.open("w") as file:
            file.write("new")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        directory = os.open(scratch, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
        seconds = time.perf_counter() - start
        if target.read_text() != "new" or temporary.exists():
            raise OSError("the renamed file is not what was written")
    return seconds * 1000


def existing_folder(run_dir: Path) -> Path:
    """The run folder, or the nearest folder above it that exists: the run folder would be made there.

    Raises ValueError where no run folder can be made.
    """
    folder = run_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise ValueError(f"RUN_DIR {run_dir}: {folder} is a file; name a folder.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = f"{folder} cannot be written to ({error.strerror})"
        raise ValueError(f"RUN_DIR {run_dir}: {reason}; name a folder that you may write to.") from None
    return folder


def main(arguments: list[str] | None = None) -> int:
    """Prints the report; the exit status."""
    parser = argparse.ArgumentParser(description="Check this machine; each finding is one line with its mend.")
    where = "the run folder, which need not exist yet (default: runs)"
    parser.add_argument("run_dir", metavar="RUN_DIR", nargs="?", type=Path, default=Path("runs"), help=where)
    options = parser.parse_args(arguments)
    try:
        folder = existing_folder(options.run_dir)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_python,
        check_triple,
        check_dali,
        check_modules,
        check_devices,
        check_threads,
        check_memory,
        lambda: check_run_folder(folder),
    )
    failures = 0
    for check in checks:
        for finding in check():
            print(finding, flush=True)
            failures += finding.level == "FAIL"
    print(f"{failures} failed" if failures else "the machine is ready")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:  # piped into a command that stops reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
