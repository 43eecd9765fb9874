"""Tests of dinodemo/cluster.py: the parts without Ray, and a local cluster that loses a process."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinodemo import Engine, cli
from dinodemo.scale import cluster
from dinodemo.scale.cluster import Cluster, Decoder, Network, pack, share_out, unpack
from dinodemo.tasks.retrieval import ImageIndex
from dinodemo.tasks.retrieval.adding import Prepared
from dinodemo.tasks.retrieval.moves import Seen
from dinodemo.tasks.retrieval.sources import open_source
from dinodemo.tasks.retrieval.store import Row

SIDE = 28


def write_photos(folder: Path, count: int) -> Path:
    """Write small photos in two class folders, a twin of the first and a file that is no photo."""
    noise = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        picture = Image.fromarray(noise.integers(0, 256, (40, 50, 3), np.uint8))
        picture.save(folder / ["cats", "dogs"][i % 2] / f"{i}.png")
    (folder / "dogs" / "twin.png").write_bytes((folder / "cats" / "0.png").read_bytes())
    (folder / "cats" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


def contents(path: Path) -> dict[str, tuple]:
    """Return what an index holds of each photo, and its vector, by the photo's sha256."""
    index = ImageIndex(path)
    columns = ["sha256", "label", "nbytes", "mtime_ns", "height", "width", "thumbnail", "backbone", "resolution"]
    read = index._current().read(columns)
    facts = list(zip(*read.values(), strict=True))
    return {row[0]: (row[1:], vector) for row, vector in zip(facts, index.gallery()[1], strict=True)}


def check_equal(one: dict[str, tuple], other: dict[str, tuple]) -> None:
    assert one.keys() == other.keys()
    for digest, (facts, vector) in one.items():
        assert facts[1:] == other[digest][0][1:]  # the label is that of one of the twins
        np.testing.assert_allclose(vector, other[digest][1], atol=1e-3)


def test_both_processes_together_make_the_rows_of_an_index(tiny_folders, tmp_path):
    photos, backbone = write_photos(tmp_path / "photos", 6), str(tiny_folders["dinov2"])
    index = ImageIndex(tmp_path / "index", Engine(backbone), SIDE)
    index.add(photos)
    with open_source(photos) as (items, _):
        prepared = Decoder(frozenset(), SIDE, False)(pack(items))
    assert sum(isinstance(one, Prepared) for one in unpack(prepared)) == 7
    rows = unpack(Network(backbone, index.recipe)(prepared))
    problems = [row for row in rows if isinstance(row, tuple)]
    assert [name for name, _ in problems] == [(photos / "cats" / "broken.jpg").as_posix()]
    there = contents(tmp_path / "index")
    for row in rows:
        if isinstance(row, Row):
            np.testing.assert_allclose(row.vector, there[row.sha256][1], atol=1e-3)
            assert row.thumbnail == there[row.sha256][0][5]


def test_known_content_is_not_decoded_again(tmp_path):
    with open_source(write_photos(tmp_path, 2)) as (items, _):
        first = unpack(Decoder(frozenset(), SIDE, False)(pack(items)))
        digests = frozenset(one.digest for one in first if isinstance(one, Prepared))
        again = unpack(Decoder(digests, SIDE, False)(pack(items)))
    assert sum(isinstance(one, Seen) for one in again) == 3


def test_a_machine_with_other_weights_is_refused(tiny_folders, tmp_path):
    recipe = cluster.Recipe("another", SIDE, "cls", 32)
    with pytest.raises(RuntimeError, match="in the place of another"):
        Network(str(tiny_folders["dinov2"]), recipe)


@pytest.mark.parametrize(
    ("resources", "workers", "expected"),
    [
        ({"CPU": 2.0}, None, (1, 1, 0)),
        ({"CPU": 16.0}, None, (4, 12, 0)),
        ({"CPU": 16.0, "GPU": 2.0}, None, (14, 2, 1)),
        ({"CPU": 16.0, "GPU": 2.0}, 1, (15, 1, 1)),
        ({"CPU": 4.0}, 2, (2, 2, 0)),
    ],
)
def test_a_cluster_is_shared_out(resources, workers, expected):
    assert share_out(resources, workers) == expected


@pytest.mark.parametrize(
    ("resources", "workers"), [({"CPU": 1.0}, None), ({"CPU": 8.0, "GPU": 1.0}, 2), ({"CPU": 2.0}, 2)]
)
def test_a_cluster_that_is_too_small_says_so(resources, workers):
    with pytest.raises(ValueError, match="too few for"):
        share_out(resources, workers)


def test_without_ray_the_command_says_what_to_install(tiny_folders, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out, backbone = tmp_path / "index", str(tiny_folders["dinov2"])
    assert cli.main(["embed", str(tmp_path), "--ray", "--out", str(out), "--backbone", backbone]) == 1
    assert "pip install 'dinodemo[ray]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--workers", "2", "--out", "a.npz"], "need --ray"),
        (["--out", "s3://bucket/a.npz"], "need --ray"),
        (["--ray", "--overwrite", "--out", "index"], "do nothing with --ray"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, reason, capsys):
    assert cli.main(["embed", "photos", *options]) == 1
    assert reason in capsys.readouterr().err


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    """Start a cluster of four CPUs on this machine."""
    ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'dinodemo[ray]')")
    pytest.importorskip("ray.data", reason="Ray is installed without its data part (pip install 'dinodemo[ray]')")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # Ray writes there
        ray.init(num_cpus=4, num_gpus=0, log_to_driver=False, include_dashboard=False)
        yield ray
        ray.shutdown()


def processes_below(pid: int, name: str) -> list[int]:
    """Return the processes that descend from one and whose command line holds a name."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if name in (folder / "cmdline").read_text():
                found.append(int(folder.name))
        except OSError:
            continue  # it has ended meanwhile
    return [one for one in found if pid in ancestors(one, parents)]


def ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    above = set()
    while pid in parents:
        pid = parents[pid]
        above.add(pid)
    return above


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the process to kill in /proc")
def test_an_index_made_by_a_cluster_that_loses_a_process_is_the_same(ray, tiny_folders, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ITEMS_A_TASK", 16)
    photos, backbone = write_photos(tmp_path / "photos", 600), str(tiny_folders["dinov2"])
    alone = ImageIndex(tmp_path / "alone", Engine(backbone), SIDE)
    alone.add(photos)
    machines, killed = Cluster(backbone, workers=2), []

    def rows(*arguments):
        for count, row in enumerate(machines.rows(*arguments)):
            if count == 0:
                networks = processes_below(os.getpid(), "MapBatches(Network)")
                assert len(networks) == 2
                os.kill(networks[0], signal.SIGKILL)
                killed.append(networks[0])
            yield row

    index = ImageIndex(tmp_path / "index", machines, SIDE)
    report = index.add(photos, make_rows=rows)
    assert killed and (report.added, report.skipped, len(report.problems)) == (600, 1, 1)
    check_equal(contents(tmp_path / "alone"), contents(tmp_path / "index"))

    again = index.add(photos, make_rows=machines.rows)
    assert (again.added, again.skipped) == (0, 601)
    hits = ImageIndex(tmp_path / "index", Engine(backbone)).search(photos / "dogs" / "1.png", k=1)
    assert hits[0].path == (photos / "dogs" / "1.png").as_posix()


def test_the_command_goes_on_where_it_was_stopped(ray, tiny_folders, tmp_path, capsys):
    photos, out = write_photos(tmp_path / "photos", 40), tmp_path / "index"
    backbone = str(tiny_folders["dinov2"])
    ImageIndex(out, Engine(backbone), SIDE).add(photos / "cats")
    command = ["embed", photos.as_uri(), "--ray", "--workers", "1", "--out", str(out), "--resolution", str(SIDE)]
    assert cli.main(command) == 3
    told = capsys.readouterr()
    assert "20 added, 21 were there already; 40 photos" in told.out and "broken.jpg" in told.err
