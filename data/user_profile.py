"""KDD Cup 2012's userid_profile.txt: gender and age of users, joined to the log by UserID."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from subshot.data.click_formats import Column
from subshot.data.click_text import text_blocks
from subshot.data.image_folder import DataError

PROFILE_COLUMNS = (Column("Gender", "decimal"), Column("Age", "decimal"))
_NAMES = ("UserID", "Gender", "Age")


@dataclass(frozen=True)
class UserProfile:
    """Users in rising order, and gender and age of each; a user who is not in it has 0 for both, as NASRec does.

    Ten bytes a user; the competition's file has 23.7 million.
    """

    users: NDArray[np.int64]
    gender: NDArray[np.uint8]
    age: NDArray[np.uint8]

    def join(self, log: pl.DataFrame) -> pl.DataFrame:
        """The parsed log with Gender and Age (Int64) behind its columns."""
        asked = log["UserID"].fill_null(-1).to_numpy()
        places = np.minimum(np.searchsorted(self.users, asked), len(self.users) - 1)
        known = self.users[places] == asked
        return log.with_columns(
            Gender=pl.Series(np.where(known, self.gender[places], 0).astype(np.int64)),
            Age=pl.Series(np.where(known, self.age[places], 0).astype(np.int64)),
        )


def read_user_profile(path: Path) -> UserProfile:
    """Plain or gzip; tabs, no header: UserID, Gender, Age, all integers. Raises DataError at the first bad line."""
    pieces = []
    for block in text_blocks(path):
        cells = pl.col("line").str.split("\t")
        lines = block.text.decode("utf-8", "replace").split("\n")[:-1]
        table = pl.DataFrame({"line": lines}).select(
            cells.list.get(0, null_on_oob=True).cast(pl.Int64, strict=False).alias("UserID"),
            cells.list.get(1, null_on_oob=True).cast(pl.UInt8, strict=False).alias("Gender"),
            cells.list.get(2, null_on_oob=True).cast(pl.UInt8, strict=False).alias("Age"),
            (cells.list.len() == 3).alias("whole"),
        )
        wrong = table.select(~pl.col("whole") | pl.any_horizontal(pl.col(*_NAMES).is_null())).to_series()
        if wrong.any():
            line = block.first_line + int(wrong.arg_true()[0])
            raise DataError(
                f"{path}, line {line}: a user profile has three tab-separated integers, UserID, Gender and Age "
                "(the last two from 0 to 255)"
            )
        pieces.append(table.select(_NAMES))
    profile = pl.concat(pieces).unique("UserID", keep="first", maintain_order=True).sort("UserID")
    return UserProfile(profile["UserID"].to_numpy(), profile["Gender"].to_numpy(), profile["Age"].to_numpy())
