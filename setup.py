"""Maps the six folders at the root to `subshot.<folder>`; the rest of the build is in pyproject.toml.

`requirements/constraints.txt` pins every name below, and all that they pull in, to versions that were tried together.
"""

from setuptools import find_packages, setup

FOLDERS = ("supernet", "search", "proxies", "data", "train", "launch")
MODULES = find_packages(include=[pattern for folder in FOLDERS for pattern in (folder, f"{folder}.*")])

# torchrec and fbgemm are missing here on purpose: torchrec asks for the name `fbgemm-gpu`, half a gigabyte of CUDA that
# a machine without a GPU cannot use, and `fbgemm-gpu-cpu` does not answer to that name. So `make setup` installs the
# two with --no-deps on a CPU machine, and what torchrec needs besides is listed here as our own; with a GPU it takes
# the extra `cuda`.
TORCHREC_NEEDS = ["iopath", "pyre-extensions", "tensordict", "torchmetrics==1.0.3", "tqdm"]

setup(
    name="subshot",
    version="0.1.0",
    description="Neural architecture search with weight-sharing supernets, for images and click-through rates",
    python_requires=">=3.11",
    packages=[f"subshot.{module}" for module in MODULES],
    package_dir={f"subshot.{folder}": folder for folder in FOLDERS},
    entry_points={"console_scripts": ["subshot = subshot.launch.main:main"]},
    install_requires=[
        "deap==1.4.*",
        "jsonschema>=4.26",
        "matplotlib>=3.10",
        "numpy>=2.2",
        "nvidia-dali-cuda130==2.4.*; sys_platform == 'linux'",
        "onnx>=1.20",
        "onnxruntime>=1.23",
        "onnxscript>=0.7",
        "pillow>=12",
        "polars>=2",
        "pyarrow>=22",
        "safetensors>=0.7",
        "scikit-learn>=1.7",
        "scipy>=1.16",
        "tensorboard>=2.20",
        "torch==2.13.*",
        "tyro>=1.0",
        *TORCHREC_NEEDS,
    ],
    extras_require={
        "cuda": ["fbgemm-gpu==1.8.*", "torchrec==1.8.*"],
        "dev": [
            "hypothesis",
            "mypy",
            "pandas>=3",
            "pytest>=9",
            "pytest-xdist",
            "ruff",
            "selenium>=4.35",
            "setuptools>=77",
        ],
    },
)
