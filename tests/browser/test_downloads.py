"""A server whose backbones are still to be downloaded, from a hub on the loopback interface with the real client."""

import json

import pytest
import torch
from backbones.foreign import save_originals, to_meta, weights_of
from backbones.hub_server import serve
from patience import MILLISECONDS

from dinodemo.backbones import BACKBONES, DEFAULT

from .conftest import start_app
from .helpers import ASSETS, upload_photo


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> dict[str, bytes]:
    """Make random weights of the official default's shape."""
    from transformers import Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("official")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
        Dinov2Model(Dinov2Config(**shape, image_size=518, patch_size=14)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text("{}")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def site(official, tmp_path_factory):
    """Run a hub and an app that has nothing yet; gives both and the folder of what the app writes."""
    folder = tmp_path_factory.mktemp("site")
    with serve() as hub:
        hub.put(BACKBONES[DEFAULT].hub_id, official)
        filler = {"config.json": json.dumps({"model_type": "dinov2"}).encode(), "model.safetensors": bytes(60_000_000)}
        hub.put(BACKBONES["dinov2-base"].hub_id, filler)
        hub.faults.rate = 500_000  # until the first test has seen the download
        own = {
            "HF_ENDPOINT": hub.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(folder / "hf"),
            "DINODEMO_WEIGHTS": str(folder / "weights"),
            "HF_HUB_CACHE": str(folder / "hf" / "hub"),
        }
        with start_app(folder, EXAMPLES="0", **own) as url:
            yield hub, url, folder


def open_page(browser, url: str):
    page = browser.new_context(viewport={"width": 1400, "height": 1000}).new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(url)
    return page


def test_the_first_start_shows_the_download_and_then_the_official_default(browser, site, screenshot):
    hub, url, _ = site
    page = open_page(browser, url)
    page.wait_for_selector("#download >> text=/Downloading dinov2-small: \\d+ of 88 MB, .* MB.s, .* left/")
    screenshot(page, "first-start")
    hub.faults.rate = 0
    page.wait_for_selector("#cost >> text=a picture here")
    assert page.inner_text("#download").strip() == "" and page.inner_text("#notice").strip() == ""
    assert page.input_value("#backbone input") == f"{DEFAULT} · ready"
    upload_photo(page, ASSETS / "coffee_cup.jpg")
    assert page.inner_text("#attention-status").startswith(f"{DEFAULT} ")
    assert hub.downloads("model.safetensors") == 1
    page.context.close()


def test_a_download_stalls_nobody_and_can_be_cancelled(browser, site, screenshot):
    hub, url, folder = site
    hub.faults.rate = 1_000_000
    page, other = open_page(browser, url), open_page(browser, url)
    for one in (page, other):
        one.wait_for_selector("#cost >> text=a picture here")
    picker = page.get_by_role("combobox", name="Backbone")
    picker.click()
    page.get_by_role("option", name="dinov2-base · 346 MB to download").click()
    page.wait_for_selector("#download >> text=Downloading dinov2-base: 1")
    upload_photo(other, ASSETS / "cat_chelsea.jpg")  # somebody else gets a map meanwhile
    assert other.inner_text("#attention-status").startswith(f"{DEFAULT} ")
    assert "dinov2-base" in page.inner_text("#download")
    screenshot(page, "download")
    page.get_by_role("button", name="Cancel the download").click()
    page.wait_for_selector(".toast-body >> text=was cancelled")
    page.wait_for_function(f"() => document.querySelector('#backbone input').value === '{DEFAULT} · ready'")
    assert not list(folder.rglob("*.incomplete"))
    for one in (page, other):
        one.context.close()


@pytest.mark.parametrize(
    ("status", "words"),
    [(503, "has a problem of its own (503)"), (429, "too many requests"), (403, "(403): a firewall")],
)
def test_what_the_hub_refuses_is_one_sentence(status, words, browser, site):
    hub, url, _ = site
    hub.faults.info, hub.faults.rate = status, 0
    page = open_page(browser, url)
    page.wait_for_selector("#cost >> text=a picture here")
    picker = page.get_by_role("combobox", name="Backbone")
    picker.fill("dinov2-large")
    picker.press("Enter")
    page.wait_for_selector(f".toast-body >> text={words}")
    hub.faults.info = 0
    page.context.close()


def test_the_path_of_a_checkpoint_in_another_layout_is_converted_and_used(browser, site, tmp_path):
    _, url, folder = site
    originals = save_originals(tmp_path / "originals")
    torch.save(to_meta(weights_of(originals["dinov2"]), "dinov2"), tmp_path / "my_vit.pth")
    page = open_page(browser, url)
    page.wait_for_selector("#cost >> text=a picture here")
    picker = page.get_by_role("combobox", name="Backbone")
    picker.fill(str(tmp_path / "my_vit.pth"))
    picker.press("Enter")
    page.wait_for_function("() => document.querySelector('#backbone input').value === 'my_vit · imported'")
    upload_photo(page, ASSETS / "coffee_cup.jpg")
    assert page.inner_text("#attention-status").startswith("my_vit ")
    assert (folder / "weights" / "my_vit" / "source.json").is_file()
    page.context.close()
