"""Upload a model folder to the Hugging Face hub with a person's own token."""

import re
from pathlib import Path

from .hub import host

_TOKEN = re.compile(r"[\x21-\x7e]{8,200}")  # anything else would end in an error of the HTTP client that quotes it
_NAME = re.compile(r"([A-Za-z0-9][\w.-]{0,95}/)?[A-Za-z0-9][\w.-]{0,95}")


def publish_folder(folder: str | Path, name: str, token: str, private: bool = True) -> str:
    """Upload a model folder; the token is neither kept nor logged.

    Args:
        folder: holds the model's files.
        name: "me/my-backbone", or "my-backbone" for the repository of that name of the token's owner.
        token: with the right to write.
        private: whether only its owner sees a repository that is made; one that exists stays as it is.

    Returns:
        The address of the repository.

    Raises:
        ValueError: for a name or token that is none.
        RuntimeError: when the hub refuses or cannot be reached.
    """
    name, token = name.strip(), token.strip()
    if not name or not token:
        raise ValueError("name the repository (me/my-backbone) and give a token with write access")
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no repository name; write it as me/my-backbone")
    if not _TOKEN.fullmatch(token):
        raise ValueError("that is no token: it has spaces, line breaks or letters that tokens never have; copy it anew")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import httpx

    try:
        api = HfApi(token=token)
        full = name if "/" in name else f"{api.whoami()['name']}/{name}"
        address = api.create_repo(full, private=private, exist_ok=True)
        api.upload_folder(repo_id=full, folder_path=folder, commit_message="Add a backbone tuned with dinodemo")
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no repository name; write it as me/my-backbone") from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:  # its text may name the request
        status = getattr(getattr(error, "response", None), "status_code", None)
        raise RuntimeError(_refusal(status)) from None
    return str(address)


def _refusal(status: int | None) -> str:
    if status is None:
        return f"{host()} cannot be reached; nothing was published"
    why = {401: "the token is not valid", 403: "the token may not write there"}.get(status, "try again later")
    return f"{host()} did not take it (status {status}): {why}"
