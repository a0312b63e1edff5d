"""The small network with exact reference values, and one for clicks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from subshot.proxies.base import Batch, Probe


class Residual(nn.Module):
    """Convolutions with and without stride, an identity shortcut, a depthwise and a pointwise one, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        for name, conv in (
            ("conv1 bn1 relu1", nn.Conv2d(3, 8, 3, padding=1, bias=False)),
            ("conv2 bn2 relu2", nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)),
            ("res_conv1 res_bn1 res_relu1", nn.Conv2d(16, 16, 3, padding=1, bias=False)),
            ("res_conv2 res_bn2 res_relu2", nn.Conv2d(16, 16, 3, padding=1, bias=False)),
            ("dw_conv dw_bn dw_relu", nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False)),
            ("pw_conv pw_bn pw_relu", nn.Conv2d(16, 24, 1, bias=False)),
        ):
            conv_name, bn_name, relu_name = name.split()
            self.add_module(conv_name, conv)
            self.add_module(bn_name, nn.BatchNorm2d(conv.out_channels))
            self.add_module(relu_name, nn.ReLU())
        self.fc = nn.Linear(24, 10)

    def unit(self, x: Tensor, prefix: str, number: str = "") -> Tensor:
        conv, bn, relu = (self.get_submodule(f"{prefix}{kind}{number}") for kind in ("conv", "bn", "relu"))
        out: Tensor = relu(bn(conv(x)))
        return out

    def forward(self, x: Tensor) -> Tensor:
        x = self.unit(self.unit(x, "", "1"), "", "2")
        inner = self.unit(x, "res_", "1")
        inner = self.get_submodule("res_bn2")(self.get_submodule("res_conv2")(inner))
        x = self.get_submodule("res_relu2")(x + inner)
        x = self.unit(self.unit(x, "dw_"), "pw_")
        out: Tensor = self.fc(x.mean(dim=(2, 3)))
        return out


class ClickNet(nn.Module):
    """(dense [N, 3], embedded [N, 2, 4]) to logits [N], in two layers; a third is built and never used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.unused = nn.Linear(11, 5), nn.Linear(5, 1), nn.Linear(5, 5)

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        dense, embedded = inputs
        hidden = F.relu(self.first(torch.cat((dense, embedded.flatten(1)), dim=1)))
        logits: Tensor = self.last(hidden).squeeze(1)
        return logits


@pytest.fixture
def click_net() -> ClickNet:
    torch.manual_seed(3)
    return ClickNet()


@pytest.fixture
def click_probe() -> Probe:
    """Four batches of 16 clicks for a `ClickNet`."""
    generator = torch.Generator().manual_seed(4)
    batches = tuple(
        (
            (torch.randn(16, 3, generator=generator), torch.randn(16, 2, 4, generator=generator)),
            torch.randint(2, (16,), generator=generator).float(),
        )
        for _ in range(4)
    )
    return Probe(batches, loss=F.binary_cross_entropy_with_logits)


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Path:
    folder = shared_data.parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"the folder of reference values {folder} is missing")
    return folder


@pytest.fixture(scope="session")
def golden_values(golden: Path) -> dict[str, Any]:
    """Reference values by id: what public code or the published formula gives for the golden network and batches."""
    values: dict[str, Any] = json.loads((golden / "values.json").read_text())["values"]
    return values


@pytest.fixture
def golden_model(golden: Path) -> Residual:
    """In float64, with the stored weights."""
    model = Residual()
    with np.load(golden / "residual.npz", allow_pickle=False) as arrays:
        state = {name[6:]: torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("param/")}
    model.load_state_dict(state)
    return model.double()


@pytest.fixture(scope="session")
def golden_batches(golden: Path) -> list[Batch]:
    """Four batches of 32 images, 3 x 16 x 16, in float64."""
    with np.load(golden / "residual.npz", allow_pickle=False) as arrays:
        images, labels = torch.from_numpy(arrays["x"]).double(), torch.from_numpy(arrays["y"])
    return list(zip(images, labels, strict=True))


@pytest.fixture
def golden_signs(golden: Path) -> list[Tensor]:
    """The +-1 cotangents of AZ-NAS at the four features after the first, for batches of 32."""
    shapes = ((16, 8, 8), (16, 8, 8), (16, 8, 8), (24, 8, 8))
    with np.load(golden / "residual.npz", allow_pickle=False) as arrays:
        bits = [np.unpackbits(arrays[f"aznas_sign_bits/{number}"]) for number in range(1, 5)]
    return [
        torch.from_numpy(b[: 32 * int(np.prod(shape))].reshape(32, *shape)).double() * 2 - 1
        for b, shape in zip(bits, shapes, strict=True)
    ]
