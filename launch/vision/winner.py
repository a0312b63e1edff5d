"""What is handed over of a retrained network for images; the folder is launch/winners/handover.py's."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from subshot.data.batch import ImageBatch
from subshot.data.dali import MEAN, STD
from subshot.launch.config import ImageRunConfig, to_json
from subshot.launch.vision.parts import ImageSpace
from subshot.launch.winners.handover import Handover
from subshot.launch.winners.provenance import provenance_of
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
    return Handover(
        network=network,
        inputs={"images": inputs},
        output="logits",
        expected=logits,
        architecture=architecture_of(
            IMAGES, space, to_json(config.space) | {"classes": space.classes}, genotype, space.cost(genotype)
        ),
        preprocess={
            "size": config.space.input_size,
            "crop_ratio": config.images.crop_ratio,
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
