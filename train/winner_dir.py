"""The only file that knows the paths inside a winner's folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RAW = "golden"
"""The folder of raw inputs, inside a winner's."""
PICTURES, LOG_LINES = ("wide.png", "tall.jpg", "deep.png"), ("rows.txt",)
"""The raw inputs' names, of images and of clicks."""


@dataclass(frozen=True)
class WinnerDir:
    """Every path of a retrained network, below `root`. The folder appears whole, by rename."""

    root: Path

    @property
    def architecture_json(self) -> Path:
        return self.root / "architecture.json"

    @property
    def network_json(self) -> Path:
        """The network as a list of calls; see launch/winners/network_program.py."""
        return self.root / "network.json"

    def weights(self, part: int = 1, parts: int = 1) -> Path:
        """model.safetensors, or, where the weights lie in several files, one of those."""
        return self.root / (f"model-{part:05d}-of-{parts:05d}.safetensors" if parts > 1 else "model.safetensors")

    @property
    def preprocess_json(self) -> Path:
        return self.root / "preprocess.json"

    @property
    def vocabulary_json(self) -> Path:
        """Of a CTR network whose categories have vocabularies: the values of each field, in the order of their ids."""
        return self.root / "vocabulary.json"

    @property
    def labels_json(self) -> Path:
        return self.root / "labels.json"

    @property
    def metrics_json(self) -> Path:
        return self.root / "metrics.json"

    @property
    def latency_json(self) -> Path:
        return self.root / "latency.json"

    @property
    def onnx(self) -> Path:
        return self.root / "model.onnx"

    @property
    def pt2(self) -> Path:
        """torch.export's program."""
        return self.root / "model.pt2"

    @property
    def golden(self) -> Path:
        """A few inputs and the outputs for them, by the names that model.onnx gives them."""
        return self.root / "golden.npz"

    def raw(self, name: str) -> Path:
        """A raw input, by which the preprocessing is checked."""
        return self.root / RAW / name

    @property
    def raw_json(self) -> Path:
        """Which raw inputs there are, and what computed the values that are expected of them."""
        return self.raw("raw.json")

    @property
    def raw_expected(self) -> Path:
        """What preprocessing must make of the raw inputs."""
        return self.raw("expected.safetensors")

    @property
    def provenance_json(self) -> Path:
        return self.root / "provenance.json"

    @property
    def model_card(self) -> Path:
        return self.root / "MODEL_CARD.md"

    @property
    def load_py(self) -> Path:
        return self.root / "load.py"

    @property
    def preprocess_py(self) -> Path:
        return self.root / "preprocess.py"

    @property
    def checksums(self) -> Path:
        """As sha256sum writes and checks them."""
        return self.root / "SHA256SUMS"
