"""KDD Cup's user profile file, joined by user."""

from pathlib import Path

import polars as pl
import pytest

from subshot.data.image_folder import DataError
from subshot.data.user_profile import read_user_profile


def test_known_users_get_their_gender_and_age_and_others_get_0(tmp_path: Path) -> None:
    path = tmp_path / "userid_profile.txt"
    path.write_text("9\t2\t6\n1\t1\t5\n23907634\t0\t3\n9\t1\t1\n")
    log = pl.DataFrame({"UserID": pl.Series([1, 9, 8, None, 23907634, 99999999], dtype=pl.Int64)})
    joined = read_user_profile(path).join(log)
    assert joined["Gender"].to_list() == [1, 2, 0, 0, 0, 0]
    assert joined["Age"].to_list() == [5, 6, 0, 0, 3, 0]
    assert joined.schema["Gender"] == pl.Int64


@pytest.mark.parametrize("line", ["1\t2", "1\t2\t3\t4", "x\t1\t1", "1\t\t1", "", "1\t300\t1"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "userid_profile.txt"
    path.write_text(f"1\t1\t1\n{line}\n2\t2\t2\n")
    with pytest.raises(
        DataError, match=r"userid_profile\.txt, line 2: a user profile has three tab-separated integers"
    ):
        read_user_profile(path)
