"""A raw file's layout is told from its first lines, or refused in a sentence."""

from pathlib import Path

import pytest

from subshot.data.click_formats import AVAZU, CRITEO, KDD12_CSV, KDD12_TSV, Dataset, recognise
from subshot.data.image_folder import DataError

PATH = Path("log.txt")
AVAZU_HEAD = b"id,click,hour,C1,banner_pos,site_id,site_domain,site_category,app_id,app_domain,app_category,device_id,"
AVAZU_HEAD += b"device_ip,device_model,device_type,device_conn_type,C14,C15,C16,C17,C18,C19,C20,C21"
OPENML_HEAD = b'"click","impression","url_hash","ad_id","advertiser_id","depth","position","query_id","keyword_id",'
OPENML_HEAD += b'"title_id","description_id","user_id"'


def test_each_layout_is_recognised() -> None:
    criteo = recognise("criteo", PATH, [b"\t" * 39])
    assert (criteo.format, len(criteo.columns), criteo.header_lines) == (CRITEO, 40, 0)
    avazu = recognise("avazu", PATH, [AVAZU_HEAD, b"1,0"])
    assert (avazu.format, avazu.columns, avazu.header_lines) == (AVAZU, AVAZU.columns, 1)
    assert recognise("kdd12", PATH, [b"\t" * 11]).format is KDD12_TSV
    openml = recognise("kdd12", PATH, [OPENML_HEAD])
    assert openml.format is KDD12_CSV and [column.name for column in openml.columns][:3] == [
        "Click",
        "Impression",
        "DisplayURL",
    ]


def test_a_header_decides_the_order() -> None:
    names = AVAZU_HEAD.decode().split(",")[::-1]
    found = recognise("avazu", PATH, [",".join(names).encode()])
    assert [column.name for column in found.columns] == names


def test_one_short_first_line_does_not_make_a_file_unlabelled() -> None:
    assert recognise("criteo", PATH, [b"\t" * 38, b"\t" * 39]).format is CRITEO


@pytest.mark.parametrize(
    ("dataset", "line", "what"),
    [
        ("criteo", b"\t" * 38, "log.txt has 39 columns, as the unlabelled test file has: a label is needed"),
        ("criteo", b"label,I1" + b",x" * 38, "line 1: the columns are separated by commas"),
        ("kdd12", b"\t" * 9, "log.txt has 10 columns, as the unlabelled test file has"),
        ("avazu", b"1000,0,14102100", "line 1: Avazu Kaggle train.csv begins with a header .id, click, hour"),
        ("avazu", AVAZU_HEAD.replace(b"click,", b""), "there is no column 'click', as in the unlabelled test file"),
        ("avazu", AVAZU_HEAD.replace(b"C14", b"C22"), "line 1: unknown field 'C22'; the fields are id, click, hour"),
        ("avazu", AVAZU_HEAD.replace(b",C14", b""), "line 1: the field 'C14' is missing"),
        ("avazu", AVAZU_HEAD + b",C14", "line 1: the field 'C14' stands there twice"),
        ("kdd12", OPENML_HEAD.replace(b"depth", b"width"), "line 1: unknown field 'width'; the fields are click, imp"),
    ],
)
def test_what_is_no_labelled_log_is_refused(dataset: Dataset, line: bytes, what: str) -> None:
    with pytest.raises(DataError, match=what):
        recognise(dataset, PATH, [line])
