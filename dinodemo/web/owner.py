"""The key that names a browser's own indexes and runs."""

import secrets


def new_owner() -> str:
    """Return a key as the browser makes one: 192 random bits."""
    return secrets.token_urlsafe(24)
