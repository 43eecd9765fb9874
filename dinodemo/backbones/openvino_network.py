"""The same network run by OpenVINO on a CPU, with the call, tokens and attention rows of `VisionTransformer`."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .network import AttentionRows, Tokens, VisionTransformer

AGREEMENT = 0.999  # least cosine to PyTorch's tokens, mean over a picture's tokens
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}
_GRID = (4, 6)  # patches of the picture that graphs are traced with


def is_installed() -> bool:
    """Return whether the package is there (`pip install "dinodemo[openvino]"`); imports nothing."""
    return importlib.util.find_spec("openvino") is not None


class OpenVinoTransformer(VisionTransformer):
    """Run a loaded network with OpenVINO. Graphs are compiled when they are first asked for, one a set of outputs.

    Args:
        network: on the CPU. Its module stays what the comparison is with, and what `Engine.model` gives.

    Raises:
        RuntimeError: when OpenVINO is not installed, cannot take the network, or computes something else.
    """

    backend = "openvino"

    def __init__(self, network: VisionTransformer):
        if not is_installed():
            raise RuntimeError('OpenVINO is not installed: pip install "dinodemo[openvino]"')
        if network.device.type != "cpu" or network.dtype not in PRECISIONS:
            raise RuntimeError(f"OpenVINO runs on CPUs in float32 or bfloat16, not {network.dtype} on {network.device}")
        self.__dict__ |= network.__dict__
        self._torch = network
        self._compiled: dict[tuple[tuple[int, ...], bool], Any] = {}
        self._check_agreement()

    def __call__(self, images: Tensor, layers: tuple[int, ...] = (), row_tokens: tuple[int, ...] = ()) -> Tokens:
        """Return the tokens of a batch in float32.

        Args:
            images: As for `VisionTransformer`.
            layers: As for `VisionTransformer`.
            row_tokens: As for `VisionTransformer`.
        """
        earlier = tuple(sorted(set(layers) - {self.last_layer}))
        run = self._graph(earlier, bool(row_tokens))
        inputs = [self._pixels(images, torch.float32).numpy()]
        if row_tokens:
            inputs.append(np.array(row_tokens, np.int64))
        # copied: OpenVINO writes the next result into the same memory
        last, norms, *others = (torch.from_numpy(np.array(output)) for output in run(inputs).to_tuple())
        rows = others.pop() if row_tokens else None
        return Tokens({self.last_layer: last, **dict(zip(earlier, others, strict=True))}, rows, norms)

    def _graph(self, layers: tuple[int, ...], with_rows: bool):
        key = (layers, with_rows)
        if key not in self._compiled:
            self._compiled[key] = _compile(self._torch, layers, with_rows, PRECISIONS[self.dtype])
        return self._compiled[key]

    def _check_agreement(self) -> None:
        rows, columns = _GRID
        patch, noise = self.backbone.patch_size, torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (1, rows * patch, (columns + 1) * patch, 3), dtype=torch.uint8, generator=noise)
        ours, theirs = (run(images).layers[self.last_layer].float() for run in (self, self._torch))
        found = nn.functional.cosine_similarity(ours, theirs, dim=-1).mean().item()
        if not found >= AGREEMENT:
            raise RuntimeError(f"OpenVINO's tokens of {self.backbone.name} have cosine {found:.4f} to PyTorch's")


class _Outputs(nn.Module):
    """The network with outputs in a row: last tokens, norms, earlier layers' tokens, attention rows of all layers."""

    def __init__(self, network: VisionTransformer, module: nn.Module, layers: tuple[int, ...]):
        super().__init__()
        self.module, self._network, self._layers = module, network, layers

    def forward(self, pixels: Tensor, queries: Tensor | None = None) -> tuple[Tensor, ...]:
        recorder = None if queries is None else AttentionRows(queries)
        found = self._network.run_module(self.module, pixels, self._layers, recorder)
        rows = () if found.rows is None else (found.rows,)
        return (found.layers[self._network.last_layer], found.norms, *(found.layers[i] for i in self._layers), *rows)


def _compile(network: VisionTransformer, layers: tuple[int, ...], with_rows: bool, precision: str):
    import openvino as ov

    rows, columns = _GRID
    pixels = torch.zeros(2, 3, rows * network.backbone.patch_size, columns * network.backbone.patch_size)
    example = (pixels, torch.zeros(1, dtype=torch.int64)) if with_rows else (pixels,)
    module = network.float_module()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # on constants of the trace; what is wrong is found by comparing
        graph = ov.convert_model(_Outputs(network, module, layers).eval(), example_input=example)
    shapes = [[-1, 3, -1, -1], [-1]]
    graph.reshape(dict(zip(graph.inputs, shapes, strict=False)))
    options = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": "1"}
    options["INFERENCE_NUM_THREADS"] = str(torch.get_num_threads())
    return ov.Core().compile_model(graph, "CPU", options)
