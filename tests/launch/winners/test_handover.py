"""What a winner's folder gives to who has torch and safetensors alone, beside what the training pipeline gives."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import polars as pl
import pytest
import torch

from subshot.data.click_formats import Column
from subshot.data.click_parsing import _typed
from subshot.data.clicks import ClickEvalLoader, open_clicks
from subshot.data.dali import STD
from subshot.data.imagenet import EvalLoader
from subshot.launch import export
from subshot.launch.winners.check import check_winner
from subshot.launch.winners.copied import preprocess_clicks, preprocess_images
from subshot.launch.winners.copied.load import load

Made = Any  # of conftest.py
CHECKS = 11

ALONE = """
import importlib.abc, sys
class Only(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        refused = {"subshot", "torchrec", "fbgemm_gpu", "nvidia", "onnx", "onnxruntime", "polars", "pyarrow", "scipy"}
        if name.split(".")[0] in refused:
            raise ImportError(f"{name} is not to be had")
sys.meta_path.insert(0, Only())
"""


def predict(winner: Path, *files: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """load.py predict, where nothing of subshot and its other dependencies can be imported."""
    script = winner / "load.py"
    line = f"{ALONE}\nimport runpy\nsys.argv = {['load.py', 'predict', *files]!r}\n"
    line += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    return subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, input=text, timeout=120)


def test_load_py_is_short() -> None:
    """What people read before they run it."""
    for source in Path(preprocess_images.__file__).parent.glob("*.py"):
        assert len(source.read_text().splitlines()) < 150, source


def test_images_become_what_the_training_pipeline_makes_of_them(made_images: Made) -> None:
    how = json.loads((made_images.winner / "preprocess.json").read_text())
    images = made_images.images
    assert images is not None
    for size, ratio in ((how["size"], how["crop_ratio"]), (64, 0.875), (20, 1.0), (120, 0.9)):
        loader = EvalLoader(images, size=size, crop_ratio=ratio, batch_size=5)
        wanted = torch.cat([batch.images for batch in loader])
        settings = how | {"size": size, "crop_ratio": ratio}
        found = torch.stack([preprocess_images.image(images.root / path, settings) for path in images.paths])
        levels = (found - wanted).abs() * 255 * torch.tensor(STD).view(3, 1, 1)
        assert levels.max() < 1.001 and (levels > 0.5).float().mean() < 0.01


def test_predicted_labels_are_those_of_the_training_pipeline(made_images: Made) -> None:
    images = made_images.images
    assert images is not None
    files = [str(images.root / path) for path in images.paths]
    done = predict(made_images.winner, *files)
    assert done.returncode == 0, done.stderr
    network = load(made_images.winner)
    loader = EvalLoader(images, size=network_size(made_images.winner), crop_ratio=1.0, batch_size=5)
    with torch.no_grad():
        wanted = torch.cat([torch.softmax(network(batch.images), 1) for batch in loader])
    for line, file, row in zip(done.stdout.splitlines(), files, wanted, strict=True):
        name, *pairs = line.split("\t")
        assert name == file and len(pairs) == 3
        for label, value in (pair.rsplit(" ", 1) for pair in pairs):
            assert float(value) == pytest.approx(float(row[images.classes.index(label)]), abs=1e-3)
    assert len({line.split("\t")[1] for line in done.stdout.splitlines()}) > 1, "the test's network tells images apart"


def network_size(winner: Path) -> int:
    return int(json.loads((winner / "preprocess.json").read_text())["size"])


def test_raw_lines_become_the_training_pipelines_probabilities(made_clicks: Made) -> None:
    done = predict(made_clicks.winner, str(made_clicks.raw))
    assert done.returncode == 0, done.stderr
    found = np.sort(np.array([float(line) for line in done.stdout.splitlines()]))
    network = load(made_clicks.winner)
    clicks = open_clicks(made_clicks.prepared)
    wanted = []
    for split in (clicks.train, clicks.val, clicks.test):
        for batch in ClickEvalLoader(split, batch_size=500, max_rows_per_table=40):
            with torch.no_grad():
                wanted.append(network(batch.dense, batch.sparse.values().view(26, -1).t()).numpy())
    assert found == pytest.approx(np.sort(np.concatenate(wanted)), abs=1e-6)
    assert found[-1] - found[0] > 1e-3, "the test's network tells rows apart"


def test_tables_are_gathers_in_onnx(made_clicks: Made) -> None:
    """A loop or a sequence for each lookup is what other runtimes refuse."""
    graph = onnx.load(str(made_clicks.winner / "model.onnx")).graph
    operators = {node.op_type for node in graph.node}
    assert "Gather" in operators and not {name for name in operators if "Loop" in name or "Sequence" in name}
    assert {node.domain for node in graph.node} == {""}


def test_lines_come_from_a_pipe_with_or_without_their_label(made_clicks: Made) -> None:
    first = made_clicks.raw.read_text().splitlines()[:3]
    labelled = predict(made_clicks.winner, "-", text="\n".join(first))
    bare = predict(made_clicks.winner, "-", text="\n".join(line.split("\t", 1)[1] for line in first) + "\n")
    assert labelled.returncode == bare.returncode == 0
    assert labelled.stdout == bare.stdout and len(bare.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda cells: cells[:-1], "line 2: it has 39 cells, and 40 are wanted"),
        (lambda cells: [*cells[:2], "many", *cells[3:]], "line 2: field I2 is 'many', which is no integer"),
        (lambda cells: [*cells[:20], "xyz", *cells[21:]], "line 2: field C7 is 'xyz', which is no hex"),
    ],
)
def test_a_bad_line_is_named(made_clicks: Made, change: object, sentence: str) -> None:
    first, second = made_clicks.raw.read_text().splitlines()[:2]
    changed = "\t".join(change(second.split("\t")))  # type: ignore[operator]
    done = predict(made_clicks.winner, "-", text=f"{first}\n{changed}\n")
    assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


ODD_CELLS = {
    "integer": [" 5", "1_000", "٣", "99999999999999999999", "1.5"],
    "unsigned": ["-3", "18446744073709551616"],
    "hex": ["0x1f", "-1f", "123456789", "g"],
    "rounded": ["-1.5", "2e19", "inf", "1e400", "nan"],
    "hour": ["99999999", "141021", "14102199"],
    "real": ["inf", "nan", "1,5", "0x1"],
}


@pytest.mark.parametrize("kind", ODD_CELLS)
def test_cells_that_training_refuses_are_refused(kind: str) -> None:
    column = Column("a", cast(Any, kind))
    for cell in ODD_CELLS[kind]:
        assert _typed(pl.DataFrame({"a": [cell]}), (column,), "by field")["a"][0] is None, "the training data's reader"
        with pytest.raises((ValueError, OverflowError)):
            preprocess_clicks.value_of(cell, kind)


def test_logs_may_be_gzipped_and_broken_quotes_are_named(made_clicks: Made, tmp_path: Path) -> None:
    rows = made_clicks.raw.read_text().splitlines()[:3]
    (tmp_path / "rows.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    assert predict(made_clicks.winner, str(tmp_path / "rows.gz")).stdout.count("\n") == 3
    how = json.loads((made_clicks.winner / "preprocess.json").read_text()) | {"quotes": "csv"}
    (tmp_path / "preprocess.json").write_text(json.dumps(how))
    (tmp_path / "log").write_text('"a"b\t1\n')
    with pytest.raises(ValueError, match="line 1: its quotation marks do not fit together"):
        list(preprocess_clicks.read([str(tmp_path / "log")], tmp_path))


def test_every_good_line_has_its_answer(made_clicks: Made, tmp_path: Path) -> None:
    """Bad lines at the beginning, where labelled lines must still be known, in the middle and at the end of a batch."""
    rows = made_clicks.raw.read_text().splitlines()[:1500]
    changed = {
        1: rows[0].rsplit("\t", 1)[0],
        2: rows[1].replace("\t", ",", 1),
        700: "\t".join([*rows[699].split("\t")[:20], "xyz", *rows[699].split("\t")[21:]]),
        1024: "",
        1500: f"{rows[1499]}\t0",
    }
    said = {
        1: "it has 39 cells, and 40 are wanted",
        2: "it has 39 cells, and 40 are wanted",
        700: "field C7 is 'xyz', which is no hex number",
        1024: "it has 1 cells, and 40 are wanted",
        1500: "it has 41 cells, and 40 are wanted",
    }
    (tmp_path / "good").write_text("\n".join(row for n, row in enumerate(rows, 1) if n not in changed))
    (tmp_path / "bad").write_text("\n".join(changed.get(n, row) for n, row in enumerate(rows, 1)))
    good, bad = (predict(made_clicks.winner, str(tmp_path / name)) for name in ("good", "bad"))
    assert good.returncode == 0 and good.stdout.count("\n") == 1495 and not good.stderr
    assert bad.stdout == good.stdout and bad.returncode == 2
    assert bad.stderr.splitlines() == [f"error: {tmp_path / 'bad'}, line {n}: {why}" for n, why in said.items()]


def test_files_after_one_that_cannot_be_read_are_answered(made_clicks: Made, tmp_path: Path) -> None:
    rows = made_clicks.raw.read_text().splitlines()[:6]
    (tmp_path / "bare").write_text("\n".join(row.split("\t", 1)[1] for row in rows))
    (tmp_path / "good").write_text("\n".join(rows))
    (tmp_path / "whole").write_bytes("\n".join(rows).encode() + b"\n\xff\xfe\n")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"\n".join([b"x"] * 9))[:-5])
    done = predict(made_clicks.winner, *(str(tmp_path / name) for name in ("none", "bare", "cut.gz", "whole")))
    wanted = predict(made_clicks.winner, str(tmp_path / "bare"), str(tmp_path / "good"))
    assert done.stdout == wanted.stdout and done.stdout.count("\n") == 12
    assert (wanted.returncode, done.returncode) == (0, 2)
    none, cut, line = done.stderr.splitlines()
    assert none.startswith(f"error: {tmp_path / 'none'} cannot be read (") and "No such file" in none
    assert cut.startswith(f"error: {tmp_path / 'cut.gz'} cannot be read (")
    assert line == f"error: {tmp_path / 'whole'}, line 7: it has 1 cells, and 40 are wanted"


def test_a_header_must_have_every_field(made_clicks: Made, tmp_path: Path) -> None:
    how = json.loads((made_clicks.winner / "preprocess.json").read_text()) | {"header": True, "separator": ","}
    (tmp_path / "preprocess.json").write_text(json.dumps(how))
    (tmp_path / "log").write_text("label,I1,I2\n0,1,2\n")
    said: list[str] = []
    assert list(preprocess_clicks.read([str(tmp_path / "log")], tmp_path, said.append)) == []
    assert said == [f"{tmp_path / 'log'} cannot be read (its header, line 1, has no field 'I3')"]


def test_every_good_image_has_its_answer(made_images: Made, tmp_path: Path) -> None:
    """Also one whose damage the decoder finds with an exception of its own."""
    images = made_images.images
    assert images is not None
    files = [str(images.root / path) for path in images.paths]
    (tmp_path / "no.png").write_bytes(b"no picture")
    whole = next(Path(file) for file in files if file.endswith(".jpg")).read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "odd.ppm").write_bytes(b"P3 2 2 255 1 2 3 4 5 x 7 8 9 1 2 3")
    bad = [str(tmp_path / name) for name in ("no.png", "half.jpg", "odd.ppm", "none.png")]
    alone = predict(made_images.winner, *files)
    mixed = predict(made_images.winner, bad[0], *files[:2], bad[1], bad[2], *files[2:], bad[3])
    assert (alone.returncode, alone.stderr, mixed.returncode) == (0, "", 2)
    assert mixed.stdout == alone.stdout and mixed.stdout.count("\n") == len(files)
    for line, file in zip(mixed.stderr.splitlines(), bad, strict=True):
        assert line.startswith(f"error: {file} cannot be read as an image (")
    none = predict(made_images.winner, bad[0], bad[2])
    assert none.returncode == 2 and not none.stdout and none.stderr.count("\n") == 2


def test_predicting_leaves_nothing_behind(made_images: Made, image_copy: Path) -> None:
    images = made_images.images
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    line = [sys.executable, str(image_copy / "load.py"), "predict", str(images.root / images.paths[0])]
    assert subprocess.run(line, capture_output=True, env=environment, timeout=120).returncode == 0
    assert len(list(check_winner(image_copy))) == CHECKS


def test_other_mistakes_are_one_sentence(made_images: Made, image_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"no picture")
    assert "cannot be read as an image" in predict(made_images.winner, str(tmp_path / "x.png")).stderr
    assert "usage:" in predict(made_images.winner).stderr
    (image_copy / "model.safetensors").write_bytes(b"\xff" * 100)
    done = predict(image_copy, "x.png")
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_a_loaded_network_trains(made_images: Made) -> None:
    network = load(made_images.winner).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    loss = network(torch.randn(4, 3, 32, 32)).square().mean()
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all("running" in name for name in moved), "BatchNorm's statistics move in training mode alone"


def test_int8_tables_state_what_they_cost(
    made_clicks: Made, tmp_path: Path, status_of: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "int8"
    arguments = ["--out", str(out), "--tables", "int8", "--data", str(made_clicks.prepared)]
    assert status_of(export, str(made_clicks.winner), *arguments) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1] == str(out) and "torchrec's int8" in printed
    assert len(list(check_winner(out))) == CHECKS
    found = json.loads((out / "metrics.json").read_text())
    assert abs(found["int8"]["int8_change"]) < 1e-3 and abs(found["int8"]["torchrec_int8_change"]) < 1e-3
    assert found["int8"]["int8_table_mib"] < 0.4 * found["int8"]["float32_table_mib"]
    assert found["test/log_loss"]["value"] == found["int8"]["int8_log_loss"]
    rows = made_clicks.raw.read_text().splitlines()[:50]
    both = [predict(folder, "-", text="\n".join(rows)).stdout.split() for folder in (made_clicks.winner, out)]
    floats, codes = (np.array([float(value) for value in each]) for each in both)
    assert 0 < np.abs(floats - codes).max() < 0.02
    assert status_of(export, str(out), *arguments[2:], "--out", str(tmp_path / "twice")) == 2
    assert "this one has none" in capsys.readouterr().err


def test_weights_are_cut_into_files_and_a_zip(made_clicks: Made, tmp_path: Path, status_of: Callable[..., int]) -> None:
    from subshot.launch.winners.export import read_handover
    from subshot.launch.winners.handover import write_winner
    from subshot.train.winner_dir import WinnerDir

    write_winner(WinnerDir(tmp_path / "cut"), read_handover(WinnerDir(made_clicks.winner)), file_bytes=2000)
    assert len(list((tmp_path / "cut").glob("model-*-of-*.safetensors"))) > 5
    assert "tables.table_C3.weight" in json.loads((tmp_path / "cut" / "network.json").read_text())["joined"]
    one, other = load(made_clicks.winner).state_dict(), load(tmp_path / "cut").state_dict()
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
    assert status_of(export, str(tmp_path / "cut"), "--out", str(tmp_path / "whole"), "--zip") == 0
    subprocess.run(["python3", "-m", "zipfile", "-e", "whole.zip", "unpacked"], cwd=tmp_path, check=True)
    assert len(list(check_winner(tmp_path / "unpacked" / "whole"))) == CHECKS
    same = {path.name for path in (tmp_path / "whole").iterdir()} ^ {path.name for path in made_clicks.winner.iterdir()}
    assert not same and os.listdir(tmp_path / "whole")
