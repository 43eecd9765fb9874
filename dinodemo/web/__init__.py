"""The web app: one file per tab, shared parts beside them; `app.py` is the table of contents."""
