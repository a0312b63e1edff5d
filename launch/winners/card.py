"""MODEL_CARD.md: what a winner's other files say, in words, for who finds the folder."""

from __future__ import annotations

from typing import Any

from subshot.launch.winners.space import IMAGES
from subshot.supernet.cost import activation_mib


def model_card(
    architecture: dict[str, Any],
    preprocess: dict[str, Any],
    metrics: dict[str, Any],
    latency: list[dict[str, Any]],
    provenance: dict[str, Any],
) -> str:
    """Everything in it comes from the arguments, which are the folder's other files."""
    images = architecture["task"] == IMAGES
    costs = architecture["costs"]
    of_one = "image" if images else "row"
    lines = [
        f"# {architecture['task'].capitalize()}: {architecture['space']['name']} {architecture['hash']}",
        "",
        f"Found by architecture search with subshot {provenance['subshot']} (run `{provenance['run']}`) and trained "
        "from scratch.",
        "",
        "## Use",
        "",
        "    python load.py predict FILE...",
        "",
        "needs torch and safetensors" + (", and Pillow to read images" if images else "") + ". In Python: "
        '`from load import load; network = load("this/folder")`. `model.onnx` runs in onnxruntime and has a dynamic '
        "batch; `model.pt2` is the same for `torch.export.load`, which can run code: load only one that you have "
        "exported yourself. "
        "`sha256sum -c SHA256SUMS` tells whether anything was changed; `launch/verify.py` of subshot also preprocesses "
        "the raw inputs in `golden/` and runs the network.",
        "",
        "## Network",
        "",
        f"{architecture['words']}",
        "",
        f"- {costs['macs']:,} MACs of one {of_one} (FLOPs are twice that), {costs['params']:,} parameters"
        + ("" if images else " without tables")
        + f", {activation_mib(costs['activation_elements']):.3g} MiB of activations in float32",
        f"- input: {_input(preprocess, images)}",
        "",
        "## Measured",
        "",
        *_measured(metrics, images),
        *_latency_lines(latency),
        f"- outputs of onnxruntime differ from torch's by at most {metrics['onnx_max_abs_difference']:.2g}",
        "",
        "## Limits",
        "",
        *_limits(images, preprocess),
        "",
        "## Made by",
        "",
        *[f"    {command}" for command in provenance["commands"]],
        "",
        f"Commit {provenance['git_commit'] or 'unknown'}; configuration, data fingerprint, versions and machine are in "
        "provenance.json.",
    ]
    return "\n".join(lines) + "\n"


def _input(preprocess: dict[str, Any], images: bool) -> str:
    if images:
        return f"RGB, {preprocess['size']} x {preprocess['size']} pixels, normalised as preprocess.json says"
    return (
        f"{len(preprocess['dense'])} dense values and {len(preprocess['categories'])} categories of a line of "
        f"{preprocess['dataset']}, read by the protocol {preprocess['protocol']} as preprocess.json says"
    )


def _measured(metrics: dict[str, Any], images: bool) -> list[str]:
    score = metrics["search/score"]
    seen = [f"- score that the search saw: {score:.6g}"] if score is not None else []
    if images:
        low, high = metrics["test/interval_95"]
        accuracy = f"{100 * metrics['test/accuracy']:.2f} % (95 % interval {100 * low:.2f} to {100 * high:.2f})"
        return [f"- accuracy on {metrics['test/n']:,} untouched test images: {accuracy}, one training", *seen]
    lines = []
    chosen = metrics.get("val/log_loss")
    if chosen is not None:
        lines.append(
            f"- log loss on the validation split, by which it was chosen: {chosen['value']:.5f} (95 % interval "
            f"{chosen['low']:.5f} to {chosen['high']:.5f})"
        )
    for name, title in (("log_loss", "log loss"), ("auc", "AUC"), ("ece", "expected calibration error")):
        found = metrics.get(f"test/{name}")
        if found is not None:
            lines.append(
                f"- {title} on the {metrics['test/n']:,} rows of the test split: {found['value']:.5f} (95 % interval "
                f"{found['low']:.5f} to {found['high']:.5f}), one training"
            )
    return [*lines, *seen]


def _latency_lines(latency: list[dict[str, Any]]) -> list[str]:
    return [
        f"- {row['runtime']} {row['version']}, batch {row['batch']}, {row['threads']} thread on {row['device']}: "
        f"p50 {row['p50_ms']:.3g} ms, p95 {row['p95_ms']:.3g} ms ({row['n']} calls)"
        for row in latency
    ]


def _limits(images: bool, preprocess: dict[str, Any]) -> list[str]:
    lines = ["- One training of one network: another seed gives other weights and another accuracy."]
    if images:
        lines.append("- It knows the classes of labels.json and gives one of them for any picture, whatever is on it.")
    else:
        lines.append("- Probabilities are calibrated to the log that it was trained on, and age with it.")
        if preprocess["synthetic"]:
            lines.append("- The log was made up: no person clicked, and the network is of no use outside a test.")
    lines.append("- Whether the score of the search ranks networks at all is in the run's report, not here.")
    return lines
