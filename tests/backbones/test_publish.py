import logging

import pytest

from dinodemo.backbones import BACKBONES, describe
from dinodemo.backbones.publish import publish_folder
from dinodemo.train.export import model_card

TOKEN = "hf_good"


@pytest.fixture
def hub(hub, monkeypatch):
    """Take uploads with the token of these tests."""
    hub.tokens.add(TOKEN + "SECRET")
    return hub


def test_a_repository_is_private_unless_asked_otherwise(hub, tiny_folder):
    assert publish_folder(tiny_folder, "me/mine", TOKEN + "SECRET").endswith("/me/mine")
    publish_folder(tiny_folder, "me/shown", TOKEN + "SECRET", private=False)
    made = [(repo["name"], repo.get("visibility") == "private" or repo.get("private") is True) for repo in hub.created]
    assert made == [("me/mine", True), ("me/shown", False)]
    assert {"config.json", "model.safetensors"} <= set(hub.uploaded["me/mine"])


def test_a_bare_name_is_uploaded_to_the_repository_that_was_made(hub, tiny_folder):
    publish_folder(tiny_folder, "mine", TOKEN + "SECRET")
    assert [repo["name"] for repo in hub.created] == ["me/mine"] and list(hub.uploaded) == ["me/mine"]


@pytest.mark.parametrize("token", ["hf_two\nlines", "hf_ a b", "hf_geheim\u00e4", "x"])
def test_what_is_no_token_is_refused_without_being_quoted(token, hub, tiny_folder, caplog):
    with caplog.at_level(logging.DEBUG), pytest.raises(ValueError, match="that is no token") as caught:
        publish_folder(tiny_folder, "me/mine", token)
    assert token not in str(caught.value) and token not in caplog.text and hub.asked == []


@pytest.mark.parametrize(("status", "words"), [(403, "may not write"), (500, "try again later")])
def test_a_refusal_names_the_status_and_never_the_token(status, words, hub, tiny_folder):
    hub.faults.upload = status
    with pytest.raises(RuntimeError, match=words) as caught:
        publish_folder(tiny_folder, "me/mine", TOKEN + "SECRET")
    assert str(status) in str(caught.value) and "SECRET" not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__


def test_a_token_that_the_hub_does_not_know_is_named(hub, tiny_folder):
    with pytest.raises(RuntimeError, match="the token is not valid"):
        publish_folder(tiny_folder, "mine", "hf_unknownSECRET")


@pytest.mark.parametrize("name", ["", "a/b/c", "-x/y", "me/", "../x", "me/x y"])
def test_names_that_are_none_are_refused(name, hub, tiny_folder):
    with pytest.raises(ValueError, match="repository"):
        publish_folder(tiny_folder, name, TOKEN + "SECRET")
    assert hub.asked == []


def test_the_card_names_licence_and_base_and_no_folder_of_this_machine(tiny_folder):
    card = model_card(BACKBONES["dinov2-small"], "It helped.", "{}", "without labels")
    assert "\nbase_model: facebook/dinov2-small\nlicense: apache-2.0\n" in card
    own = model_card(describe(str(tiny_folder), tiny_folder), "It helped.", "{}", "without labels")
    assert "base_model" not in own and "license: unknown" in own and str(tiny_folder.parent) not in own
    gated = model_card(BACKBONES["dinov3-vits16"], "It helped.", "{}", "without labels")
    assert "license: other\nlicense_name: dinov3-license\n" in gated
