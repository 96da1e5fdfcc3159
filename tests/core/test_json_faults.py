"""What a producer is told about a message that is not JSON: the cause, and where it is."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.json_faults import MOST_BYTES, find, find_in_text


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{'a': 1}", "a key must be in double quotes, at line 1, column 2"),
        (b"{a: 1}", "a key must be in double quotes, at line 1, column 2"),
        (b"{\"a\": 'x'}", "a string must be in double quotes, not in single quotes, at line 1, column 7"),
        (b'{"a":NaN}', "NaN is not JSON: send null or a number, at line 1, column 6"),
        (b'{"NaN": "NaN", "a":NaN}', "NaN is not JSON: send null or a number, at line 1, column 20"),
        (b"-Infinity", "-Infinity is not JSON: send null or a number, at line 1, column 1"),
        (b'{\n  "a": None}', "None is not JSON: write null, at line 2, column 8"),
        (b'{"a": True}', "True is not JSON: write true, at line 1, column 7"),
        (b'{"a": FALSE}', "FALSE is not JSON: write false, at line 1, column 7"),
        (b'{"a": undefined}', "undefined is not JSON: send null, or omit the key, at line 1, column 7"),
        (b'{"a": hello}', "a string must be in double quotes, at line 1, column 7"),
        (b'{"a": 1,}', "there is a comma after the last entry, at line 1, column 8"),
        (b"[1,\n]", "there is a comma after the last entry, at line 1, column 3"),
        (b"[1 // one\n]", "JSON has no comments, at line 1, column 4"),
        (b"# one\n[1]", "JSON has no comments, at line 1, column 1"),
        (
            b"\xef\xbb\xbf{}",
            "there is a byte order mark (BOM) before the JSON; send the JSON without it, at line 1, column 1",
        ),
        (b"", "the payload is empty"),
        (b" \n", "the payload contains only white space"),
        (
            b'{"a": 1}\n{"a": 2}',
            "a second JSON value begins here: send each value in a separate message, at line 2, column 1",
        ),
        (b'{"a": 1}}', "this `}` closes nothing, at line 1, column 9"),
        (b"{}x", "there is text after the end of the JSON value, at line 1, column 3"),
        (b'"a\nb"', "write a line break in a string as \\n, at line 1, column 3"),
        (b'"a\x00"', "write this control character in a string as \\u0000, at line 1, column 3"),
        (b'{"name": "Z\xfcrich"}', "the byte 0xfc is not UTF-8, at line 1, column 12"),
        (b'{"\xc3\xbc": "\xfc"}', "the byte 0xfc is not UTF-8, at line 1, column 8"),
        ('{"a": 1}'.encode("utf-16"), "the payload is UTF-16; send it as UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "the payload is UTF-16; send it as UTF-8"),
        (b"\x1f\x8b\x08\x00", "the payload is compressed (gzip); send it uncompressed"),
        (
            b'["ok \\\\ud800 \\ud83d\\ude00", "cut \\ud83d"]',
            "this is half of a surrogate pair: was the text cut inside an emoji?, at line 1, column 34",
        ),
        (b'"\\udc00"', "this is half of a surrogate pair: was the text cut inside an emoji?, at line 1, column 2"),
        (b'{"a": 1e999}', "this number is too large: the largest is 1.8e308, at line 1, column 7"),
        (b"1" * 4301, "this number is too long: an integer can have at most 4300 digits, at line 1, column 1"),
        (b'{"a": 007}', "a number can't have leading zeros, at line 1, column 7"),
        (b'{"a": 1_000}', "a number can't contain `_`, at line 1, column 7"),
        (b'{"a": 0x1F}', "a number must be decimal, at line 1, column 7"),
        (b'{"a": 1.}', "digits are missing at the end of this number, at line 1, column 7"),
        (b"+1", "a number can't begin with `+`, at line 1, column 1"),
        (b'{"a" 1}', "a `:` is missing between the key and its value, at line 1, column 6"),
        (b'{"a": 1 "b": 2}', "a `,` is missing before this, at line 1, column 9"),
        (
            b'{"a": "so "called" names"}',
            'a `,` is missing before this; if this is still part of the string, write the `"` before it as `\\"`, at line 1, column 12',
        ),
        (b'{"a":}', "a value is missing before this `}`, at line 1, column 6"),
        (
            b'["C:\\dir"]',
            "this is not an escape of JSON; write a backslash in a string as `\\\\`, at line 1, column 5",
        ),
        (b'{"a": "x', 'the closing `"` of this string is missing, at line 1, column 7'),
        (b'{"a": 1', "the JSON ends too early, at line 1, column 8"),
        (b'{"a": tru', "the JSON ends too early, at line 1, column 10"),
        (b'[{"a": 1]', "this `]` does not match the bracket that is open, at line 1, column 9"),
        ("{\u201ca\u201d: 1}".encode(), 'typographic quotes are not JSON: write `"`, at line 1, column 2'),
        (b"<event/>", "this is XML or HTML, not JSON, at line 1, column 1"),
        (
            '{"a":\u00a01}'.encode(),
            "this white space is not allowed; between values, JSON allows only spaces, tabs and line breaks, at line 1, column 6",
        ),
    ],
)
def test_the_cause_is_named_at_its_place(raw, words):
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        msgspec.json.decode(raw)
    assert str(find(raw)) == words


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]",:\\ \n\tu0123dD8eE+-.NaNtrue\x00\ufeff\ud7ff', max_size=80).map(str.encode)
)
def test_whatever_is_refused_is_explained_within_it(raw):
    try:
        msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        fault = find(raw)
        if fault is not None and fault.line is not None:
            assert 1 <= fault.line <= raw.count(b"\n") + 1
            assert 1 <= fault.column <= len(raw) + 1


@given(
    st.sampled_from(
        ["s3cr3t", "'s3cr3t'", '"s3cr3t', '{"s3cr3t": s3cr3t}', "{s3cr3t: 1}", '["s3cr3t" "s3cr3t"]', "s3cr3t: 1"]
    )
)
def test_nothing_of_the_message_is_quoted(text):
    assert "s3cr3t" not in str(find_in_text(text))


def test_a_message_too_long_to_be_read_again_is_not_explained():
    assert find(b"[" + b"1," * MOST_BYTES + b"NaN]") is None
