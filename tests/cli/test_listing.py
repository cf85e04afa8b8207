"""How rows become tables, JSON and text."""

from __future__ import annotations

import json

from attrs import frozen

from layerstore.cli.listing import Column, Form, label_heading, rows


@frozen
class Fruit:
    name: str
    weight: int
    labels: dict[str, str]


def _cost(_: Fruit) -> object:
    raise AssertionError("nobody asked for the costly column")


COLUMNS = {
    "Name": Column("FRUIT", lambda fruit: fruit.name),
    "Weight": Column("WEIGHT", lambda fruit: fruit.weight),
    "Label": Column(label_heading, lambda fruit: lambda name: fruit.labels.get(name, ""), listed=False),
    "Cost": Column("COST", _cost, listed=False),
}
FRUITS = [Fruit("apple", 150, {"io.x.skin-colour": "red"}), Fruit("a very long pear", 1, {})]
USUAL = "{{.Name}}\t{{.Weight}}"


def shown(text: str | None = None, *, quiet: bool = False) -> list[str]:
    form = Form() if text is None else Form.of_rows(text)
    return list(rows(FRUITS, COLUMNS, form, USUAL, "{{.Name}}" if quiet else None))


TABLE = ["FRUIT              WEIGHT", "apple              150", "a very long pear   1"]


def test_a_command_has_its_own_table() -> None:
    assert shown() == TABLE
    assert shown("table") == TABLE


def test_quiet_wins_over_the_own_table_only() -> None:
    assert shown(quiet=True) == ["apple", "a very long pear"]
    assert shown("table", quiet=True) == ["apple", "a very long pear"]
    assert shown("{{.Weight}}", quiet=True) == ["150", "1"]


def test_a_template_can_make_a_table() -> None:
    assert shown(r'table {{.Weight}}\t{{upper .Name}}\t{{.Label "io.x.skin-colour"}}') == [
        "WEIGHT    FRUIT              skin colour",
        "150       APPLE              red",
        "1         A VERY LONG PEAR   ",
    ]


def test_a_template_alone_has_no_head_and_knows_tabs() -> None:
    assert shown(r"{{.Name}}\t{{.Weight}}\n-") == ["apple\t150\n-", "a very long pear\t1\n-"]
    assert shown(r'{{print "\\t"}}')[0] == r"\t"


def test_json_is_an_object_a_line_without_what_is_costly() -> None:
    assert [json.loads(line) for line in shown("json")] == [
        {"Name": "apple", "Weight": 150},
        {"Name": "a very long pear", "Weight": 1},
    ]
    assert shown("json") == shown("{{json .}}")


def test_a_table_of_nothing_is_its_head() -> None:
    assert list(rows([], COLUMNS, Form(), USUAL)) == ["FRUIT     WEIGHT"]
    assert list(rows([], COLUMNS, Form.of_rows("json"), USUAL)) == []
