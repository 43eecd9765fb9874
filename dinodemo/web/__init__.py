"""The web app: one file per tab, shared parts beside them; `app.py` is the table of contents."""

from .gradio_import import skip_editor_support

skip_editor_support()  # here, because it has to come before anything imports Gradio
