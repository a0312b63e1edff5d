"""What is handed over of a retrained network for images; the folder is launch/winners/handover.py's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from subshot.data.batch import ImageBatch
from subshot.data.dali import MEAN, STD
from subshot.data.image_folder import ImageFolder
from subshot.data.imagenet import EvalLoader
from subshot.launch.config import ImageRunConfig, to_json
from subshot.launch.vision.build import ImageSpace
from subshot.launch.winners.handover import Handover
from subshot.launch.winners.provenance import provenance_of
from subshot.launch.winners.raw import RawInputs
from subshot.launch.winners.raw_pictures import pictures
from subshot.launch.winners.schema import BY_DALI
from subshot.launch.winners.space import IMAGES, architecture_of
from subshot.supernet.space import Genotype
from subshot.train.run_dir import RunDir


def image_handover(
    network: nn.Module,
    config: ImageRunConfig,
    space: ImageSpace,
    genotype: Genotype,
    classes: tuple[str, ...],
    sample: ImageBatch,
    metrics: dict[str, Any],
    run: RunDir,
) -> Handover:
    """network: on the CPU, in evaluation mode. sample: a few test images, [N, 3, H, W]."""
    network = nn.utils.convert_conv2d_weight_memory_format(network, torch.contiguous_format)
    inputs = sample.images.contiguous()
    with torch.no_grad():
        logits = network(inputs)
    size, crop_ratio = config.space.input_size, config.images.crop_ratio
    drawn = pictures(size, crop_ratio)
    return Handover(
        network=network,
        inputs={"images": inputs},
        output="logits",
        expected=logits,
        raw=RawInputs(drawn, evaluated(drawn, size, crop_ratio), BY_DALI),
        architecture=architecture_of(
            IMAGES, space, to_json(config.space) | {"classes": space.classes}, genotype, space.cost(genotype)
        ),
        preprocess={
            "size": size,
            "crop_ratio": crop_ratio,
            "interpolation": "triangular with antialiasing",
            "channels": "RGB",
            "scale": 1 / 255,
            "mean": list(MEAN),
            "std": list(STD),
        },
        labels={str(number): name for number, name in enumerate(classes)},
        metrics=metrics,
        provenance=provenance_of(run),
    )


def evaluated(drawn: Mapping[str, bytes], size: int, crop_ratio: float) -> dict[str, Tensor]:
    """What training's evaluation pipeline makes of pictures, on the CPU: their grey levels, and its value for each."""
    with TemporaryDirectory() as place:
        for name, content in drawn.items():
            (Path(place) / name).write_bytes(content)
        folder = ImageFolder(Path(place), "", ("",), tuple(drawn), (0,) * len(drawn))
        (batch,) = EvalLoader(folder, size=size, crop_ratio=crop_ratio, batch_size=len(drawn), num_threads=1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    levels = ((batch.images * std + mean) * 255).round().to(torch.uint8)
    normalised = (torch.arange(256) / 255 - mean[:, 0]) / std[:, 0]
    values = torch.stack([normalised[channel][levels[:, channel].long()] for channel in range(3)], dim=1)
    assert torch.allclose(values, batch.images, rtol=0.0, atol=1e-5), "DALI normalises as MEAN and STD say"
    return {"levels": levels, "normalised": normalised}
