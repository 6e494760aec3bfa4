"""Tables of ratings as people have them are read alike; what is ambiguous or damaged is named."""

import numpy as np
import pytest

from core.datasets.interactions import from_rows, from_table, hold_out, validate
from core.errors import ConfigError, DataError

ROWS = [("A1", "0001", "5.0", "100"), ("A1", "0002", "3.0", "90"), ("B", "0001", "4.0", "7"), ("B", "x y", "2.0", "8")]


def joined(separator: str, *header: str, rows=ROWS) -> str:
    return "\n".join(separator.join(row) for row in [header, *rows] if row) + "\n"


USUAL = ("user", "item", "rating", "timestamp")
WRITTEN = {
    "csv": joined(",", *USUAL),
    "tsv": joined("\t", *USUAL),
    "semicolons": joined(";", *USUAL),
    "bars": joined("|", *USUAL),
    "windows": joined(",", *USUAL).replace("\n", "\r\n"),
    "blank lines at the end": joined(",", *USUAL) + "\n\n",
    "quotes": joined(",", *USUAL).replace("x y", '"x y"'),
    "white space": joined(" , ", *USUAL),
    "inter": joined("\t", "user_id:token", "item_id:token", "rating:float", "timestamp:float"),
    "MovieLens": joined(",", "userId", "movieId", "rating", "timestamp"),
    "MovieLens 1M": joined("::"),
    "capitals": joined(",", "User", "Item", "Stars", "Time"),
    "Amazon": joined(",", "reviewerID", "asin", "overall", "unixReviewTime"),
    "mark of UTF-8": "\ufeff" + joined(",", *USUAL),
    "further columns": joined(",", *USUAL, "note", "note", rows=[(*row, "1;2;3;4;5;6;7", "") for row in ROWS]),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_one_table_in_many_forms_is_one_set_of_interactions(name, tmp_path):
    path = tmp_path / "mine.txt"
    path.write_bytes(WRITTEN[name].encode())
    data = from_table(path)
    assert data.user_ids.tolist() == ["A1", "B"]
    assert data.item_ids.tolist() == ["0001", "0002", "x y"]
    assert (data.train_items.tolist(), data.test_items.tolist()) == ([1, 0], [0, 2])
    liked = from_table(path, at_least=4)
    assert (liked.user_ids.tolist(), liked.item_ids.tolist(), liked.shape) == (["A1", "B"], ["0001"], (2, 1))


def test_utf16_of_a_spreadsheet_is_read(tmp_path):
    (tmp_path / "mine.txt").write_text(joined("\t", *USUAL), encoding="utf-16")
    assert from_table(tmp_path / "mine.txt").item_ids.tolist() == ["0001", "0002", "x y"]


def test_columns_and_lines_without_names_are_named_by_the_caller(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(joined("~", "Kunde", "Ware", "user", "item"))
    data = from_table(path, columns={"user": "Kunde", "item": "Ware", "timestamp": "item"}, separator="~")
    assert data.user_ids.tolist() == ["A1", "B"]
    assert data.test_items.tolist() == [0, 2]
    path.write_text(joined("\t"))
    assert from_table(path, header=USUAL).test_items.tolist() == [0, 2]


REPEATED = "user,item,rating,timestamp\na,milk,1,3\na,bread,5,2\na,milk,5,1\nb,milk,2,1\nb,milk,5,1\n"


def test_of_repeated_rows_one_counts_with_its_time_and_its_rating(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(REPEATED)
    first, last = from_table(path), from_table(path, repeats="last")
    assert [data.item_ids[data.test_items].tolist() for data in (first, last)] == [["bread"], ["milk"]]
    pairs = {
        repeats: list(zip(data.user_ids[np.repeat([0, 1][: data.shape[0]], np.diff(data.train_indptr))], strict=True))
        for repeats in ("first", "last")
        for data in [from_table(path, repeats=repeats, at_least=4)]
    }
    assert pairs == {"first": [("a",)], "last": [("a",), ("b",)]}
    with pytest.raises(DataError, match="column 'item' in row 4 repeats a pair of user and item; remove the row, or"):
        from_table(path, repeats="refuse")


REFUSED = {
    "no such column": ("user,thing\n1,2\n", {}, r"column 'item' \(what\) is missing; it has user, thing; name it by"),
    "no column of that name": ("user,item\n1,2\n", {"columns": {"item": "Ware"}}, r"column 'Ware' \(what\) is missing"),
    "no time of that name": (
        "user,item\n1,2\n",
        {"columns": {"timestamp": "wann"}},
        r"column 'wann' \(when\) is missing",
    ),
    "two columns that may be meant": ("user,user_id,item\n1,1,2\n", {}, "'user' and 'user_id' may both say who; name"),
    "no ratings": ("user,item\n1,2\n", {"at_least": 4}, r"column 'rating' \(how much\) is missing"),
    "a rating in words": (
        "user,item,stars\n1,2,5\n1,3,good\n",
        {"at_least": 4},
        "column 'stars' in row 3 is no number",
    ),
    "a decimal comma": ("user;item;stars\n1;2;4,5\n", {"at_least": 4}, "column 'stars' in row 2 is no number, such as"),
    "a threshold that nothing reaches": ("user,item,stars\n1,2,5\n", {"at_least": 6}, "reaches 6, the highest is 5"),
    "an empty line": ("user,item\n1,2\n\n1,3\n", {}, "column 'user' in row 3 is empty"),
    "a blank id": ("user,item\n1, \n", {}, "column 'item' in row 2 is empty"),
    "two units of time": (
        "user,item,timestamp\na,x,1600000002\na,y,1600000003\na,z,1600000001000\n",
        {},
        "column 'timestamp' in row 4 is in milliseconds, as it seems, others are in seconds",
    ),
    "names of too few columns": ("1\t2\t3\n", {"header": ("user", "item")}, "header names 2 columns, but .* has 3"),
    "bytes of no text": ("user,item\n\udcff,2\n", {}, "not a table of columns"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_could_be_misread_is_refused_by_column_and_row(name, tmp_path):
    text, options, message = REFUSED[name]
    path = tmp_path / "mine.csv"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message) as caught:
        from_table(path, **options)
    assert str(path) in str(caught.value)


def test_options_that_are_none_are_refused_by_name(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(joined(",", *USUAL))
    for options, message in (
        ({"repeats": "mean"}, "repeats must be one of"),
        ({"at_least": float("nan")}, "at_least must be a number"),
        ({"columns": {"users": "user"}}, "a key of columns must be one of .*did you mean 'user'"),
        ({"columns": ("user", "item")}, "columns must be a Mapping"),
    ):
        with pytest.raises(ConfigError, match=message):
            from_table(path, **options)


def test_names_of_users_and_items_stay_with_the_interactions(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(joined(",", *USUAL))
    data = from_table(path)
    for kept in (validate(data, "here"), hold_out(data, 0.5)[0]):
        assert kept.user_ids.tolist() == ["A1", "B"]
        assert kept.item_ids.tolist() == ["0001", "0002", "x y"]
    assert from_rows([np.array([0])], [np.zeros(0, int)], 1, "here").user_ids is None
    with pytest.raises(DataError, match="here: field 'item_ids' must name 3 different items"):
        validate(data._replace(item_ids=np.array(["a", "b", "a"])), "here")
