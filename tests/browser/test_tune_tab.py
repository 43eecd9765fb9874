"""Fine-tuning as a person does it: photos, a short run that outlives the page, stop, resume, use the result."""

import io
import zipfile

import pytest
from patience import SECONDS
from PIL import Image

from .helpers import ASSETS, download, upload_photo


def make_folder(root):
    """Write two class folders of twenty crops each."""
    for name in ("coffee_cup", "cat_chelsea"):
        (root / name).mkdir(parents=True)
        with Image.open(ASSETS / f"{name}.jpg") as photo:
            photo.thumbnail((200, 200))
            for i in range(20):
                photo.crop((i, i, photo.width - 20 + i, photo.height - 20 + i)).save(root / name / f"{i}.jpg")
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos") / "tune")


def open_tab(page, step: str = "1. Photos and settings"):
    page.get_by_role("tab", name="Fine-tune", exact=True).click()
    page.get_by_role("tab", name=step, exact=True).click()


def set_field(page, name: str, value: str) -> None:
    """Change a setting where all of them are listed."""
    field = page.locator(f"#tune-fields input[aria-label={name}]")
    field.fill(value)
    field.press("Enter")
    page.wait_for_selector(f"#tune-command >> text={name}={value}")


def wait_for_state(page, text: str, seconds: int = 180) -> None:
    page.wait_for_selector(f"#run-status >> text={text}", timeout=1000 * max(seconds, SECONDS))


def test_a_run_survives_a_reload_is_stopped_resumed_finished_and_used(page, folder, tmp_path, screenshot):
    open_tab(page)
    page.set_input_files("#tune-picker input.folder", str(folder))
    page.wait_for_selector("#tune-about >> text=40 photos")
    assert "2 class folders" in page.inner_text("#tune-about")
    assert not page.get_by_role("button", name="Demo: collapse").is_visible()  # nothing of it applies
    page.get_by_role("radio", name="Self-distillation").click()
    page.get_by_role("button", name="Demo: collapse").wait_for()
    page.get_by_role("radio", name="30 minutes").click()
    page.get_by_role("button", name="All settings").click()
    for name, value in (("steps", "20"), ("batch_size", "4"), ("n_local", "1"), ("eval_every", "10")):
        set_field(page, name, value)
    set_field(page, "max_blocks", "2")
    command = page.inner_text("#tune-command")  # what was set by hand stays, what follows from it is not set by hand
    assert "batch_size=4" in command and "n_local=1" in command and "lr=" not in command
    assert "objective=dino" in command and "minutes=30" in command
    screenshot(page, "tune")
    page.click("#tune-start")
    wait_for_state(page, "of 20")
    page.reload()
    open_tab(page, "3. Run and result")
    wait_for_state(page, "of 20")
    page.wait_for_function("() => /step [1-9]/.test(document.querySelector('#run-status').innerText)")
    page.click("#run-cancel")
    wait_for_state(page, "was stopped")
    page.click("#run-go-on")
    wait_for_state(page, "is finished")
    page.wait_for_selector("#run-verdict >> text=the start")
    film = page.locator("#run-film img")
    assert film.count() >= 6 * 2  # three photos, patches and attention
    assert film.nth(5).bounding_box()["y"] == film.nth(0).bounding_box()["y"] < film.nth(6).bounding_box()["y"]
    for plot in ("losses", "measure", "health", "rates"):
        assert page.locator(f"#run-{plot} canvas, #run-{plot} svg").count()
    screenshot(page, "tune-run")

    name, content = download(page, "#run-zip")
    assert name == "my_photos-model.zip"
    zipfile.ZipFile(io.BytesIO(content)).extractall(tmp_path / "model")
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoModel.from_pretrained(tmp_path / "model").config.hidden_size == 384

    page.click("#run-use")
    page.wait_for_function("() => /tuned/.test(document.querySelector('#backbone input').value)")
    page.get_by_role("tab", name="Attention", exact=True).click()
    upload_photo(page, ASSETS / "coffee_cup.jpg")
    assert "my_photos" in page.inner_text("#attention-status")


def test_another_browser_sees_no_runs_and_bad_requests_are_told(open_page, folder):
    page = open_page()
    open_tab(page, "3. Run and result")
    assert "No run yet" in page.inner_text("#run-status")
    open_tab(page)
    page.click("#tune-start")
    page.get_by_text("There are no photos yet").first.wait_for()


def test_typed_settings_stay_until_they_are_emptied_and_wrong_ones_are_named(page, screenshot):
    open_tab(page)
    page.get_by_role("button", name="All settings").click()
    assert not page.locator("#tune-fields input[aria-label=n_local]").count()  # of self-distillation
    page.get_by_role("radio", name="Self-distillation").click()
    page.locator("#tune-fields input[aria-label=n_local]").wait_for()
    field, command = page.locator("#tune-fields input[aria-label=lr]"), page.locator("#tune-command")
    field.wait_for()
    chosen = field.input_value()
    for name, value in (("batch_size", "4"), ("n_local", "3"), ("lr", "0.005")):  # without waiting for an answer
        page.locator(f"#tune-fields input[aria-label={name}]").fill(value)
    field.press("Enter")
    page.wait_for_function("""() => ["batch_size=4", "n_local=3", "lr=0.005"].every(
        (part) => document.querySelector("#tune-command").innerText.includes(part))""")
    field.fill("fast")
    field.press("Enter")
    page.get_by_text("lr").filter(has_text="fast").first.wait_for()  # the message, naming the field
    field.fill("")
    field.press("Enter")
    page.get_by_role("searchbox", name="Search settings").fill("learning rate")
    page.wait_for_function("() => !/ lr=/.test(document.querySelector('#tune-command').innerText)")
    assert "batch_size=4" in command.inner_text() and "n_local=3" in command.inner_text()
    page.wait_for_function("() => document.querySelector('#tune-fields input[aria-label=lr]').value")
    assert float(field.input_value()) < float(chosen)  # chosen again, for the smaller batch
    assert not page.locator("#tune-fields .row:has-text('prototypes')").first.is_visible()
    screenshot(page, "tune-settings")


def test_each_photo_as_its_own_class_within_a_time_that_is_remembered(page, folder, screenshot):
    open_tab(page)
    page.set_input_files("#tune-picker input.folder", str(folder))
    page.wait_for_selector("#tune-about >> text=40 photos")
    page.get_by_role("radio", name="5 minutes").click()
    page.wait_for_selector("#tune-price >> text=It ends within 5 min")
    page.wait_for_selector("#tune-command >> text=objective=diet")
    page.get_by_role("radio", name="Sharpen with my labels").click()
    page.wait_for_selector("#tune-command >> text=objective=labels")
    page.reload()
    open_tab(page)
    page.wait_for_selector("#tune-command >> text=objective=labels --set minutes=5")
    page.get_by_role("radio", name="Photos alone").click()
    page.wait_for_selector("#tune-command >> text=objective=diet")
    screenshot(page, "tune-photos")
    page.click("#tune-start")
    wait_for_state(page, "is finished")
    page.wait_for_selector("#run-verdict >> text=the start")
    screenshot(page, "tune-photos-run")


def test_the_check_says_whether_training_is_worth_it(page, folder, screenshot):
    open_tab(page)
    page.set_input_files("#tune-picker input.folder", str(folder))
    page.wait_for_selector("#tune-about >> text=40 photos")
    page.get_by_role("tab", name="2. Check the photos", exact=True).click()
    page.click("#check-start")
    page.wait_for_selector("#check-status >> text=Worth it?")
    screenshot(page, "tune-check")


def test_stop_ends_the_unpacking_of_a_zip_and_keeps_what_is_there(page, tmp_path):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(20_000):
            archive.writestr(f"{i}.png", stream.getvalue())
    open_tab(page)
    page.set_input_files("#tune-picker input.files", str(tmp_path / "many.zip"))
    page.click("#tune-stop")
    page.wait_for_selector("#tune-about >> text=stopped here; the rest was left out")
    count = int(page.inner_text("#tune-about strong").split()[0])
    assert 0 <= count < 20_000
    assert not page.is_visible("#tune-stop")
    page.reload()
    open_tab(page)
    page.wait_for_selector(f"#tune-about >> text={count} photos")
