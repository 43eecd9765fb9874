# %% [markdown]
# # Self-supervised vision features: a companion to a lecture
#
# From self-distillation and its collapse to what frozen features can do: k-NN, linear probe, attention, PCA,
# segmentation, depth, retrieval. Everything runs on a CPU in some minutes, on shapes that are drawn here and on the
# photos that come with dinodemo. Each section has its equation, one figure, and something to change.
#
#     python lecture/companion.py            # all of it; figures land in lecture/figures/
#     python lecture/companion.py --fast     # smaller and quicker: to see that it runs
#
# The same as a notebook: `lecture/companion.ipynb`, made from this file by `make notebook`.
# Needed besides dinodemo: matplotlib, and the weights of the default backbone (`dinodemo weights fetch`).

# %%
import os
import sys
import tempfile
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import torch

import dinodemo
from dinodemo import Engine
from dinodemo.backbones import OFFLINE_DEFAULT, find_local
from dinodemo.engine.devices import limit_threads
from dinodemo.io.images import fit_within, load_image
from dinodemo.io.render import distinct_colours, overlay, pca_picture
from dinodemo.tasks.attention.maps import attention_map
from dinodemo.tasks.depth import DepthProbe
from dinodemo.tasks.pca.basis import PatchPCA
from dinodemo.tasks.probe import evaluate_knn, evaluate_linear
from dinodemo.tasks.retrieval import ImageIndex
from dinodemo.tasks.segmentation import ReferenceSegmenter
from dinodemo.train import FinetuneConfig
from dinodemo.train.augment import MultiCrop
from dinodemo.train.losses import sinkhorn_knopp, softmax_center
from dinodemo.train.masking import block_masks
from dinodemo.train.metrics import effective_rank, entropies
from dinodemo.train.network import load_backbone, tokens
from dinodemo.train.ssl import SelfDistillation

FAST = "--fast" in sys.argv or os.environ.get("LECTURE_FAST") == "1"
ROOT = Path(dinodemo.__file__).resolve().parents[1]
ASSETS = ROOT / "assets"
FIGURES = Path(os.environ.get("LECTURE_FIGURES", ROOT / "lecture" / "figures"))
FIGURES.mkdir(parents=True, exist_ok=True)
limit_threads()
rng = np.random.default_rng(0)


def save(figure, name: str) -> None:
    """Write a figure to the folder of figures."""
    figure.tight_layout()
    figure.savefig(FIGURES / f"{name}.png", dpi=60 if FAST else 110)
    if "ipykernel" in sys.modules:  # in a notebook it is shown, too
        plt.show()
    plt.close(figure)


def show(name: str, pictures: list, titles: list[str], rows: int = 1) -> None:
    """Draw pictures in rows and save them as one figure."""
    columns = len(pictures) // rows
    figure, axes = plt.subplots(rows, columns, figsize=(2.4 * columns, 2.4 * rows), squeeze=False)
    for axis, picture, title in zip(axes.flat, pictures, titles, strict=True):
        axis.imshow(picture[:: max(1, len(picture) // 300), :: max(1, len(picture) // 300)])
        axis.set_title(title, fontsize=8)
        axis.axis("off")
    save(figure, name)


# %% [markdown]
# ## 1. The data of the first half: shapes
#
# Circles, triangles, squares and stars of any colour, place, size and turn. The kind of shape is the label. No
# training below ever sees it.

# %%
KINDS = ("circle", "triangle", "square", "star")


def draw_shape(kind: int, side: int) -> np.ndarray:
    """Draw a shape on a plain ground: (side, side, 3) uint8."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[:], colour = rng.integers(0, 256, 3), rng.integers(0, 256, 3).tolist()
    radius, centre, turn = side * rng.uniform(0.2, 0.35), side * rng.uniform(0.35, 0.65, 2), rng.uniform(0, 2 * np.pi)
    corners = (64, 3, 4, 10)[kind]
    angles = turn + 2 * np.pi * np.arange(corners) / corners
    reach = np.where(np.arange(corners) % 2, 0.45, 1.0) if kind == 3 else np.ones(corners)
    points = centre + radius * reach[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return cv2.fillPoly(picture, [np.int32(points)], colour, cv2.LINE_AA)


shape_labels = np.arange(24 if FAST else 120) % len(KINDS)
shapes = [draw_shape(kind, 112) for kind in shape_labels]
show("1-shapes", shapes[:8], [KINDS[kind] for kind in shape_labels[:8]])

# %% [markdown]
# ## 2. Multi-crop: the task that needs no labels
#
# Two *global* crops show most of a photo, several *local* ones a small part (Caron et al. 2020, arXiv:2006.09882).
# Colours change, half are mirrored, some are blurred. What stays the same under all that is what the network can learn
# to say. The teacher sees global crops only, the student sees all: *from the part, guess the whole*.
#
# Change it: set `colour=0.0` and ask what a network could cheat with.

# %%
photo = torch.from_numpy(load_image(ASSETS / "two_dogs_balcony.jpg").copy()).permute(2, 0, 1)
crop = MultiCrop(global_size=112, n_local=4, local_size=56)
global_crops, local_crops = crop([photo], torch.Generator().manual_seed(1))


def as_picture(pixels: torch.Tensor) -> np.ndarray:
    """Stretch a normalised crop (3, H, W) back to (H, W, 3) from 0 to 1."""
    low, high = pixels.amin(), pixels.amax()
    return ((pixels - low) / (high - low)).permute(1, 2, 0).numpy()


views = [as_picture(view[0]) for view in (*global_crops, *local_crops)]
show("2-multi-crop", views, ["global 1", "global 2", "local 1", "local 2", "local 3", "local 4"])

# %% [markdown]
# ## 3. Self-distillation
#
# Student $g_\theta$ and teacher $g_{\theta'}$ are the same network, each with a head that scores $K$ prototypes. The
# student's answer to one crop shall be the teacher's answer to another (Caron et al. 2021, arXiv:2104.14294, eq. 3):
#
# $$ \mathcal{L} = - \sum_{t \in \text{global}} \sum_{s \neq t} \sum_{k=1}^K P'_k(t) \log P_k(s), \qquad
#    P(s) = \operatorname{softmax}(g_\theta(s) / \tau_s), \quad
#    P'(t) = \operatorname{softmax}((g_{\theta'}(t) - c) / \tau_t). $$
#
# The teacher learns nothing by itself: $\theta' \leftarrow m \theta' + (1 - m) \theta$.
#
# There is a way to cheat: give every picture the same answer. Two counterweights stop it, and each alone fails.
#
# - *Centring* subtracts the running mean $c \leftarrow 0.9 c + 0.1 \bar{g}_{\theta'}$: no prototype may win everywhere.
#   Alone, it drives the answers to the uniform one.
# - *Sharpening*, a low $\tau_t$, forbids the uniform answer. Alone, it lets one prototype take all.
#
# Below is one step of training, and then the same tiny network four times: with both, with Sinkhorn-Knopp in the
# place of the centre, and with one of the two switched off.

# %%
SHAPE_SIDE, PATCH = 32, 8
STEPS = 10 if FAST else 80
TINY = {
    "backbone": "scratch",
    "scratch_width": 48,
    "scratch_depth": 2,
    "scratch_heads": 3,
    "scratch_patch": PATCH,
    "global_size": SHAPE_SIDE,
    "local_size": 16,
    "eval_size": SHAPE_SIDE,
    "n_local": 2,
    "batch_size": 8 if FAST else 16,
    "prototypes": 64,
    "head_hidden": 64,
    "head_bottleneck": 32,
    "head_warmup": 0,
    "thaw": 0,
    "koleo_weight": 0,
    "steps": STEPS,
}
small_shapes = [
    torch.from_numpy(cv2.resize(shape, (48, 48), interpolation=cv2.INTER_AREA)).permute(2, 0, 1) for shape in shapes
]
centres = torch.stack([shape[:, 8:40, 8:40] for shape in small_shapes]).float() / 255 - 0.5


def one_step(ssl: SelfDistillation, optimizer, crop: MultiCrop, temperature: float, generator) -> float:
    """Crop and mask a batch, let the student guess, and move the teacher a little towards it; returns the loss."""
    chosen = torch.randperm(len(small_shapes), generator=generator)[: ssl.config.batch_size].tolist()
    large, small = crop([small_shapes[i] for i in chosen], generator)
    masks = block_masks(2 * len(chosen), (SHAPE_SIDE // PATCH,) * 2, generator=generator)
    loss, _ = ssl(large, small, masks, temperature)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    ssl.update_teacher(momentum=0.96)
    return loss.item()


def distil(temperature: float = 0.05, **changes) -> dict[str, list[float]]:
    """Train the tiny network; returns loss, both entropies (shares of log K) and effective rank, step by step."""
    config = FinetuneConfig.from_dict({**TINY, **changes})
    torch.manual_seed(0)
    ssl = SelfDistillation(load_backbone(config).module, config).train()
    optimizer = torch.optim.AdamW([p for p in ssl.student.parameters() if p.requires_grad], lr=1e-3)
    crop = MultiCrop(global_size=SHAPE_SIDE, global_scale=(0.4, 1.0), n_local=2, local_size=16, local_scale=(0.1, 0.4))
    generator = torch.Generator().manual_seed(0)
    curves: dict[str, list[float]] = {"loss": [], "entropy": [], "entropy of the mean": [], "effective rank": []}
    for _ in range(config.steps):
        curves["loss"].append(one_step(ssl, optimizer, crop, temperature, generator))
        with torch.no_grad():
            cls, _ = tokens(ssl.teacher["backbone"], centres)
            each, mean = entropies(ssl.teacher["dino_head"](cls), temperature)
        curves["entropy"].append(each)
        curves["entropy of the mean"].append(mean)
        curves["effective rank"].append(effective_rank(cls))
    return curves


runs = {
    "centred and sharp": distil(centering="softmax"),
    "Sinkhorn-Knopp and sharp": distil(centering="sinkhorn"),
    "not centred": distil(centering="off"),
    "not sharp": distil(centering="softmax", temperature=1.0),
}
figure, axes = plt.subplots(1, 4, figsize=(15, 3.2))
for axis, name in zip(axes, next(iter(runs.values())), strict=True):
    for label, curves in runs.items():
        axis.plot(curves[name], label=label)
    axis.set_title(name)
    axis.set_xlabel("step")
axes[0].legend(fontsize=7)
save(figure, "3-collapse")
for label, curves in runs.items():
    used = 64 ** curves["entropy of the mean"][-1]
    print(
        f"{label:26} loss {curves['loss'][-1]:5.2f}   prototypes in use {used:5.1f} of 64   "
        f"entropy of an answer {curves['entropy'][-1]:.2f}"
    )

# %% [markdown]
# Read it like this. *Not centred* has by far the best loss, and one prototype answers for every picture. *Not sharp*
# uses all prototypes, and every answer is the uniform one: its entropy is 1. The loss cannot tell any of this; the two
# entropies can. The effective rank of the class tokens hardly differs in so short a run: collapse begins in the head.
# (So small a network learns no shapes in a minute. The point here is the collapse.)
#
# ### The same in one batch
#
# What centring and Sinkhorn-Knopp do to a teacher that likes prototype 0 too much:

# %%
logits = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)) * 0.1
logits[:, 0] += 0.5
answers = {
    "plain softmax": (logits / 0.1).softmax(dim=-1),
    "centred": softmax_center(logits, logits.mean(dim=0, keepdim=True), 0.1),
    "Sinkhorn-Knopp": sinkhorn_knopp(logits, 0.1),
}
shares = {name: answer.mean(dim=0) for name, answer in answers.items()}
figure, axis = plt.subplots(figsize=(6, 2.6))
for i, (name, share) in enumerate(shares.items()):
    axis.bar(np.arange(8) + 0.27 * i, share.numpy(), width=0.25, label=name)
axis.set_xlabel("prototype")
axis.set_ylabel("share of the batch")
axis.legend(fontsize=7)
save(figure, "3-one-batch")

# %% [markdown]
# ## 4. iBOT: masked patches
#
# DINO teaches the class token. For patches, hide some from the student and let it guess what the teacher, who sees
# them, says (Zhou et al. 2022, arXiv:2111.07832, eq. 2). With $M$ the masked patches of a picture:
#
# $$ \mathcal{L}_\text{iBOT} = - \frac{1}{|M|} \sum_{i \in M} \sum_k P'_k(x_i) \log P_k(\tilde{x}_i). $$
#
# Blocks are hidden rather than single patches, since a single one is guessed from its neighbours without any idea of
# what the picture shows (Bao et al. 2022, arXiv:2106.08254). Half of the pictures are masked; the shares are spread
# over 10 to 50 %.

# %%
grid = (16, 16)
masks = block_masks(8, grid, ratio=(0.1, 0.5), probability=1.0, generator=torch.Generator().manual_seed(3))
square = cv2.resize(load_image(ASSETS / "cat_chelsea.jpg"), (224, 224), interpolation=cv2.INTER_AREA)
hidden = [np.kron(mask.reshape(grid).numpy(), np.ones((14, 14), bool)) for mask in masks]
show(
    "4-masks",
    [np.where(mask[..., None], 60, square) for mask in hidden],
    [f"{mask.float().mean():.0%} hidden" for mask in masks],
    rows=2,
)

# %% [markdown]
# ## 5. Frozen features: k-NN and a linear probe
#
# From here on a trained backbone is used as it is. Two questions tell how much of a label lies in its class token:
#
# - *k-NN*: do alike vectors have the same label? No parameter is learnt. Each neighbour votes with
#   $\exp(\cos(q, x_i) / 0.07)$ (Wu et al. 2018, arXiv:1805.01978).
# - *Linear probe*: is there a direction that tells the labels apart, $\hat{y} = \arg\max_c w_c^\top x + b_c$?
#
# In pixels the kind of a shape is quiet: colour, place, size and turn are loud, and a neighbour by pixels is one of the
# same colours. So the same two questions are put to the pixels, too. Each shape is classified by the others.

# %%
engine = Engine(OFFLINE_DEFAULT if find_local(OFFLINE_DEFAULT) else None)
cls = np.stack([f.cls for f in engine.features_batch(shapes, resolution=84 if FAST else 112)])
pixels = np.stack([cv2.resize(shape, (12, 12), interpolation=cv2.INTER_AREA).ravel() for shape in shapes])
results = {
    "pixels, k-NN": evaluate_knn(pixels, shape_labels, k=10),
    "pixels, linear": evaluate_linear(pixels, shape_labels, penalty=0.1),
    "class tokens, k-NN": evaluate_knn(cls, shape_labels, k=10),
    "class tokens, linear": evaluate_linear(cls, shape_labels, penalty=0.1),
}
figure, axes = plt.subplots(1, 4, figsize=(12, 3))
for axis, (name, found) in zip(axes, results.items(), strict=True):
    print(f"shapes, {name:22} {found.accuracy:.0%} right, chance {1 / len(KINDS):.0%}")
    axis.imshow(found.confusion)
    axis.set_xticks(range(4), KINDS, fontsize=7)
    axis.set_yticks(range(4), KINDS, fontsize=7)
    axis.set_title(f"{name}: {found.accuracy:.0%} right", fontsize=9)
save(figure, "5-knn-and-linear")

# %% [markdown]
# ## 6. Attention
#
# The class token's row of the last layer's attention, head by head. Nobody trained these maps:
#
# $$ a_j = \operatorname{softmax}_j\left(q_\text{cls}^\top k_j / \sqrt{d}\right). $$

# %%
RESOLUTION = 154 if FAST else 518
cat = load_image(ASSETS / "cat_chelsea.jpg")
f = engine.features(cat, resolution=RESOLUTION, attention=True)
maps = [attention_map(f, head) for head in range(len(f.attention))]
show("6-attention", [overlay(cat, a) for a in maps], [f"head {i}" for i in range(1, len(maps) + 1)])

# %% [markdown]
# ## 7. PCA of patches
#
# One basis for both photos, so that a colour means the same on the cat and on the dogs (Oquab et al. 2023,
# arXiv:2304.07193, fig. 1). The first PCA separates the foreground, the second one colours it:
#
# $$ \text{colour}_{i,c} = v_c^\top (x_i - \bar{x}), \quad c = 1, 2, 3. $$
#
# Change it: fit on one photo alone and look how the colours of the other lose their meaning.

# %%
animals = [cat, load_image(ASSETS / "two_dogs_balcony.jpg")]
features = [engine.features(animal, resolution=RESOLUTION) for animal in animals]
pca = PatchPCA().fit(features)
coloured = [pca_picture(pca.transform(f), a.shape[:2], background=a) for f, a in zip(features, animals, strict=True)]
show("7-pca", [animals[0], coloured[0], animals[1], coloured[1]], ["cat", "its patches", "dogs", "their patches"])

# %% [markdown]
# ## 8. Segmentation from one mask
#
# The reference's patches carry labels; a patch of another photo takes the mean label of its nearest, weighted by
# $\exp(\cos / 0.05)$ (the video protocol of DINO, arXiv:2104.14294, sec. 4.2.2). The true mask tells how well it
# went. (An easy case: this cup was cut out of the reference photo.)

# %%
folder = ASSETS / "segmentation"
cup_mask = load_image(folder / "cup_mask.png")[..., 0] > 127
target = load_image(folder / "cup_and_dandelions.jpg")
truth = load_image(folder / "cup_and_dandelions_mask.png")[..., 0] > 127
segmenter = ReferenceSegmenter(engine, resolution=RESOLUTION).fit([(ASSETS / "coffee_cup.jpg", cup_mask)])
found = segmenter.predict(target)
iou = (found.mask & truth).sum() / (found.mask | truth).sum()
print(f"the cup among dandelions: presence {found.presence:.2f}, IoU {iou:.2f}")
cut_out = np.where(found.mask[..., None], target, target // 4)
show(
    "8-segmentation",
    [load_image(ASSETS / "coffee_cup.jpg"), cup_mask, target, cut_out],
    ["reference", "its mask", "another photo", f"found, IoU {iou:.2f}"],
)

# %% [markdown]
# ## 9. Depth by a linear probe
#
# A matrix on frozen tokens scores $K$ bins of depth, and the depth is their weighted mean (AdaBins, arXiv:2011.14141):
#
# $$ d = \sum_k w_k c_k \Big/ \sum_k w_k, \qquad w_k = \max(z_k, 0) + 0.1. $$
#
# This probe has seen four places indoors. Trust the order of things here, not the metres.

# %%
probe_file = ROOT / "weights" / f"depth_rooms_lin4-2_{engine.backbone.name}.safetensors"
if probe_file.is_file():
    room = load_image(ASSETS / "room_wine.jpg")
    depth = DepthProbe.load(probe_file).predict(engine, room, resolution=RESOLUTION)
    print(f"the room: {np.quantile(depth, 0.01):.1f} to {np.quantile(depth, 0.99):.1f} m")
    show("9-depth", [room, depth], ["photo", "depth: dark is near"])
else:
    print(f"no depth probe was made for {engine.backbone.name}")

# %% [markdown]
# ## 10. Retrieval
#
# One vector a photo, cosine for the order, whitened so that what all photos share does not count (Jégou and Chum
# 2012): $\hat{x} \propto (\Lambda + \lambda I)^{-1/2} U^\top (x - \mu)$. The index holds random crops of the example
# photos; each whole photo asks, and its own crops should come first.

# %%
CROPS, PHOTOS = (2, 3) if FAST else (6, 9)


def random_crop(picture: np.ndarray) -> np.ndarray:
    """Cut a part of half to nine tenths of each side out of a picture."""
    height, width = picture.shape[:2]
    tall, wide = int(height * rng.uniform(0.5, 0.9)), int(width * rng.uniform(0.5, 0.9))
    top, left = int(rng.uniform(0, height - tall)), int(rng.uniform(0, width - wide))
    return picture[top : top + tall, left : left + wide]


photos = {path.stem: load_image(path) for path in sorted(ASSETS.glob("*.jpg"))[:PHOTOS]}
with tempfile.TemporaryDirectory() as temporary:
    gallery = Path(temporary) / "gallery"
    for name, picture in photos.items():
        (gallery / name).mkdir(parents=True)
        for i in range(CROPS):
            cut = fit_within(random_crop(picture), 320)
            cv2.imwrite(str(gallery / name / f"{i}.png"), np.ascontiguousarray(cut[..., ::-1]))
    index = ImageIndex(Path(temporary) / "index", engine)
    index.add(gallery)
    hits = {name: index.search(picture, k=CROPS) for name, picture in photos.items()}
    right = np.mean([hit.label == name for name, found_hits in hits.items() for hit in found_hits])
    entries, places = index.map2d()
print(f"retrieval: {right:.0%} of the {CROPS} nearest are crops of the photo that asked")
names = sorted(photos)
colours = distinct_colours(len(names) + 1)[1:] / 255
figure, axis = plt.subplots(figsize=(6, 4))
for name, colour in zip(names, colours, strict=True):
    mine = [i for i, entry in enumerate(entries) if entry.label == name]
    axis.scatter(*places[mine].T, color=colour, label=name, s=18)
axis.legend(fontsize=6)
axis.set_title("the index on its two main directions")
save(figure, "10-retrieval")

# %% [markdown]
# ## Exercises
#
# Each cell computes an answer. Guess first, run it, then change one number.
#
# **A. Collapse.** How sharp must the teacher be? At which temperature do the answers become uniform, and what does the
# centre do about it?

# %%
temperatures = (0.04, 0.3) if FAST else (0.04, 0.1, 0.3, 1.0)
sharpness = {t: distil(centering="softmax", temperature=t) for t in temperatures}
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(temperatures, [64 ** sharpness[t]["entropy of the mean"][-1] for t in temperatures], "o-", label="in use")
axis.plot(temperatures, [64 ** sharpness[t]["entropy"][-1] for t in temperatures], "s-", label="per answer")
axis.set_xscale("log")
axis.set_xlabel("teacher temperature")
axis.set_ylabel("prototypes (of 64)")
axis.legend(fontsize=7)
save(figure, "11-sharpness")

# %% [markdown]
# **B. Multi-crop.** *From the part, guess the whole*: how small may a part be, until a trained network no longer knows
# its photo? The cosine of a part's class token to its own photo's, and to the other photos'.

# %%
album = [load_image(ASSETS / name) for name in ("cat_chelsea.jpg", "two_dogs_balcony.jpg", "flower_dahlia.jpg")]


def middle(picture: np.ndarray, share: float) -> np.ndarray:
    """Cut the middle part that holds a share of the area."""
    height, width = (max(14, round(side * share**0.5)) for side in picture.shape[:2])
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def unit_class_tokens(pictures: list[np.ndarray]) -> np.ndarray:
    """Return the class tokens (B, D), of length 1."""
    rows = np.stack([f.cls for f in engine.features_batch(pictures, resolution=112)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


areas = (0.05, 0.5) if FAST else (0.02, 0.05, 0.1, 0.25, 0.5)
whole = unit_class_tokens(album)
cosines = np.stack([unit_class_tokens([middle(picture, share) for picture in album]) @ whole.T for share in areas])
own = cosines.diagonal(axis1=1, axis2=2).mean(axis=1)
other = (cosines.sum(axis=(1, 2)) - own * len(album)) / (len(album) ** 2 - len(album))
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(areas, own, "o-", label="its own photo")
axis.plot(areas, other, "s-", label="other photos")
axis.set_xlabel("share of the area")
axis.set_ylabel("cosine")
axis.legend(fontsize=7)
save(figure, "12-part-and-whole")

# %% [markdown]
# **C. What is iBOT for?** With its weight at 0 the class tokens still learn, the patches are left to themselves.
# Compare the curves: does the loss for patches cost the class tokens anything?

# %%
with_patches = distil(centering="sinkhorn", ibot_weight=1.0)
without = distil(centering="sinkhorn", ibot_weight=0.0)
figure, axes = plt.subplots(1, 2, figsize=(8, 3))
for axis, name in zip(axes, ("entropy of the mean", "effective rank"), strict=True):
    axis.plot(with_patches[name], label="DINO + iBOT")
    axis.plot(without[name], label="DINO alone")
    axis.set_title(name, fontsize=9)
axes[0].legend(fontsize=7)
save(figure, "13-ibot")

# %% [markdown]
# **D. Frozen features.** How many labels does a probe need? Class means from 1, 2, 5 and 10 labelled shapes a class,
# tested on all others.

# %%
unit_cls = cls / np.linalg.norm(cls, axis=1, keepdims=True)
counts = (1, 2) if FAST else (1, 2, 5, 10)
needed = []
for count in counts:
    kept = np.concatenate([np.flatnonzero(shape_labels == kind)[:count] for kind in range(len(KINDS))])
    means = np.stack([unit_cls[kept][shape_labels[kept] == kind].mean(axis=0) for kind in range(len(KINDS))])
    rest = np.setdiff1d(np.arange(len(cls)), kept)
    needed.append(((unit_cls[rest] @ means.T).argmax(axis=1) == shape_labels[rest]).mean())
    print(f"{count:2} labels a class: {needed[-1]:.0%} right")
figure, axis = plt.subplots(figsize=(5, 3))
axis.plot(counts, needed, "o-")
axis.axhline(1 / len(KINDS), linestyle=":", color="grey")
axis.set_xlabel("labelled shapes a class")
axis.set_ylabel("right")
save(figure, "14-few-labels")

# %% [markdown]
# ## Where to go from here
#
# `make run` opens the app, where all of this works on your own photos. The pages in `docs/` tell for each tab how it
# works and how to read it. `dinodemo train FOLDER --out RUN` continues section 3 from a trained backbone.
