"""Table of contents of the web app: header, tabs, and how it is launched."""

import errno
import functools
import importlib.util
import json
import logging
import os
import signal
import socket
import threading
import time
from pathlib import Path

import gradio as gr
import httpx
from gradio import networking
from starlette.middleware import Middleware

from .. import tasks
from ..backbones import Downloads, weights_root
from ..engine.pool import EnginePool
from ..engine.request_log import log_to_stderr
from ..tasks.retrieval.index_store import private_root
from .agents import guard_agents
from .api import build_api
from .gradio_clock import steady_gradio
from .gradio_log import quieten_gradio, quieten_server
from .header import build_facts, build_header
from .health import health_routes
from .i18n import HEAD, SWITCH, component_texts, translate_page, translations
from .memory import UNQUEUED
from .protection import Protection, rules_for
from .security import check_backbone, fetch_nothing, name_foreign_files
from .services import Services
from .settings import Settings

log = logging.getLogger(__name__)
TITLE = "dinodemo"
SUBTITLE = "See what DINO sees in your photos, then put it to work."
MAX_UPLOAD = "100mb"
SESSIONS = 256  # pages kept in memory, the latest used; Gradio's bookkeeping takes 0.8 MB of each, used or not
CACHE_SWEEP = (600, 6 * 3600)  # seconds: how often uploads are swept, and how old they may grow
START_SECONDS = 300  # that a busy machine may take until the server answers
# a link names the tab that it opens; answers.js keeps the name, because the first tab writes its own when it appears
WRITE_TAB = "() => { history.replaceState(null, '', '#%s'); }"
READ_TAB = """() => {
  const known = %s.includes(window.dinodemoTab);
  return known ? {__type__: 'update', selected: window.dinodemoTab} : {__type__: 'update'};
}"""
FONTS = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none from the network


def build_app(services: Services) -> gr.Blocks:
    """Lay out the whole page; loads no backbone."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=CACHE_SWEEP, fill_width=True) as demo:
        with gr.Row(elem_id="top"):
            gr.Markdown(f"# {TITLE}\n{SUBTITLE}", elem_id="title")
            facts = build_facts(services)
            gr.Button("?", size="sm", scale=0, min_width=34, elem_id="help")
            language = gr.Button("한국어", size="sm", scale=0, min_width=90, elem_id="language")  # in Korean: English
            language.click(None, None, None, js=SWITCH, api_visibility="private")
        header = build_header(services, demo, *facts)
        with header.tabs.render():
            for task in tasks.TASKS:
                if room := task.room("tab"):
                    with gr.Tab(task.title, id=task.name, elem_id=f"tab-{task.name}") as tab:
                        room.build(services, header, tab, demo)
                    tab.select(None, None, None, js=WRITE_TAB % task.name, **UNQUEUED)
        names = json.dumps([task.name for task in tasks.TASKS])
        demo.load(None, None, header.tabs, js=READ_TAB % names, **UNQUEUED)
        build_api(services)
    translate_page(demo)
    return demo


def launch(settings: Settings, block: bool = True) -> gr.Blocks:
    """Build and serve the app; the backbone loads in the background once the page can be opened.

    Args:
        settings: What the server was told.
        block: Wait until it ends.

    Returns:
        The running app.

    Raises:
        RuntimeError: When the port is taken, or the settings ask for tools for agents and their package is missing.
    """
    log_to_stderr()
    if settings.mcp:
        if importlib.util.find_spec("mcp") is None:
            raise RuntimeError("--mcp needs more packages; install them with: pip install 'dinodemo[mcp]'")
        guard_agents(settings.auth)
    check_port(settings.port)
    fetch_nothing()
    name_foreign_files()
    quieten_gradio()
    steady_gradio()
    networking.url_ok = wait_for_server
    pool = EnginePool(settings.device, check=functools.partial(check_backbone, settings), downloads=Downloads())
    services = Services(settings, pool)
    demo = build_app(services)
    services.runs.watch()
    demo.queue(default_concurrency_limit=8, max_size=200, api_open=False)  # nobody goes past the queue
    rules = rules_for(settings.local, settings.public, settings.auth is not None, settings.trusted_hosts)
    demo.launch(
        server_name=settings.host,
        server_port=settings.port,
        share=settings.share,
        prevent_thread_lock=True,
        max_file_size=MAX_UPLOAD,
        show_error=False,
        run_history=False,
        ssr_mode=False,
        css=own_text("style.css"),
        js=own_text("page.js"),
        head=page_head(),
        i18n=translations(),
        mcp_server=settings.mcp,
        theme=build_theme(),
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        app_kwargs={"routes": health_routes(services.pool), "middleware": [Middleware(Protection, rules=rules)]},
        auth=settings.auth,
        footer_links=["api"],
        allowed_paths=[],
        blocked_paths=[*_private_folders(settings), str(services.openings.folder)],
    )
    quieten_server()
    threading.Thread(target=services.prepare, name="warm-up", daemon=True).start()
    if block:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the server closes in good order
        demo.block_thread()
        logging.shutdown()
        os._exit(0)  # threads that are inside of native code would abort the interpreter's own way out
    return demo


def own_text(name: str) -> str:
    """Return the content of a style sheet or script of the page."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def page_head() -> str:
    """Return what stands in the page's head: scripts that run before Gradio's, and their texts."""
    korean = json.dumps(dict(component_texts()), ensure_ascii=False).replace("<", "\\u003c")
    texts = own_text("texts.js").replace("/*KOREAN*/{}", korean)
    told = json.dumps(json.loads(own_text("help.json")), ensure_ascii=False).replace("<", "\\u003c")
    drawer = own_text("help.js").replace("/*HELP*/{}", told)
    return f"<script>{own_text('answers.js')}</script><script>{texts}{drawer}</script>{HEAD}"


def check_port(port: int | None) -> None:
    """Raise RuntimeError when another program listens on a port; None is the first free one."""
    if port is None:
        return
    try:
        with socket.create_server(("127.0.0.1", port)):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise RuntimeError(
                f"port {port} is in use; end the other program, or choose another port with --port"
            ) from error


def build_theme() -> gr.themes.Base:
    """Return the page's look: Gradio's, with texts that are read against their ground (WCAG AA, 4.5 to 1)."""
    theme = gr.themes.Default(primary_hue="indigo", spacing_size="sm", font=FONTS["font"], font_mono=FONTS["font_mono"])
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_100",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_400",
        color_accent="*primary_600",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def wait_for_server(url: str) -> bool:
    """Return whether the server answers, after some minutes if the machine is busy: Gradio itself gives up at once."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.head(url, timeout=30, verify=False).status_code < 500:
                return True
        except httpx.HTTPError as error:
            log.info("the server does not answer yet (%s); trying again", type(error).__name__)
        time.sleep(0.5)
    return False


def _private_folders(settings: Settings) -> list[str]:
    """List the folders of which Gradio may serve no file, whatever else is allowed."""
    return [str(folder.resolve()) for folder in (weights_root(), settings.runs_folder(), private_root())]
