"""A backbone as an ONNX graph: pictures of any size in, tokens and the class token's attention out; tried when made."""

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .network import AttentionRows, load_module
from .registry import Backbone

OPSET = 18  # the first whose Resize can antialias, as DINOv2 with registers resizes its positions
INPUT, OUTPUTS = "pixel_values", ("tokens", "attention")
TOLERANCE = 1e-3  # largest absolute difference to PyTorch
TRIED = ((2, 4, 6), (1, 9, 5), (1, 16, 16))  # pictures, rows and columns of patches
MOST_INSIDE = 1_900_000_000  # bytes of weights in the graph's own file; the format ends at 2 GiB
BICUBIC = "aten::_upsample_bicubic2d_aa"


class TokensAndAttention(nn.Module):
    """The network with two outputs: all tokens after the final norm, and the class token's last attention row."""

    query: Tensor

    def __init__(self, module: nn.Module):
        from .adapter import adapter_of

        super().__init__()
        self.module, self.adapter = module, adapter_of(module)
        self.register_buffer("query", torch.tensor([self.adapter.cls_index]), persistent=False)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (B, T, D) and attention (B, heads, T), which sums to 1 over all tokens."""
        rows = AttentionRows(self.query)
        output = self.module(pixel_values=pixel_values, attention_rows=rows, **self.adapter.call_options)
        return output.last_hidden_state, rows.layers[-1][:, :, 0]


def write_graph(row: Backbone, folder: Path, path: Path, metadata: dict[str, str]) -> dict[str, float]:
    """Write a backbone as an ONNX graph in float32, and compare it with PyTorch under ONNX Runtime.

    Args:
        row: of the backbone.
        folder: of its weights.
        path: of the file. Weights of 2 GB and more lie beside it, in `<path>.data`.
        metadata: written into the graph's properties.

    The input `pixel_values` is (batch, 3, height, width) float32, normalised with the properties' `image_mean` and
    `image_std`; height and width are multiples of the patch size. Outputs: `tokens` (batch, tokens, width): class
    token, registers, patches row by row, after the final norm; `attention` (batch, heads, tokens): the class token's
    softmax row in the last layer.

    Returns:
        The largest absolute difference to PyTorch by output, over the sizes of `TRIED`.

    Raises:
        RuntimeError: when ONNX Runtime is not installed, the graph cannot be made, or it computes something else.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise RuntimeError('an ONNX graph is tried with ONNX Runtime: pip install "dinodemo[onnx]"') from error
    model = TokensAndAttention(load_module(row.name, folder)).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as scratch:
        traced, made = Path(scratch) / "traced" / "graph.onnx", Path(scratch) / path.name
        traced.parent.mkdir()
        _trace(model, row.patch_size, traced)
        _finish(traced, made, metadata)
        differences = compare(model, row.patch_size, made)
        wrong = {name: value for name, value in differences.items() if not value <= TOLERANCE}
        if wrong:
            raise RuntimeError(f"the ONNX graph of {row.name} differs from PyTorch by {wrong}; it is not kept")
        for file in sorted(made.parent.glob(f"{path.name}*"), reverse=True):  # the weights before what names them
            file.replace(path.with_name(file.name))
    return differences


def compare(model: nn.Module, patch: int, file: Path) -> dict[str, float]:
    """Return the largest absolute difference between a graph and PyTorch by output, on noise of several sizes."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    noise, worst = torch.Generator().manual_seed(0), dict.fromkeys(OUTPUTS, 0.0)
    for batch, rows, columns in TRIED:
        pixels = torch.randn(batch, 3, rows * patch, columns * patch, generator=noise)
        with torch.inference_mode():
            expected = model(pixels)
        found = session.run(list(OUTPUTS), {INPUT: pixels.numpy()})
        for name, ours, theirs in zip(OUTPUTS, found, expected, strict=True):
            difference = np.abs(ours - theirs.numpy()).max() if ours.shape == tuple(theirs.shape) else np.inf
            worst[name] = max(worst[name], float(difference))
    return worst


def _trace(model: nn.Module, patch: int, file: Path) -> None:
    batch, rows, columns = TRIED[0]
    example = torch.zeros(batch, 3, rows * patch, columns * patch)
    dynamic = {
        INPUT: {0: "batch", 2: "height", 3: "width"},
        "tokens": {0: "batch", 1: "tokens"},
        "attention": {0: "batch", 2: "tokens"},
    }
    with _quiet(), _antialiased_resize(), torch.no_grad():
        try:
            # the tracing exporter: the one by torch.export fixes the size of networks that cut positions to ints
            torch.onnx.export(
                model,
                (example,),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_axes=dynamic,
            )
        except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = " ".join(str(error).split())[:300]
            raise RuntimeError(f"this network cannot be written as an ONNX graph: {reason}") from error


def _finish(traced: Path, made: Path, metadata: dict[str, str]) -> None:
    """Write a traced graph with its properties; weights that a graph cannot hold go into one file beside it."""
    import onnx

    graph = onnx.load(str(traced))
    for key, value in metadata.items():
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    weights = sum(4 * math.prod(tensor.dims) for tensor in graph.graph.initializer)
    onnx.save(graph, str(made), save_as_external_data=weights > MOST_INSIDE, location=f"{made.name}.data")


@contextmanager
def _antialiased_resize() -> Iterator[None]:
    """Teach the exporter the one operation that it lacks, for as long as it runs."""
    from torch.onnx import register_custom_op_symbolic, unregister_custom_op_symbolic

    def resize(g, pixels, size, align_corners, scales_h=None, scales_w=None):
        shape = g.op("Shape", pixels, start_i=0, end_i=2)
        sizes = g.op("Concat", shape, g.op("Cast", size, to_i=7), axis_i=0)
        none = g.op("Constant", value_t=torch.tensor([], dtype=torch.float32))
        # torch's antialiased bicubic has Pillow's coefficient
        options = {"mode_s": "cubic", "antialias_i": 1, "cubic_coeff_a_f": -0.5, "exclude_outside_i": 1}
        return g.op("Resize", pixels, none, none, sizes, coordinate_transformation_mode_s="half_pixel", **options)

    register_custom_op_symbolic(BICUBIC, resize, OPSET)
    try:
        yield
    finally:
        unregister_custom_op_symbolic(BICUBIC, OPSET)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks on tracing from the terminal; what it got wrong is found by comparing."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
