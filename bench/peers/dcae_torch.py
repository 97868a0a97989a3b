"""The autoencoder DC-AE in PyTorch, written from a description of the authors' semantics.

It exists to be timed beside ours, and is checked against recorded outputs of the authors' code before any time counts:

    python dcae_torch.py check CASE_FOLDER...     every folder holds config.json, weights and io.safetensors
    python dcae_torch.py serve --work decode --config JSON --frames B --side PIXELS --threads N
                                                  one pass per line on stdin (decode, encode or train), seconds on stdout

Letters as in the rest of the repository: B images, C channels, H and W height and width.
"""
import argparse
import json
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as fn

from far_torch import load_safetensors


class RmsNorm(nn.Module):
    """Over the channels of a pixel."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        scale = torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-5)
        return x * scale * self.weight[:, None, None] + self.bias[:, None, None]


def norm_of(kind, channels):
    return nn.BatchNorm2d(channels) if kind == "batch_norm" else RmsNorm(channels)


def conv3(i, o, bias=True):
    return nn.Conv2d(i, o, 3, padding=1, bias=bias)


class ResBlock(nn.Module):
    def __init__(self, channels, norm, act, **_):
        super().__init__()
        self.conv1, self.conv2 = conv3(channels, channels), conv3(channels, channels, False)
        self.norm, self.act = norm_of(norm, channels), getattr(fn, act)

    def forward(self, x):
        return self.norm(self.conv2(self.act(self.conv1(x)))) + x


class Branch(nn.Module):
    """Queries, keys and values of a neighbourhood."""

    def __init__(self, channels, kernel, head_dim):
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        self.proj_out = nn.Conv2d(channels, channels, 1, groups=channels // head_dim, bias=False)

    def forward(self, x):
        return self.proj_out(self.proj_in(x))


class Attention(nn.Module):
    """Multi-scale ReLU linear attention."""

    def __init__(self, channels, norm, head_dim, scales):
        super().__init__()
        inner, self.head_dim = channels // head_dim * head_dim, head_dim
        self.to_q, self.to_k, self.to_v = (nn.Linear(channels, inner, bias=False) for _ in range(3))
        self.to_qkv_multiscale = nn.ModuleList(Branch(3 * inner, k, head_dim) for k in scales)
        self.to_out = nn.Linear(inner * (1 + len(scales)), channels, bias=False)
        self.norm_out = norm_of(norm, channels)

    def forward(self, x):
        B, _, H, W = x.shape
        last = x.movedim(1, -1)
        qkv = torch.cat((self.to_q(last), self.to_k(last), self.to_v(last)), -1).movedim(-1, 1)
        every = torch.cat([qkv] + [branch(qkv) for branch in self.to_qkv_multiscale], 1)
        q, k, v = every.reshape(B, -1, 3 * self.head_dim, H * W).chunk(3, 2)
        q, k = q.relu(), k.relu()
        v = fn.pad(v, (0, 0, 0, 1), value=1.0)
        out = (v @ k.transpose(2, 3)) @ q
        out = (out[:, :, :-1] / (out[:, :, -1:] + 1e-15)).reshape(B, -1, H, W)
        return self.norm_out(self.to_out(out.movedim(1, -1)).movedim(-1, 1)) + x


class Glu(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv_inverted = nn.Conv2d(channels, 8 * channels, 1)
        self.conv_depth = nn.Conv2d(8 * channels, 8 * channels, 3, padding=1, groups=8 * channels)
        self.conv_point = nn.Conv2d(4 * channels, channels, 1, bias=False)
        self.norm = RmsNorm(channels)

    def forward(self, x):
        value, gate = self.conv_depth(fn.silu(self.conv_inverted(x))).chunk(2, 1)
        return self.norm(self.conv_point(value * fn.silu(gate))) + x


class EfficientViTBlock(nn.Module):
    def __init__(self, channels, norm, act, head_dim, scales):
        super().__init__()
        self.attn = Attention(channels, norm, head_dim, scales)
        self.conv_out = Glu(channels)

    def forward(self, x):
        return self.conv_out(self.attn(x))


class Down(nn.Module):
    def __init__(self, i, o, shortcut=True):
        super().__init__()
        self.conv, self.o, self.shortcut = conv3(i, o // 4), o, shortcut and 4 * i % o == 0

    def forward(self, x):
        y = fn.pixel_unshuffle(self.conv(x), 2)
        if not self.shortcut:
            return y
        B, _, H, W = y.shape
        return y + fn.pixel_unshuffle(x, 2).view(B, self.o, -1, H, W).mean(2)


class Up(nn.Module):
    def __init__(self, i, o, shortcut=True):
        super().__init__()
        self.conv, self.repeats, self.shortcut = conv3(i, 4 * o), 4 * o // i, shortcut and 4 * o % i == 0

    def forward(self, x):
        y = self.conv(x)
        return fn.pixel_shuffle(y + x.repeat_interleave(self.repeats, 1) if self.shortcut else y, 2)


BLOCKS = {"ResBlock": ResBlock, "EfficientViTBlock": EfficientViTBlock}


def stages(c, side):
    """Channels, and the blocks of each resolution, finest first."""
    channels = c[f"{side}_block_out_channels"]
    norms = c["decoder_norm_types"] if side == "decoder" else ["rms_norm"] * len(channels)
    acts = c["decoder_act_fns"] if side == "decoder" else ["silu"] * len(channels)
    rows = zip(channels, c[f"{side}_layers_per_block"], c[f"{side}_block_types"], norms, acts,
               c[f"{side}_qkv_multiscales"])
    return channels, [[BLOCKS[kind](C, norm=norm, act=act, head_dim=c["attention_head_dim"], scales=scales)
                       for _ in range(layers)] for C, layers, kind, norm, act, scales in rows]


class Encoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        channels, blocks = stages(c, "encoder")
        self.averaged = c["latent_channels"]
        self.conv_in = conv3(c["in_channels"], channels[0]) if blocks[0] else Down(c["in_channels"], channels[1], False)
        for i, stage in enumerate(blocks[:-1]):
            if stage:
                stage.append(Down(channels[i], channels[i + 1]))
        self.down_blocks = nn.ModuleList(nn.Sequential(*stage) for stage in blocks)
        self.conv_out = conv3(channels[-1], self.averaged)

    def forward(self, x):
        x = self.conv_in(x)
        for stage in self.down_blocks:
            x = stage(x)
        B, _, H, W = x.shape
        return self.conv_out(x) + x.view(B, self.averaged, -1, H, W).mean(2)


class Decoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        channels, blocks = stages(c, "decoder")
        self.conv_in, self.repeats = conv3(c["latent_channels"], channels[-1]), channels[-1] // c["latent_channels"]
        for i, stage in enumerate(blocks[:-1]):
            if stage:
                stage.insert(0, Up(channels[i + 1], channels[i]))
        self.up_blocks = nn.ModuleList(nn.Sequential(*stage) for stage in blocks)
        self.norm_out = RmsNorm(channels[0] if blocks[0] else channels[1])
        self.conv_out = (conv3(channels[0], c["in_channels"]) if blocks[0]
                         else Up(channels[1], c["in_channels"], False))

    def forward(self, z):
        x = self.conv_in(z) + z.repeat_interleave(self.repeats, 1)
        for stage in reversed(self.up_blocks):
            x = stage(x)
        return self.conv_out(self.norm_out(x).relu())


class Autoencoder(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.encoder, self.decoder = Encoder(c), Decoder(c)
        self.pixels = 2 ** (len([n for n in c["encoder_layers_per_block"][:-1] if n]) +
                            (0 if c["encoder_layers_per_block"][0] else 1))


def check(folders):
    """Worst error of latents and images, relative to the largest value: within 1e-5."""
    worst = {}
    for folder in folders:
        with open(folder + "/config.json") as file:
            config = json.load(file)["config"]
        io = load_safetensors(folder + "/io.safetensors")
        model = Autoencoder(config).eval()
        model.load_state_dict(load_safetensors(folder + "/weights.safetensors"))
        found = {"z": model.encoder(io["x"]), "y": model.decoder(io["z"])}
        error = max(((y - io[key]).abs().max() / io[key].abs().max()).item() for key, y in found.items())
        if not error <= 1e-5:
            sys.exit(f"{folder}: error {error:.2e}, expected at most 1e-5")
        worst[folder.rstrip("/").split("/")[-1]] = error
    return worst


def serve(work, config, frames, side, threads):
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = Autoencoder(config).train(work == "train")
    latents = torch.randn(frames, config["latent_channels"], side // model.pixels, side // model.pixels)
    images = torch.rand(frames, 3, side, side) * 2 - 1

    def run():
        if work == "train":
            loss = (model.decoder(model.encoder(images)) - images).abs().mean()
            loss.backward()
            return
        with torch.inference_mode():
            model.decoder(latents) if work == "decode" else model.encoder(images)

    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        begin, used = time.perf_counter(), time.process_time()
        run()
        times = {"seconds": time.perf_counter() - begin, "process_seconds": time.process_time() - used}
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("mode", choices=("check", "serve"))
    parser.add_argument("folders", nargs="*")
    parser.add_argument("--work", choices=("decode", "encode", "train"), default="decode")
    parser.add_argument("--config", type=json.loads)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.mode == "check":
        with torch.no_grad():
            print(json.dumps(check(options.folders)))
    else:
        serve(options.work, options.config, options.frames, options.side, options.threads)
