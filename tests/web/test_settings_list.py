"""What the list of settings may send is checked before anything is made of it."""

import pytest

from dinodemo.web.settings_list import MAX_EDITS, MAX_TEXT, read_edits, settings_value


def test_what_was_typed_is_read_back():
    value = settings_value({"lr": "0.1", "seed": "0"}, {"seed": "chance", "lr": "speed"}, {"lr": "0.2"})
    assert value["fields"] == [["lr", "0.1", "speed"], ["seed", "0", "chance"]]
    assert read_edits(value) == {"lr": "0.2"}


@pytest.mark.parametrize("value", [None, {}, {"edits": None}, [], "text"])
def test_nothing_typed_is_no_edit(value):
    assert read_edits(value) == {}


@pytest.mark.parametrize(
    "edits",
    [["lr"], {"lr": 1}, {"lr": "x" * (MAX_TEXT + 1)}, {"lr": ["0"]}, {str(i): "0" for i in range(MAX_EDITS + 1)}],
)
def test_what_the_list_cannot_have_sent_is_refused(edits):
    with pytest.raises(ValueError, match=r"settings by name|at most"):
        read_edits({"edits": edits})
