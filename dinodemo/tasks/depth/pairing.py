"""Which photo belongs to which depth map, by their names: the layouts of public sets, time stamps, tables."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import PurePosixPath

from ...io.files import PHOTO_SUFFIXES
from .depthmap import sees_depth
from .files import DEPTH_TYPES, Entry, Problem

PHOTO_WORDS = {"rgb", "image", "images", "im", "img", "imgs", "color", "colour", "colors", "colours", "photo", "photos"}
DEPTH_WORDS = {"depth", "depths", "gt", "groundtruth", "disparity", "disparities", "disp", "dpt", "depthmap"} | {
    "invdepth",
    "depthmaps",
    "dmap",
    "inverse",
    "midas",
}
INVERSE_WORDS = {"disparity", "disparities", "disp", "inverse", "invdepth", "inv", "midas"}
FILLERS = {
    "sync",
    "raw",
    "proj",
    "frame",
    "frames",
    "abs",
    "inverse",
    "inv",
    "midas",
    "vis",
    "registered",
    "aligned",
    "data",
    "left",
    "meters",
    "metres",
    "meter",
    "metre",
    "mm",
}
STEREO = (("left", "right"), ("image_2", "image_3"), ("image_02", "image_03"))  # folders; the depth is the first one's
OTHER_WORDS = {"mask", "masks", "normal", "normals", "semantic", "segmentation", "confidence", "valid"}
ENDING = re.compile(rf"[_.-]({'|'.join(sorted(PHOTO_WORDS | DEPTH_WORDS))})$", re.IGNORECASE)
WORD = re.compile(r"[a-z]+|\d+", re.IGNORECASE)
STAMP = re.compile(r"^(\d{9,10}\.\d{1,9}|\d{13}|\d{16}|\d{19}|\d{1,9}\.\d{3,9})$")
INDEX_AND_TIME = re.compile(r"^(\d{3,8})-\d{6,19}$")
LEAST_TOLERANCE, MOST_TOLERANCE = 0.02, 0.2  # seconds between a photo's stamp and its depth map's
ALIKE = 0.6  # of the shorter stem, that a common part needs

SAME, LOOSE, STEM = "same name", "same name but for words like rgb and depth", "longest common name"
OTHER_FOLDER, TABLE_ROW = "same name in another folder", "table"


@dataclass(frozen=True)
class Match:
    """A photo, its depth map, and by what they were found to belong together."""

    photo: Entry
    depth: Entry
    by: str


def is_inverse(name: PurePosixPath) -> bool:
    """Return whether a depth map's path says that larger values are nearer: disparity, inverse depth, MiDaS."""
    return any(word in INVERSE_WORDS for part in name.with_suffix("").parts for word in words(part))


def words(part: str) -> list[str]:
    """Split a part of a path into words and numbers, in lower case."""
    return [word.lower() for word in WORD.findall(part)]


def match_names(entries: Sequence[Entry], problems: list[Problem]) -> list[Match]:
    """Pair photos and depth maps by names and time stamps; what stays alone or is there twice becomes a problem."""
    photos: list[Entry] = []
    depths: list[Entry] = []
    for entry in entries:
        role = role_of(entry)
        if role:
            (depths if role == "depth" else photos).append(entry)
        else:
            problems.append((str(entry.name), "is a mask or another map, neither photo nor depth; left out"))
    return match(_without_right_ones(photos, depths, problems), depths, problems)


def _without_right_ones(photos: list[Entry], depths: list[Entry], problems: list[Problem]) -> list[Entry]:
    """Leave out the right pictures of stereo pairs, where the depth maps do not say whose they are."""
    names = {str(entry.name) for entry in photos}
    kept = photos
    for left, right in STEREO:
        side = re.compile(rf"(?<![a-z0-9])({left}|{right})(?![a-z0-9])", re.IGNORECASE)
        if any(side.search(str(entry.name)) for entry in depths):
            continue
        other = re.compile(rf"(?<![a-z0-9]){right}(?=[^/]*/)", re.IGNORECASE)
        rights = [e for e in kept if other.search(str(e.name)) and other.sub(left, str(e.name)) in names]
        problems += [(str(e.name), "is the right picture of a stereo pair; the left one was taken") for e in rights]
        kept = [entry for entry in kept if entry not in rights]
    return kept


def match(photos: list[Entry], depths: list[Entry], problems: list[Problem], folders: bool = True) -> list[Match]:
    """Pair photos with depth maps, the strictest rule first.

    Args:
        photos: To pair.
        depths: To pair.
        problems: What stays alone or is there twice is added.
        folders: Whether files of one pair must lie in folders of the same name but for words like rgb and depth.

    Returns:
        The pairs.
    """
    found: list[Match] = []
    clashes: list[list[Entry]] = []
    rules: list[tuple[str, Callable[[Entry], tuple]]] = [
        (SAME, lambda entry: strict_key(entry.name, folders)),
        (LOOSE, lambda entry: loose_key(entry.name, folders)),
    ]
    for by, key in rules:
        pairs, photos, depths, several = _by_key(photos, depths, key)
        found += [Match(photo, depth, by) for photo, depth in pairs]
        clashes += several
    for rule in (_by_stamps, _by_index, _by_common_stem):
        for ours, theirs in _by_folder(photos, depths, folders):
            found += rule(ours, theirs)
        taken = {id(one) for match in found for one in (match.photo, match.depth)}
        photos, depths = ([e for e in side if id(e) not in taken] for side in (photos, depths))
    if all(len({entry.name.parent for entry in side}) == 1 for side in (photos, depths)):  # left/1 and lidar/1
        pairs, photos, depths, several = _by_key(photos, depths, lambda entry: loose_key(entry.name, False))
        found += [Match(photo, depth, OTHER_FOLDER) for photo, depth in pairs]
        clashes += several
    _name_the_rest(photos, depths, clashes, problems)
    return sorted(found, key=lambda match: str(match.photo.name))


def role_of(entry: Entry) -> str:
    """Return "photo", "depth", or "" for masks and other maps: by suffix, words, then content."""
    name = entry.name
    suffix = name.suffix.lower()
    if suffix in DEPTH_TYPES - PHOTO_SUFFIXES:
        return "" if _says(name.stem, OTHER_WORDS) else "depth"
    if suffix not in DEPTH_TYPES:
        return "photo"
    for part in (name.stem, "/".join(name.parts[:-1])):
        photo, depth = _says(part, PHOTO_WORDS), _says(part, DEPTH_WORDS)
        if photo != depth:
            return "depth" if depth else "photo"
    if _says(name.stem, OTHER_WORDS):
        return ""
    return "depth" if sees_depth(entry.read()) else "photo"


def strict_key(name: PurePosixPath, folders: bool = True) -> tuple:
    """Return what both names share when they differ only in one folder or one ending: rgb/x and depth/x, x_depth."""
    parts = [part for part in name.parts[:-1] if part.lower() not in PHOTO_WORDS | DEPTH_WORDS] if folders else []
    return (*parts, ENDING.sub("", name.stem))


def loose_key(name: PurePosixPath, folders: bool = True) -> tuple:
    """Return what stays of a name without all words for photo and depth, and without zeros before numbers."""
    stripped = [_strip(part) for part in name.parts[:-1]] if folders else []
    return (*(part for part in stripped if part), "/", _strip(name.stem))


def _strip(part: str) -> str:
    kept = [word for word in words(part) if word not in PHOTO_WORDS | DEPTH_WORDS | FILLERS]
    return "_".join(word.lstrip("0") or "0" if word.isdigit() else word for word in kept)


def _says(part: str, among: set[str]) -> bool:
    return any(word in among for word in words(part))


def _by_key(photos: list[Entry], depths: list[Entry], key: Callable[[Entry], tuple]):
    """Return pairs of equal key, the photos and depth maps that stay, and groups with several of one key."""
    groups: dict[tuple, tuple[list[Entry], list[Entry]]] = {}
    for side, entries in enumerate((photos, depths)):
        for entry in entries:
            groups.setdefault(key(entry), ([], []))[side].append(entry)
    pairs, several = [], []
    left: tuple[list[Entry], list[Entry]] = ([], [])
    for name in sorted(groups):
        ours, theirs = groups[name]
        if len(ours) == len(theirs) == 1:
            pairs.append((ours[0], theirs[0]))
        elif ours and theirs:
            several.append(ours + theirs)
        else:
            left[0].extend(ours)
            left[1].extend(theirs)
    return pairs, left[0], left[1], several


def _by_folder(photos: list[Entry], depths: list[Entry], folders: bool):
    """Yield the photos and depth maps whose folders are the same but for words like rgb and depth."""
    groups: dict[tuple, tuple[list[Entry], list[Entry]]] = {}
    for side, entries in enumerate((photos, depths)):
        for entry in entries:
            key = loose_key(entry.name, folders)[:-1]
            groups.setdefault(key, ([], []))[side].append(entry)
    yield from (groups[key] for key in sorted(groups) if all(groups[key]))


def seconds_of(stem: str) -> float | None:
    """Return the time of a stem that is a time stamp: seconds with a fraction, or whole ms, us or ns since 1970."""
    plain = re.sub(r"^[a-z_-]+", "", stem, flags=re.IGNORECASE)
    if not STAMP.match(plain):
        return None
    return float(plain) if "." in plain else int(plain) / 10 ** (len(plain) - 10)


def _by_stamps(photos: list[Entry], depths: list[Entry]) -> list[Match]:
    """Pair the nearest time stamps, as TUM's tools do: each once, the closest first."""
    times = [[(seconds_of(entry.name.stem), entry) for entry in side] for side in (photos, depths)]
    ours, theirs = ([(t, e) for t, e in side if t is not None] for side in times)
    if not ours or not theirs:
        return []
    stamps = sorted(t for t, _ in ours)
    steps = sorted(b - a for a, b in pairwise(stamps))
    half = steps[len(steps) // 2] / 2 if steps else LEAST_TOLERANCE
    tolerance = min(max(half, LEAST_TOLERANCE), MOST_TOLERANCE)
    near = sorted(
        (
            (abs(t - u), i, j)
            for i, (t, _) in enumerate(ours)
            for j, (u, _) in enumerate(theirs)
            if abs(t - u) <= tolerance
        )
    )
    found, used_ours, used_theirs = [], set(), set()
    for apart, i, j in near:
        if i not in used_ours and j not in used_theirs:
            used_ours.add(i)
            used_theirs.add(j)
            found.append(Match(ours[i][1], theirs[j][1], f"time stamps {1000 * apart:.0f} ms apart"))
    return found


def _by_index(photos: list[Entry], depths: list[Entry]) -> list[Match]:
    """Pair names that are a number and a time, 0000012-000000367033, by the number."""

    def key(entry: Entry) -> tuple:
        found = INDEX_AND_TIME.match(_bare(entry.name.stem))
        return (int(found[1]),) if found else ("", str(entry.name))

    pairs, *_ = _by_key(photos, depths, key)
    return [Match(photo, depth, "same number before the time") for photo, depth in pairs if len(key(photo)) == 1]


def _bare(stem: str) -> str:
    return re.sub(r"^[a-z_]+", "", stem, flags=re.IGNORECASE)


def _by_common_stem(photos: list[Entry], depths: list[Entry]) -> list[Match]:
    """Pair names that share their numbers and the longest common part, where each is the other's only choice."""

    def score(photo: Entry, depth: Entry) -> float:
        one, other = photo.name.stem.lower(), depth.name.stem.lower()
        if [int(n) for n in re.findall(r"\d+", one)] != [int(n) for n in re.findall(r"\d+", other)]:
            return 0.0
        common = SequenceMatcher(None, one, other, autojunk=False).find_longest_match().size
        return common / min(len(one), len(other))

    if len(photos) * len(depths) > 250_000:  # names like these would take minutes, and none of them is clear
        return []
    table = [[score(photo, depth) for depth in depths] for photo in photos]
    found = []
    for i, row in enumerate(table):
        best = max(row)
        columns = [j for j, value in enumerate(row) if value == best]
        if best < ALIKE or len(columns) > 1:
            continue
        rivals = [k for k in range(len(photos)) if table[k][columns[0]] >= best]
        if rivals == [i]:
            found.append(Match(photos[i], depths[columns[0]], STEM))
    return found


def _name_the_rest(
    photos: list[Entry], depths: list[Entry], clashes: list[list[Entry]], problems: list[Problem]
) -> None:
    problems += [(str(e.name), "has no photo of the same name; add it") for e in depths]
    problems += [(str(e.name), "has no depth map of the same name; add it") for e in photos]
    for group in clashes:
        listed = ", ".join(str(entry.name) for entry in group[:6])
        reason = f"{listed} share one name; keep one photo and one depth map"
        problems += [(str(entry.name), reason) for entry in group]
