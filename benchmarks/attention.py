"""Attention maps: the usual way (eager, output_attentions=True, float32) against the engine, side by side.

The usual way keeps the N x N attention of every head and layer. The engine runs every layer through SDPA and computes
only the CLS rows beside it, of all layers. Both give the last tokens; inputs, weights and threads are the same, each
measurement runs in a fresh process. Prints time, peak extra memory and their ratios.
"""

import argparse
import json
import os

from _common import PHOTO, in_fresh_process, reset_peak, resident_peak, seconds

BACKBONE = "dinov2-small-offline"
RESOLUTIONS = (224, 518, 1022)
REPEATS = {224: 9, 518: 5, 1022: 1}


def measure(way: str, resolution: int, device: str) -> dict:
    """Measure one way at one resolution; returns seconds and extra bytes."""
    import torch

    from dinodemo import Engine
    from dinodemo.io.images import load_image, resize

    engine = Engine(BACKBONE, device=device, dtype="float32" if way == "eager" else "auto", backend="torch")
    rgbs = torch.from_numpy(resize(load_image(PHOTO), (resolution, resolution)).copy())[None]
    run = (lambda: engine._network(rgbs, row_tokens=(0,))) if way == "engine" else eager(engine, rgbs)
    cuda = engine.device.type == "cuda"
    if cuda:
        run()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        extra = torch.cuda.max_memory_allocated() - before
    else:
        engine._network(rgbs[:, :28, :28])  # library workspaces do not count
        before = reset_peak()
        run()
        extra = resident_peak() - before

    def finished():
        run()
        if cuda:
            torch.cuda.synchronize()

    return {"seconds": seconds(finished, REPEATS[resolution]), "extra": extra}


def eager(engine, rgbs):
    """Return the usual way as a function: the same weights with eager attention, all attentions kept."""
    import torch

    engine.model.set_attn_implementation("eager")
    pixels = (rgbs.permute(0, 3, 1, 2).float() / 255).to(engine.device)

    def run():
        with torch.inference_mode():
            output = engine.model(pixel_values=pixels, output_attentions=True)
            return output.last_hidden_state, [a[:, :, 0] for a in output.attentions]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--resolutions", type=int, nargs="+", default=RESOLUTIONS)
    parser.add_argument("--measure", nargs=2, metavar=("WAY", "RESOLUTION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if args.measure:
        print(json.dumps(measure(args.measure[0], int(args.measure[1]), args.device)))
        return
    print(f"{'px':>5} {'way':>7} {'seconds':>9} {'extra MB':>9}   ratio of time, of memory")
    for resolution in args.resolutions:
        rows = {
            way: in_fresh_process(__file__, way, str(resolution), "--device", args.device)
            for way in ("eager", "engine")
        }
        for way, row in rows.items():
            print(f"{resolution:>5} {way:>7} {row['seconds']:>9.3f} {row['extra'] / 1e6:>9.1f}", end="")
            print(
                ""
                if way == "eager"
                else f"   {rows['eager']['seconds'] / row['seconds']:.2f}x faster, "
                f"1/{rows['eager']['extra'] / max(row['extra'], 1):.1f} of the memory"
            )


if __name__ == "__main__":
    main()
