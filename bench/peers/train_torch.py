"""One training step of FAR in PyTorch: loss, gradients, clipping, AdamW, averaged weights.

It exists to be timed beside ours, and its loss and gradients are checked against recorded steps of the authors' code first:

    python train_torch.py check CASE_FOLDER...    every folder holds config.json, weights and io.safetensors
    python train_torch.py serve --threads N       one step of FAR-B on 16 frames per line on stdin, seconds on stdout
"""
import argparse
import json
import math
import sys
import time

import torch

from far_torch import Far, far_b, load_safetensors


def loss_of(model, noisy, timesteps, conditions, target, clean, window):
    """Mean over clips of the mean over a clip's noisy frames of its window."""
    velocity, _ = model.forward(noisy, timesteps, conditions)
    per_frame = (velocity - target).pow(2).mean((2, 3, 4))[:, -window:]
    counted = (~clean[:, -window:]).float()
    return ((per_frame * counted).sum(1) / (counted.sum(1) + 1e-9)).mean(), velocity


def recorded_conditions(io, frames):
    """Condition index of each frame after dropout, distant frames first."""
    if "label_effective" in io or "label" in io:
        label = io.get("label_effective", io.get("label"))
        return label[:, None].expand(-1, frames)
    if "action_effective" not in io:
        return None
    batch = io["noisy_latents"].shape[0]
    parts = [io[n].reshape(batch, -1) for n in ("action_effective_ctx", "action_effective") if n in io]
    return torch.cat(parts, 1)


def check(folders):
    """Worst relative error: prediction and loss within 1e-5, each gradient within 1e-4 in L2."""
    worst = {}
    for folder in folders:
        with open(folder + "/config.json") as file:
            config = json.load(file)
        io = load_safetensors(folder + "/io.safetensors")
        params = load_safetensors(folder + "/weights.safetensors")
        for p in params.values():
            p.requires_grad_(True)
        model = Far(params, config["config"], config["model"] == "FAR_Long")
        name, worst_here = folder.rstrip("/").split("/")[-1], 0.0
        for per_token in (False, True):
            model.per_token = per_token
            frames = io["noisy_latents"].shape[1]
            clean = io["context_mask"].reshape(io["noisy_latents"].shape[:2]).bool()
            timesteps = io["timesteps"].reshape(clean.shape)
            loss, velocity = loss_of(model, io["noisy_latents"], timesteps, recorded_conditions(io, frames), io["target"],
                                     clean, model.window)
            grads = torch.autograd.grad(loss, list(params.values()), allow_unused=True)
            errors = [("model_pred", (velocity - io["model_pred"]).abs().max().item(), 1e-5 * max(1, io["model_pred"].abs().max().item())),
                      ("loss", abs(loss.item() - io["loss"].item()), 1e-5)]
            for (key, p), g in zip(params.items(), grads):
                want = io["grad." + key]
                g = torch.zeros_like(p) if g is None else g
                size = want.norm().item()
                errors.append((key, (g - want).norm().item() / size if size > 0 else g.abs().max().item(), 1e-4 if size > 0 else 1e-7))
            for what, error, bound in errors:
                worst_here = max(worst_here, error)
                if not error <= bound:
                    sys.exit(f"{folder}: {what}: error {error:.2e}, expected at most {bound:.0e}")
        worst[name] = worst_here
    return worst


def serve(threads, per_token):
    torch.set_num_threads(threads)
    model = far_b()
    model.per_token = per_token
    F = 16
    g = torch.Generator().manual_seed(1)
    noisy, target = (torch.randn(1, F, 32, 8, 8, generator=g) for _ in range(2))
    timesteps = torch.rand(1, F, generator=g) * 1000
    clean = torch.zeros(1, F, dtype=torch.bool)
    params = [value.requires_grad_(True) for value in model.p.values()]
    optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0.0)
    shadow = [p.detach().clone() for p in params]

    def step():
        loss, _ = loss_of(model, noisy, timesteps, None, target, clean, 16)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            torch._foreach_mul_(shadow, 0.9999)
            torch._foreach_add_(shadow, params, alpha=1 - 0.9999)
        return loss.item()

    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        begin, used = time.perf_counter(), time.process_time()
        loss = step()
        times = {"seconds": time.perf_counter() - begin, "process_seconds": time.process_time() - used}
        if not math.isfinite(loss):
            sys.exit("loss is not finite")
        print(json.dumps({**times, "loss": loss}), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=("check", "serve"))
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--per-token", action="store_true", help="modulation for every token, as the authors compute it")
    options = parser.parse_args()
    if options.mode == "check":
        print(json.dumps(check(options.folders)))
    else:
        serve(options.threads, options.per_token)
