"""The folder that a retrained network is handed over in, and the check that its ONNX program computes what torch
computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from subshot.data.batch import ImageBatch
from subshot.launch.config import ImageRunConfig, to_json
from subshot.launch.onnx_export import MAX_DIFFERENCE, SCHEMA_VERSION, quiet_exporter
from subshot.launch.vision import ImageSpace
from subshot.supernet.space import Genotype, describe, named_choices
from subshot.train.run_dir import WinnerDir, replacing, write_json

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def write_winner(
    folder: WinnerDir,
    network: nn.Module,
    config: ImageRunConfig,
    space: ImageSpace,
    genotype: Genotype,
    classes: tuple[str, ...],
    sample: ImageBatch,
    metrics: dict[str, Any],
) -> None:
    """Writes everything, reads the weights back, and writes metrics.json last: a folder that has it is whole.

    network: on the CPU, in evaluation mode. sample: a few test images, [N, 3, H, W]; with their logits they become
    golden.npz.
    Raises RuntimeError where weights or ONNX do not give the network's outputs to 1e-3.
    """
    cost = space.cost(genotype)
    write_json(
        folder.architecture_json,
        {
            "schema_version": SCHEMA_VERSION,
            "space": to_json(config.space) | {"classes": space.classes},
            "choices": named_choices(space, genotype),
            "genotype": list(genotype),
            "words": describe(space, genotype),
            "costs": {"macs": cost.macs, "params": cost.params, "activation_elements": cost.activation_elements},
        },
    )
    write_json(
        folder.preprocess_json,
        {
            "size": config.space.input_size,
            "crop_ratio": config.images.crop_ratio,
            "interpolation": "triangular with antialiasing",
            "channels": "RGB",
            "scale": 1 / 255,
            "mean": MEAN,
            "std": STD,
        },
    )
    write_json(folder.labels_json, dict(enumerate(classes)))
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    with replacing(folder.weights) as temporary:
        save_file(weights, temporary)
    saved = load_file(folder.weights)
    if any(not torch.equal(saved[name], value) for name, value in weights.items()):
        raise RuntimeError(f"{folder.weights} does not read back as it was written")
    inputs = sample.images.contiguous()
    with torch.no_grad():
        outputs = network(inputs)
    with replacing(folder.golden) as temporary:
        with temporary.open("wb") as file:
            np.savez(file, inputs=inputs.numpy(), outputs=outputs.numpy())
    difference = export_onnx(network, inputs, folder)
    write_json(folder.metrics_json, metrics | {"onnx_max_abs_difference": difference})


def export_onnx(network: nn.Module, inputs: torch.Tensor, folder: WinnerDir) -> float:
    """Writes model.onnx with a dynamic batch; returns the largest difference of onnxruntime's outputs from torch's.

    The check runs on all of `inputs` and on the first image alone, so that the batch is seen to be dynamic.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    with quiet_exporter():
        program = torch.onnx.export(
            network,
            (inputs,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=["logits"],
        )
    assert program is not None
    with replacing(folder.onnx) as temporary:
        program.save(str(temporary), external_data=False)
    session = onnxruntime.InferenceSession(str(folder.onnx), providers=["CPUExecutionProvider"])
    largest = 0.0
    for images in (inputs, inputs[:1]):
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            largest = max(largest, float((torch.from_numpy(logits) - network(images)).abs().max()))
    if not largest <= MAX_DIFFERENCE:
        raise RuntimeError(
            f"{folder.onnx} gives outputs that differ from torch's by {largest:.2g}; allowed: {MAX_DIFFERENCE}"
        )
    return largest
