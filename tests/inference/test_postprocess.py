import json

import pytest

from framework.config import HookConfig
from framework.errors import UserError
from framework.inference.postprocess import Postprocess

SCHEMA = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 0}, "name": {"$ref": "#/$defs/name"}},
    "required": ["age"],
    "$defs": {"name": {"type": "string", "maxLength": 5}},
}


def run(text, *hooks):
    return Postprocess([HookConfig(**hook) for hook in hooks])(text)


@pytest.fixture
def schema(tmp_path):
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(SCHEMA))
    return str(file)


def test_hooks_are_done_in_their_order():
    assert run(" a ", {"strip": True}) == ("a", None)
    assert run(" <b> x", {"regex": "<(.)>"}, {"regex": "b", "replacement": r"[\g<0>] "}, {"strip": True}) == (
        "[b]",
        None,
    )
    assert run("abc", {"regex": "[bc]+"}) == ("bc", None)
    assert run("a1b2", {"regex": r"\d", "replacement": ""}) == ("ab", None)


def test_the_first_check_that_fails_ends_it():
    text, failed = run(" abc ", {"regex": r"\d+"}, {"strip": True})
    assert text == " abc "
    assert failed == r"nothing in it is as '\\d+' has it"
    assert run("b", {"regex": "(a)|b"})[1] is not None  # the group that was asked for found nothing


@pytest.mark.parametrize(
    ("text", "failed"),
    [
        ('{"age": 3}', None),
        (' {"age": 3, "name": "Ada"}\n', None),
        ("{", "is no JSON (Expecting property name"),
        ("", "is no JSON (Expecting value"),
        ("[" * 100_000, "is no JSON (maximum recursion"),
        ('{"age": NaN}', "is no JSON (NaN is no JSON"),
        ('{"age": "3"}', "JSON $.age: '3' is not of type 'integer'"),
        ('{"age": -1}', "JSON $.age: -1 is less than the minimum of 0"),
        ('{"age": 1, "name": "Adalbert"}', "JSON $.name: 'Adalbert' is too long"),
        ("{}", "JSON $: 'age' is a required property"),
    ],
)
def test_json_is_held_against_the_schema(text, failed, schema):
    kept, told = run(text, {"json_schema": schema})
    assert kept == text
    assert told is None if failed is None else told.startswith(failed)


def test_hooks_that_are_none_are_named(tmp_path):
    file = tmp_path / "schema.json"
    for hook, message in (
        ({"regex": "("}, r"postprocess\[1\].regex: '\(' is no pattern"),
        ({"regex": "(a)", "replacement": r"\2"}, r"postprocess\[1\].regex: .* is no pattern .invalid group reference"),
        ({"json_schema": str(file)}, r"postprocess\[1\].json_schema: .* cannot be read as JSON"),
    ):
        with pytest.raises(UserError, match=message):
            run("", {"strip": True}, hook)
    for schema, message in (
        ({"type": "whole"}, r"is no JSON schema \(\$.type: 'whole'"),
        ({"$ref": "http://127.0.0.1:9/x.json"}, "refers to http://127.0.0.1:9/x.json, which is not in it"),
        ({"$ref": "#/$defs/none"}, r"refers to .*none"),
    ):
        file.write_text(json.dumps(schema))
        with pytest.raises(UserError, match=message):
            run("{}", {"json_schema": str(file)})
