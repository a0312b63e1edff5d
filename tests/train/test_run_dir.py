"""Files of a run: whole or not there, and JSONL that forgives a torn end and nothing else."""

import hashlib
import json

import pytest

from subshot.train.run_dir import (
    RunDir,
    append_jsonl,
    file_digest,
    json_line,
    read_json,
    read_jsonl,
    replacing,
    replacing_folder,
    truncate_jsonl,
    write_json,
)


def test_replacing_puts_the_new_file_in_place(tmp_path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_old_file_and_no_other(tmp_path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"old": 1})
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text("half of")
        raise ZeroDivisionError
    assert read_json(path) == {"old": 1}
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"score": float("nan")})
    with pytest.raises(FileNotFoundError), replacing(path):
        pass  # nothing was written
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["file.json"]


def test_bad_json_names_file_and_line(tmp_path) -> None:
    path = tmp_path / "state.json"
    path.write_text('{\n"a": 1,\n}')
    with pytest.raises(ValueError, match=r"state\.json is not JSON \(line 3"):
        read_json(path)


def test_jsonl_grows_by_whole_lines(tmp_path) -> None:
    path = tmp_path / "logs" / "rows.jsonl"
    rows = [{"b": index, "a": "ü\n"} for index in range(3)]
    assert read_jsonl(path) == []
    append_jsonl(path, [])
    assert not path.exists()
    append_jsonl(path, rows[:2])
    append_jsonl(path, rows[2:])
    assert read_jsonl(path) == rows
    assert path.read_text() == "".join(json_line(row) + "\n" for row in rows)
    assert json_line({"b": 1, "a": [2.5]}) == '{"b":1,"a":[2.5]}'
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(path, [{"loss": float("inf")}])
    assert read_jsonl(path) == rows


def test_a_torn_last_line_is_dropped_wherever_it_tore(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    append_jsonl(path, [{"index": 0}, {"index": 1}])
    whole = path.read_bytes()
    first = len(json_line({"index": 0})) + 1
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert read_jsonl(path) == ([{"index": 0}] if length >= first else [])


def test_a_bad_line_names_file_and_line(tmp_path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"a":1}\nnonsense\n{"a":2}\n')
    with pytest.raises(ValueError, match=r"history\.jsonl, line 2: not JSON"):
        read_jsonl(path)


@pytest.mark.parametrize("tail", ["", '{"ind', '{"index":3}'])
def test_truncating_keeps_whole_lines_only(tmp_path, tail) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"index": index} for index in range(3)]
    for lines in range(6):
        path.write_text("".join(json_line(row) + "\n" for row in rows) + tail)
        truncate_jsonl(path, lines)
        assert read_jsonl(path) == rows[:lines]
        append_jsonl(path, [{"index": 9}])
        assert read_jsonl(path) == [*rows[:lines], {"index": 9}]
    truncate_jsonl(tmp_path / "none.jsonl", 2)
    assert not (tmp_path / "none.jsonl").exists()


def test_winners_are_those_with_metrics_in_order(tmp_path) -> None:
    run = RunDir(tmp_path)
    assert run.winner_names() == []
    for name in ("10", "2", "random-1", "1", "unfinished"):
        winner = run.winner(name)
        winner.root.mkdir(parents=True)
        if name != "unfinished":
            write_json(winner.metrics_json, {})
    assert run.winner_names() == ["1", "2", "10", "random-1"]


def test_paths_are_below_the_root_and_differ(tmp_path) -> None:
    run = RunDir(tmp_path)
    for folder in (run, run.winner("1")):
        properties = [key for key, value in vars(type(folder)).items() if isinstance(value, property)]
        found = [getattr(folder, key) for key in properties]
        paths = [each.root if isinstance(each, RunDir) else each for each in found]
        assert len(set(paths)) == len(paths) and all(path.is_relative_to(folder.root) for path in paths)


def test_file_digest(tmp_path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"subshot" * 1000)
    assert file_digest(path) == hashlib.sha256(b"subshot" * 1000).hexdigest()
    assert json.loads(json_line({"digest": file_digest(path)}))["digest"] == file_digest(path)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    place = tmp_path / "a"
    with replacing_folder(place) as new:
        (new / "x").write_text("1")
    with pytest.raises(ValueError, match="stopped"), replacing_folder(place) as new:
        (new / "x").write_text("2")
        raise ValueError("stopped")
    assert (place / "x").read_text() == "1" and [each.name for each in tmp_path.iterdir()] == ["a"]
    place.rename(tmp_path / ".a.host-1-before.tmp")  # as a kill between the two renames leaves it
    (tmp_path / ".a.v2.host-1.tmp").mkdir()  # of another folder, which may be at work
    with pytest.raises(ValueError, match="stopped"), replacing_folder(place):
        raise ValueError("stopped")
    assert (place / "x").read_text() == "1" and (tmp_path / ".a.v2.host-1.tmp").is_dir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(NotADirectoryError), replacing_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "kept"
