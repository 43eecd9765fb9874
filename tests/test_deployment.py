"""What a deployment is told: locks, Dockerfile, options, the header that a Space reads. There is no Docker in here."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from dinodemo.web import settings

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ["requirements.lock", "requirements-cpu.lock"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
WANTED = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def locked(name: str) -> dict[str, tuple[Version, int]]:
    """Return each package's version and number of hashes."""
    pattern = r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    entries = re.findall(pattern, (ROOT / name).read_text(), re.MULTILINE)
    return {package: (Version(version), hashes.count("--hash")) for package, version, hashes in entries}


def instructions(word: str) -> list[str]:
    joined = DOCKERFILE.replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{word} ")]


def front_matter() -> dict[str, str]:
    head = (ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1]
    return dict(line.split(": ", 1) for line in head.splitlines() if re.match(r"\w+: ", line))


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_holds_what_is_required_with_hashes(name):
    found, lines = locked(name), (ROOT / name).read_text().splitlines()
    assert len(found) == sum("==" in line for line in lines)  # none without a hash
    wrong = [str(r) for r in WANTED if r.name not in found or not r.specifier.contains(found[r.name][0].public)]
    assert wrong == [], f"run `make lock`: {wrong}"


def test_one_lock_brings_cuda_and_the_other_does_not():
    assert any(name.startswith("nvidia-") for name in locked(LOCKS[0]))
    assert not any(name.startswith("nvidia-") for name in locked(LOCKS[1]))
    same = {name for name in locked(LOCKS[0]) if not re.match("nvidia-|cuda-|triton|torch", name)}
    assert same <= set(locked(LOCKS[1]))


def test_the_image_is_made_of_what_is_there():
    sources = [part for line in instructions("COPY") for part in line.split()[:-1] if not part.startswith("--")]
    assert {"app.py", "dinodemo", "assets", "weights", *LOCKS} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == allowed
    assert instructions("ARG") == [f"LOCK={LOCKS[1]}"]


def test_the_image_has_the_python_of_the_package_and_of_a_space():
    (base,) = instructions("FROM")
    version = re.match(r"python:(\d+\.\d+)", base)[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(version)
    assert front_matter()["python_version"].strip('"') == version
    assert f"--python-version {version}" in (ROOT / "Makefile").read_text()


def test_the_image_starts_the_app_for_strangers_and_is_asked_how_it_is(monkeypatch):
    for pair in " ".join(instructions("ENV")).split():
        monkeypatch.setenv(*pair.split("=", 1))
    told = settings.parse(["--backbone", "b"])
    assert (told.host, told.port, told.runs, told.public) == ("0.0.0.0", 7860, "/data/runs", True)
    assert ast.literal_eval(instructions("CMD")[-1]) == ["python", "app.py"]
    assert instructions("EXPOSE") == ["7860"] and instructions("USER") == ["person"]
    assert "/healthz" in instructions("HEALTHCHECK")[0]


def test_a_space_gets_the_gradio_of_the_lock():
    head = front_matter()
    assert head["sdk"] == "gradio" and (ROOT / head["app_file"]).is_file()
    assert all(locked(name)["gradio"][0] == Version(head["sdk_version"]) for name in LOCKS)


def test_every_option_is_explained():
    page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    options = re.findall(r'"--([a-z-]+)"', Path(settings.__file__).read_text(encoding="utf-8"))
    options += [name.replace("_", "-") for name, *_ in settings.RUN_LIMITS]
    assert "host" in options and [o for o in options if f"`--{o}`" not in page] == []
    assert [o for o in options if f"`{o.upper().replace('-', '_')}`" not in page] == []
