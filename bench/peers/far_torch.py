"""FAR and FAR-Long inference in PyTorch, written from the paper and a description of the authors' semantics.

It exists to be timed beside ours, and is checked against recorded outputs of the authors' code before any time counts:

    python far_torch.py check CASE_FOLDER...      every folder holds config.json, weights and io.safetensors
    python far_torch.py serve --threads N         one denoising step of FAR-B-Long per line on stdin, seconds on stdout

Letters as in the rest of the repository: B clips, F frames, N tokens a frame, S cached tokens, D channels, A heads.
"""
import argparse
import json
import math
import struct
import sys
import time

import numpy as np
import torch
import torch.nn.functional as fn


def load_safetensors(path):
    kinds = {"F32": np.float32, "F64": np.float64, "I64": np.int64, "I32": np.int32}
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        body = file.read()
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        values = np.frombuffer(body[start:end], dtype=kinds[entry["dtype"]]).reshape(entry["shape"])
        tensors[name] = torch.from_numpy(values.copy())
    return tensors


class Far:
    """One class for FAR and FAR-Long; `p` holds the parameters by the authors' state-dict names."""

    def __init__(self, params, config, long):
        c = {"context_patch_size": 4, "short_term_ctx_winsize": 16, "condition_cfg": None, **config}
        self.p, self.long = params, long
        self.patch, self.far_patch = c["patch_size"], c["context_patch_size"]
        self.layers, self.heads, self.head_dim = c["num_layers"], c["num_attention_heads"], c["attention_head_dim"]
        self.axes, self.slope = c["axes_dims_rope"], c["slope_scale"]
        self.window, self.condition = c["short_term_ctx_winsize"], c["condition_cfg"]
        self.out_channels = c["out_channels"]
        self.frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float32) / 127)
        self.per_token = False  # modulation of every token, as the authors compute it, or once per frame

    # -- pieces ----------------------------------------------------------------------------------------------------

    def lin(self, name, x):
        return fn.linear(x, self.p[name + ".weight"], self.p[name + ".bias"])

    def pack(self, latents, patch):
        B, F, C, H, W = latents.shape
        x = latents.reshape(B, F, C, H // patch, patch, W // patch, patch)
        return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(B, F, (H // patch) * (W // patch), C * patch * patch)

    def unpack(self, tokens, patch, H, W):
        B, F = tokens.shape[:2]
        x = tokens.reshape(B, F, H // patch, W // patch, -1, patch, patch)
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(B, F, -1, H, W)

    def rotary(self, frames, patch, H, W):
        """Angles [tokens, head_dim/2] of whole frames; a distant token sits at its top left corner."""
        step = patch // self.patch
        ids = torch.stack(torch.meshgrid(
            torch.as_tensor(frames, dtype=torch.float64),
            torch.arange(H // patch, dtype=torch.float64) * step,
            torch.arange(W // patch, dtype=torch.float64) * step, indexing="ij"), -1).reshape(-1, 3)
        angles = [ids[:, a, None] * 10000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
                  for a, d in enumerate(self.axes)]
        angle = torch.cat(angles, 1)
        return angle.cos().float(), angle.sin().float()

    def rotate(self, x, cos, sin):
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2)

    def rms(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.p[name + ".weight"]

    def embed_time(self, timesteps, conditions):
        """[B, F] timesteps and condition indices (or None) to [B, F, D]."""
        angle = timesteps[..., None] * self.frequencies
        x = torch.cat((angle.cos(), angle.sin()), -1)
        x = self.lin("timestep_embedder.linear_2", fn.silu(self.lin("timestep_embedder.linear_1", x)))
        if conditions is not None:
            x = x + self.p[self.condition["type"] + "_embedder.embedding_table.weight"][conditions]
        return x

    def modulations(self, temb, tokens):
        """SiLU(temb) through every modulation layer. temb is [B, F, D]; `tokens` counts each frame's tokens."""
        per_token = torch.repeat_interleave(temb, tokens, 1)
        x = fn.silu(per_token if self.per_token else temb)
        names = [f"transformer_blocks.{i}.{n}.linear" for i in range(self.layers) for n in ("norm1", "norm2")]
        made = {name: self.lin(name, x) for name in names + ["norm_out.linear"]}
        return made if self.per_token else {k: torch.repeat_interleave(v, tokens, 1) for k, v in made.items()}

    # -- attention -------------------------------------------------------------------------------------------------

    def heads_of(self, x):
        return x.unflatten(-1, (self.heads, self.head_dim)).transpose(1, 2)

    def project(self, block, x, distant):
        """x [B, T, D] to normalised q, k and plain v, [B, A, T, hd]. The first `distant` tokens have layers of their own."""
        parts = []
        a = f"transformer_blocks.{block}.attn."
        if distant:
            c = x[:, :distant]
            parts.append((self.rms(self.heads_of(self.lin(a + "add_q_proj", c)), a + "norm_added_q"),
                          self.rms(self.heads_of(self.lin(a + "add_k_proj", c)), a + "norm_added_k"),
                          self.heads_of(self.lin(a + "add_v_proj", c))))
        if x.shape[1] > distant:
            w = x[:, distant:]
            parts.append((self.rms(self.heads_of(self.lin(a + "to_q", w)), a + "norm_q"),
                          self.rms(self.heads_of(self.lin(a + "to_k", w)), a + "norm_k"),
                          self.heads_of(self.lin(a + "to_v", w))))
        return [torch.cat(t, 2) if len(parts) > 1 else t[0] for t in zip(*parts)]

    def attend(self, q, k, v, mask):
        if hasattr(fn, "scaled_dot_product_attention"):
            y = fn.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = torch.matmul(q * (1 / math.sqrt(self.head_dim)), k.transpose(-1, -2))
            y = torch.matmul((scores if mask is None else scores + mask).softmax(-1), v)
        return y.transpose(1, 2).flatten(2)

    def blocks(self, x, modulation, distant, rope, mask, cached):
        """`cached` is None or a list of (rotated keys, values) a layer, put before the new ones; returns hidden states and
        each layer's new keys and values."""
        made = []
        for i in range(self.layers):
            b = f"transformer_blocks.{i}"
            shift, scale, gate = modulation[b + ".norm1.linear"].chunk(3, -1)
            h = fn.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
            q, k, v = self.project(i, h, distant)
            q, k = self.rotate(q, *rope), self.rotate(k, *rope)
            made.append((k, v))
            if cached is not None:
                k, v = torch.cat((cached[i][0], k), 2), torch.cat((cached[i][1], v), 2)
            y = self.attend(q, k, v, mask)
            out = self.lin(b + ".attn.to_out.0", y[:, distant:])
            if distant:
                add = b + ".attn.to_add_out"
                far = self.lin(add, y[:, :distant]) if add + ".weight" in self.p else y[:, :distant]
                out = torch.cat((far, out), 1)
            x = x + gate * out
            shift, scale, gate = modulation[b + ".norm2.linear"].chunk(3, -1)
            h = fn.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
            h = fn.gelu(self.lin(b + ".mlp.net.0.proj", h), approximate="tanh")
            x = x + gate * self.lin(b + ".mlp.net.2", h)
        scale, shift = modulation["norm_out.linear"].chunk(2, -1)
        return fn.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift, made

    # -- calls -----------------------------------------------------------------------------------------------------

    def forward(self, latents, timesteps, conditions, first=0, cached=None, cached_frames=None):
        """Frames `first` … F-1 of a clip [B, F, C, H, W], after the cached ones.

        Returns the velocity of these frames, and (layer keys and values, absolute frame of each of their tokens).
        """
        B, F, C, H, W = latents.shape
        start = max(0, F - self.window) if self.long else 0
        cuts = [(range(first, start), self.far_patch, "context_embedder", 2.0),
                (range(max(first, start), F), self.patch, "x_embedder", 1.0)]
        cuts = [c for c in cuts if len(c[0]) > 0]
        xs, counts, times, ropes, frames = [], [], [], [], []
        for span, patch, embedder, factor in cuts:
            tokens = self.pack(latents[:, span[0]:span[-1] + 1], patch)
            n = tokens.shape[2]
            xs.append(self.lin(embedder, tokens).flatten(1, 2))
            counts += [n] * len(span)
            times.append(timesteps[:, span[0]:span[-1] + 1] * factor)
            ropes.append(self.rotary(list(span), patch, H, W))
            frames += [f for f in span for _ in range(n)]
        x = torch.cat(xs, 1)
        c = None if conditions is None else conditions[:, first:]
        modulation = self.modulations(self.embed_time(torch.cat(times, 1), c), torch.tensor(counts))
        rope = [torch.cat(r, 0) for r in zip(*ropes)]
        query = torch.tensor(frames)
        keys = query if cached_frames is None else torch.cat((cached_frames, query))
        back = (keys[None, :] - query[:, None]).float()
        mask = None
        if self.slope != 0 or bool((back > 0).any()):
            mask = torch.where(back > 0, torch.tensor(-math.inf), self.slope * back)
        distant = xs[0].shape[1] if cuts[0][2] == "context_embedder" else 0
        hidden, made = self.blocks(x, modulation, distant, rope, mask, cached)
        outs = []
        if distant:
            far = self.lin("context_proj_out", hidden[:, :distant])
            outs.append(self.unpack(far.unflatten(1, (len(cuts[0][0]), -1)), self.far_patch, H, W))
        if hidden.shape[1] > distant:
            near = self.lin("proj_out", hidden[:, distant:])
            outs.append(self.unpack(near.unflatten(1, (len(cuts[-1][0]), -1)), self.patch, H, W))
        return torch.cat(outs, 1), (made, query)

    def rollout(self, context, actions, noise, steps, guidance, cache):
        """Frame by frame from clean context; returns [B, context + predicted, C, H, W]."""
        history = context
        null = None if actions is None else torch.full_like(actions, self.condition["num_action_classes"])
        guided = guidance > 1
        conditions = torch.cat((null, actions)) if guided else null if guidance == -1 else actions
        sigmas = torch.cat((torch.from_numpy(np.linspace(1000, 1, steps) / 1000).float(), torch.zeros(1)))
        kept, kept_start = None, 0  # (layers' keys and values, frames of their tokens), window start when they were made
        for i in range(noise.shape[1]):
            x, F = noise[:, i:i + 1], history.shape[1] + 1
            start = max(0, F - self.window) if self.long else 0
            for k in range(steps):
                clip = torch.cat((history, x), 1)
                t = torch.full(clip.shape[:2], -1.0)
                t[:, -1] = sigmas[k] * 1000
                if guided:
                    clip, t = clip.repeat(2, 1, 1, 1, 1), t.repeat(2, 1)
                c = None if conditions is None else conditions[:, :F]
                if not cache or F == 1:
                    v, _ = self.forward(clip, t, c)
                elif k == 0:
                    if start != kept_start:  # the window moved: its frames see other tokens now, so all is made anew
                        kept, kept_start = None, start
                    first = 0 if kept is None else int(kept[1][-1]) + 1
                    v, made = self.forward(clip, t, c, first, *(kept or (None, None)))
                    kept = self.join(kept, made, F - 1)
                else:
                    v, _ = self.forward(clip, t, c, F - 1, *kept)
                v = v[:, -1:]
                if guided:
                    none, cond = v.chunk(2)
                    v = none + guidance * (cond - none)
                x = x + (sigmas[k + 1] - sigmas[k]) * v
            history = torch.cat((history, x), 1)
        return history

    def join(self, kept, made, before):
        """Kept keys and values with the new ones of frames below `before`."""
        layers, frames = made
        use = int((frames < before).sum())
        new = [(k[:, :, :use], v[:, :, :use]) for k, v in layers]
        if kept is not None:
            new = [(torch.cat((a, c), 2), torch.cat((b, d), 2)) for (a, b), (c, d) in zip(kept[0], new)]
            frames = torch.cat((kept[1], frames))
            use += len(kept[1])
        return new, frames[:use]


def check(folders):
    """Compares with recorded outputs: forward within 1e-5, roll-outs within 5e-5, relative to max(1, largest value)."""
    worst = {}
    for folder in folders:
        with open(folder + "/config.json") as file:
            config = json.load(file)
        io = load_safetensors(folder + "/io.safetensors")
        model = Far(load_safetensors(folder + "/weights.safetensors"), config["config"], config["model"] == "FAR_Long")
        results = []
        for per_token in (False, True):
            model.per_token = per_token
            if "out_train" in io:
                out, _ = model.forward(io["latents"], io["timestep"], io.get("action"))
                results.append((out, io["out_train"], 1e-5))
            for guidance in (1.0, 1.5):
                for cache in (True, False):
                    name = f"full_g{guidance:g}_{'cache' if cache else 'nocache'}"
                    if name in io:
                        args = io["context"], io.get("action"), io["init_noise"], config["num_inference_steps"], guidance
                        results.append((model.rollout(*args, cache), io[name], 5e-5))
        for got, want, bound in results:
            error = (got - want).abs().max().item() / max(1.0, want.abs().max().item())
            worst[folder.rstrip("/").split("/")[-1]] = max(error, worst.get(folder.rstrip("/").split("/")[-1], 0.0))
            if not error <= bound:
                sys.exit(f"{folder}: error {error:.2e}, expected at most {bound:.0e}")
        if not results:
            sys.exit(f"{folder}: nothing to compare")
    return worst


def far_b(classes=None):
    """FAR-B, or with actions FAR-B-Long; random weights of the size that training leaves (0.02), so that none is denormal."""
    D, layers, long = 768, 12, classes is not None
    g = torch.Generator().manual_seed(0)
    p = {}

    def layer(name, out, inputs):
        p[name + ".weight"] = torch.randn(out, inputs, generator=g) * 0.02
        p[name + ".bias"] = torch.randn(out, generator=g) * 0.02

    layer("x_embedder", D, 32)
    layer("timestep_embedder.linear_1", D, 256)
    layer("timestep_embedder.linear_2", D, D)
    if long:
        layer("context_embedder", D, 32 * 16)
        p["action_embedder.embedding_table.weight"] = torch.randn(classes + 1, D, generator=g) * 0.02
    for i in range(layers):
        b = f"transformer_blocks.{i}."
        projections = ["to_q", "to_k", "to_v", "to_out.0"]
        if long:
            projections += ["add_q_proj", "add_k_proj", "add_v_proj"] + (["to_add_out"] if i < layers - 1 else [])
        for n in ("norm1", "norm2"):
            layer(f"{b}{n}.linear", 3 * D, D)
        for n in projections:
            layer(f"{b}attn.{n}", D, D)
        for n in ("norm_q", "norm_k") + (("norm_added_q", "norm_added_k") if long else ()):
            p[f"{b}attn.{n}.weight"] = torch.ones(64)
        layer(b + "mlp.net.0.proj", 4 * D, D)
        layer(b + "mlp.net.2", D, 4 * D)
    layer("norm_out.linear", 2 * D, D)
    layer("proj_out", 32, D)
    if long:
        layer("context_proj_out", 512, D)
    config = {"patch_size": 1, "num_layers": layers, "num_attention_heads": 12, "attention_head_dim": 64,
              "axes_dims_rope": [16, 24, 24], "slope_scale": 0, "out_channels": 32}
    if long:
        config["condition_cfg"] = {"type": "action", "num_action_classes": classes}
    return Far(p, config, long)


def serve(threads, per_token):
    """Fills the cache with 15 window and 128 distant frames, then times one denoising step per line on stdin."""
    torch.set_num_threads(threads)
    model = far_b(classes=4)
    model.per_token = per_token
    F = 144
    clip = torch.randn(1, F, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    actions = torch.zeros(1, F, dtype=torch.int64)
    t = torch.full((1, F), -1.0)
    t[:, -1] = 500.0
    _, made = model.forward(clip, t, actions)
    kept = model.join(None, made, F - 1)
    info = {"torch": torch.__version__, "threads": torch.get_num_threads(), "cached_tokens": int(len(kept[1])),
            "cpu_capability": [l.strip() for l in torch.__config__.show().split("\n") if "capability" in l]}
    answer(info, lambda: model.forward(clip, t, actions, F - 1, *kept))


def serve_forward(threads, per_token):
    """Times one forward pass of FAR-B on 16 frames per line on stdin."""
    torch.set_num_threads(threads)
    model = far_b()
    model.per_token = per_token
    clip = torch.randn(1, 16, 32, 8, 8, generator=torch.Generator().manual_seed(1))
    t = 50.0 * torch.arange(16.0)[None]
    answer({"torch": torch.__version__, "threads": torch.get_num_threads()}, lambda: model.forward(clip, t, None))


def answer(info, work):
    """Describes the program, then answers each line with the time that one run of the work took."""
    print(json.dumps(info), flush=True)
    for _ in sys.stdin:
        begin, used = time.perf_counter(), time.process_time()
        work()
        times = {"seconds": time.perf_counter() - begin, "process_seconds": time.process_time() - used}
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=("check", "serve", "forward"))
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--per-token", action="store_true", help="modulation for every token, as the authors compute it")
    options = parser.parse_args()
    with torch.no_grad():
        if options.mode == "check":
            print(json.dumps(check(options.folders)))
        else:
            {"serve": serve, "forward": serve_forward}[options.mode](options.threads, options.per_token)
