"""What pages hold together stays within the memory that the server gives for it."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from dinodemo.tasks.segmentation import results_tab
from dinodemo.tasks.segmentation.draw import Look, Reference
from dinodemo.tasks.segmentation.search_tab import Asked, search
from dinodemo.web.page_memory import PageMemory, PageResults


def test_the_page_that_changed_longest_ago_lets_go_first():
    page_memory, pages = PageMemory(100), [PageResults() for _ in range(4)]
    for page in pages[:3]:
        page_memory.put(page, (30,), int)
    page_memory.put(pages[0], (30, 1), int)  # now it is the latest
    page_memory.put(pages[3], (30,), int)
    assert [page.gone for page in pages] == [False, True, False, False]
    assert pages[1].results == () and pages[0].results == (30, 1)


def test_a_page_keeps_its_own_however_large_and_those_that_left_do_not_count():
    page_memory, page = PageMemory(100), PageResults()
    page_memory.put(PageResults(), (90,), int)
    gc.collect()
    page_memory.put(page, (60,), int)
    other = PageResults()
    page_memory.put(other, (500,), int)
    assert page.gone and other.results == (500,)
    page_memory.put(page, (1,), int)  # it searches again
    assert not page.gone and other.gone


def test_a_search_holds_its_results_until_others_need_the_memory(engine, make_picture, tmp_path):
    from PIL import Image

    paths = []
    for i in range(3):
        Image.fromarray(make_picture(seed=i)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    services = SimpleNamespace(pool=SimpleNamespace(get=lambda name: engine), page_memory=PageMemory(1))
    photo = results_tab.draw.Photo(make_picture(), "a.png")
    mask = np.zeros((60, 90), bool)
    mask[10:30, 20:50] = True
    wanted = [Reference(photo, mask, np.zeros_like(mask), "cup")]
    asked, look = Asked("b", 70, "kind"), Look(0.5, 0.5, "outline")
    first = list(search(services, wanted, [], paths, asked, look))[-1][0]
    assert len(first.results) == 3
    second = list(search(services, wanted, [], paths[:1], asked, look))[-1][0]
    assert len(second.results) == 1 and first.results == ()
    for use in (
        lambda: results_tab.show_one(first, 0.5, 0.5, "outline"),
        lambda: results_tab._zip_file(first, 0.5, 0.5, "outline"),
        lambda: results_tab.on_toggle([], first, 0.5, 0.5, "outline"),
    ):
        with pytest.raises(Exception, match="were let go, because others needed the server's memory"):
            use()
    assert results_tab.show_thumbs(first, 0.5, 0.5, "outline") == []
