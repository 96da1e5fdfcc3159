"""Files of records: CSV, JSON and YAML, keys as text, and every fault at its place."""

from __future__ import annotations

import pytest

from router.ops.loading.record_files import RecordFileError, read_records


def read(tmp_path, name, text, by="id"):
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_records(file, by)


JANE = {"id": "42", "name": "Jane, Doe"}


@pytest.mark.parametrize(
    ("name", "text", "by"),
    [
        ("u.csv", 'id,name\r\n42,"Jane, Doe"\r\n\r\n', "id"),
        ("u.CSV", b"\xef\xbb\xbf" + b'id,name\n42,"Jane, Doe"', "id"),
        ("u.json", '[{"id": "42", "name": "Jane, Doe"}]', "id"),
        ("u.json", '{"42": {"id": "42", "name": "Jane, Doe"}}', None),
        ("u.yaml", "- {id: '42', name: 'Jane, Doe'}", "id"),
        ("u.yml", "42:\n  id: '42'\n  name: Jane, Doe", None),
    ],
)
def test_every_form_gives_the_record_by_its_key(tmp_path, name, text, by):
    assert read(tmp_path, name, text, by) == {"42": JANE}


@pytest.mark.parametrize(("written", "key"), [("42", "42"), ("4.5", "4.5"), ("true", "true"), ('"x"', "x")])
def test_keys_are_texts(tmp_path, written, key):
    assert list(read(tmp_path, "u.json", f'[{{"id": {written}}}]')) == [key]
    assert list(read(tmp_path, "u.yaml", f"- id: {written}")) == [key]


def test_yaml_means_what_it_means_in_the_configuration(tmp_path):
    [record] = read(tmp_path, "u.yaml", "- {id: 1, a: no, b: true, c: 010, d: ~, e: 1.5, f: '1', g: [x, 2]}").values()
    assert record == {"id": 1, "a": "no", "b": True, "c": "010", "d": None, "e": 1.5, "f": "1", "g": ["x", 2]}


def test_records_without_a_key_are_left_out(tmp_path):
    assert list(read(tmp_path, "u.json", '[{"id": null}, {"x": 1}, {"id": 1}]')) == ["1"]
    assert list(read(tmp_path, "u.csv", "id,name\n,nobody\n1,x\n")) == ["1"]
    assert read(tmp_path, "u.json", "[]") == {}


@pytest.mark.parametrize(
    ("name", "text", "by", "place", "said"),
    [
        ("u.csv", "", "id", ":1", 'there is no column "id"; the first line names none'),
        ("u.csv", "i,name\n", "id", ":1", 'there is no column "id"; the first line names "i", "name"'),
        ("u.csv", "id,n,n\n", "id", ":1", 'the first line names the column "n" twice'),
        ("u.csv", "id,n\n1,2\n3\n", "id", ":3", "this row has 1 field, but the first line names 2 columns"),
        ("u.csv", 'id,n\n1,"2', "id", ":2", "this is not CSV: unexpected end of data"),
        ("u.csv", "id,n\n1,2\n1,3\n", "id", ":3", 'the key "1" appears twice in this file; keep one record'),
        (
            "u.csv",
            "id,n\n",
            None,
            "",
            "`by` is required for a CSV file: write the name of the column that holds the key",
        ),
        ("u.json", '[{"id": 1},\n{"id": "1"}]', "id", "", 'the key "1" appears twice in this file; keep one record'),
        ("u.json", '{"a": {}, "a": {}}', None, "", 'the key "a" appears twice in one mapping; keep one value'),
        (
            "u.json",
            '{"a": {}}',
            "id",
            "",
            "`by` can't be used, because the file is a mapping of keys to records; remove `by`",
        ),
        ("u.json", '{"a": 1}', None, "", 'the record of the key "a" is not a mapping'),
        (
            "u.json",
            "[{}]",
            None,
            "",
            "`by` is required for a list of records: write the name of the field that holds the key",
        ),
        ("u.json", "[5]", "id", "", "entry 1 of the list is not a mapping"),
        ("u.json", '[{"id": []}]', "id", "", 'entry 1 of the list: "id" is neither a string nor a number'),
        ("u.json", '[{"Id": 1}]', "id", "", 'no record has the field "id"; the fields are "Id" (did you mean `Id`?)'),
        ("u.json", "5", None, "", "the file holds neither a list of records nor a mapping of keys to records"),
        ("u.json", '{"a":\n {"b" 1}}', None, ":2:7", "this is not JSON: "),
        ("u.json", "[" * 100_000, "id", "", "nested too deeply"),
        ("u.yaml", "a: &x {b: 1}\nc: *x\n", None, ":1:4", "a file of records can't have aliases (`*name`)"),
        ("u.yaml", "a: {b: 1}\na: {b: 2}\n", None, ":2:1", 'the key "a" appears twice in one mapping'),
        ("u.yaml", "a: [1\nb: 2", None, ":2:2", "this is not YAML: "),
        ("u.yaml", "? [a]\n: {b: 1}\n", None, ":1:1", "a key must be a string or a number"),
        ("u.json", b"\xff", "id", "", "this is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_fault_says_where_and_what(tmp_path, name, text, by, place, said):  # noqa: PLR0917  # a table
    with pytest.raises(RecordFileError) as raised:
        read(tmp_path, name, text, by)
    assert str(raised.value).startswith(said)
    assert raised.value.place == place
