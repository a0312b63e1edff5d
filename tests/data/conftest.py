"""The embedded digits, written once for all tests of the data folder."""

import tarfile
from pathlib import Path

import pytest

from subshot.data.digits import write_digits


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("data") / "digits")


@pytest.fixture(scope="session")
def photos(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 ImageNet photos of 100 classes at their original sizes, as train/<class>/."""
    root = tmp_path_factory.mktemp("photos")
    with tarfile.open(shared_data / "imagenet_original_res_100.tar") as archive:
        archive.extractall(root / "train", filter="data")
    return root
