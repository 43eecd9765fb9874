"""Builds and launches the web app; also the entry of a Hugging Face Space."""

import os
import sys

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before Gradio is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

from dinodemo.web import settings
from dinodemo.web.app import launch

if __name__ == "__main__":
    try:
        launch(settings.parse())
    except (RuntimeError, ValueError) as error:
        sys.exit(f"dinodemo: {error}")
