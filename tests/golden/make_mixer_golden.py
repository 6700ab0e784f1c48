#!/usr/bin/env python3
"""Writes golden HDF5 files of mixers alone, computed by Hugging Face's code: x, what the mixer makes of it,
every weight, and the gradients of <output, dy>. tests/model/mixer_golden_test.cpp reads every such file.

Mamba-2 (ssd), MiniMax's lightning attention, Qwen3-Next's gated DeltaNet, Bloom's attention with ALiBi.

Needs: python3 with torch, transformers and h5py, and no flash-linear-attention, whose kernels want a card; made with
5.24.0 and torch 2.15. The tests themselves need none.

  ./make_mixer_golden.py FOLDER

Files: mamba2.h5, minimax.h5, qwen3_next.h5, bloom.h5. Names of datasets are those of the program's parameters behind the layer's
prefix: in.weight, conv.weight, decay.rate ...; "d NAME" is a gradient. Rows of in.weight: queries, keys, values, gate,
decays, betas.
"""
import sys

import h5py
import torch
from transformers import BloomConfig, Mamba2Config, MiniMaxConfig, Qwen3NextConfig
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

HIDDEN, LENGTH, SEQUENCES, LAYERS, LAYER = 16, 21, 2, 3, 1


def randomize(module, generator, std=0.3):
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.copy_(std * torch.randn(tensor.shape, generator=generator))
    return module


def rows(tensor, parts):
    """Parts (first, count) of a weight's rows, and of its gradient's, one after the other."""
    return (torch.cat([tensor.detach()[a:a + n] for a, n in parts]),
            torch.cat([tensor.grad[a:a + n] for a, n in parts]))


def whole(tensor):
    return tensor.detach(), tensor.grad


def joined(pairs):
    return torch.cat([p[0] for p in pairs]), torch.cat([p[1] for p in pairs])


def write(path, module, generator, attributes, parts, hidden=HIDDEN):
    x = torch.randn(SEQUENCES, LENGTH, hidden, generator=generator).requires_grad_()
    dy = torch.randn(SEQUENCES, LENGTH, hidden, generator=generator)
    y = module(x)
    y.backward(dy)
    with h5py.File(path, "w", libver="latest") as file:
        sizes = dict(hidden=hidden, length=LENGTH, sequences=SEQUENCES, layers=LAYERS, layer=LAYER)
        for key, value in {**sizes, **attributes}.items():
            if isinstance(value, str):
                file.attrs.create(key, value, dtype=h5py.string_dtype("ascii", 16))
            else:
                file.attrs.create(key, value, dtype="i8")
        flat = lambda t: t.detach().reshape(SEQUENCES * LENGTH, hidden).numpy()
        file["x"], file["d x"], file["y"], file["dy"] = flat(x), flat(x.grad), flat(y), flat(dy)
        for name, (value, gradient) in parts().items():
            file[name], file["d " + name] = value.numpy(), gradient.numpy()
    print(path)


def mamba2(folder, generator):
    heads, width, state, groups, conv = 4, 8, 6, 2, 4
    config = Mamba2Config(hidden_size=HIDDEN, num_heads=heads, head_dim=width, state_size=state, n_groups=groups,
                          conv_kernel=conv, expand=heads * width // HIDDEN, use_bias=False, use_conv_bias=True,
                          chunk_size=8, num_hidden_layers=LAYERS, layer_norm_epsilon=1e-5)
    module = randomize(Mamba2Mixer(config, LAYER), generator).eval()  # the plain torch path
    inner, keys = heads * width, groups * state
    # Rows of in_proj: z, x, B, C, dt. Channels of the convolution: x, B, C. Queries are C, keys B, values x.
    mixed = [(inner + keys, keys), (inner, keys), (0, inner)]
    shifted = [(inner + a, n) for a, n in mixed]

    def parts():
        conv_weight = [t.squeeze(1) for t in rows(module.conv1d.weight, mixed)]
        return {
            "in.weight": rows(module.in_proj.weight, shifted + [(0, inner), (2 * inner + 2 * keys, heads)]),
            "conv.weight": conv_weight,
            "conv.bias": rows(module.conv1d.bias, mixed),
            "decay.rate": whole(module.A_log),
            "decay.bias": whole(module.dt_bias),
            "skip": whole(module.D),
            "norm.weight": whole(module.norm.weight),
            "output.weight": whole(module.out_proj.weight),
        }

    write(f"{folder}/mamba2.h5", module, generator,
          dict(kind="ssd", heads=heads, groups=groups, key_width=state, value_width=width, conv=conv, epsilon_e9=10000),
          parts)


def minimax(folder, generator):
    heads, width = 3, 6
    config = MiniMaxConfig(hidden_size=HIDDEN, num_attention_heads=heads, num_key_value_heads=heads, head_dim=width,
                           num_hidden_layers=LAYERS, block_size=8, layer_types=["linear_attention"] * LAYERS)
    module = randomize(MiniMaxLightningAttention(config, LAYER), generator)
    forward = module.forward
    module.forward = lambda x: forward(x, None, None)[0]
    # Rows of qkv_proj: of each head its q, k, v.
    of = lambda part: [(h * 3 * width + part * width, width) for h in range(heads)]

    def parts():
        return {
            "in.weight": joined([rows(module.qkv_proj.weight, of(0) + of(1) + of(2)), whole(module.output_gate.weight)]),
            "norm.weight": whole(module.norm.weight),
            "output.weight": whole(module.out_proj.weight),
        }

    write(f"{folder}/minimax.h5", module, generator,
          dict(kind="lightning", heads=heads, groups=heads, key_width=width, value_width=width, conv=0,
               epsilon_e9=1000), parts)


def qwen3_next(folder, generator):
    heads, groups, keys, width, conv = 4, 2, 6, 5, 4
    config = Qwen3NextConfig(hidden_size=HIDDEN, linear_num_value_heads=heads, linear_num_key_heads=groups,
                             linear_key_head_dim=keys, linear_value_head_dim=width, linear_conv_kernel_dim=conv,
                             num_hidden_layers=LAYERS, rms_norm_eps=1e-6)
    module = randomize(Qwen3NextGatedDeltaNet(config, LAYER), generator)
    each = heads // groups
    # Rows of in_proj_qkvz: of each key head its q, k, and its value heads' v and z; of in_proj_ba: their b, their a.
    size = 2 * keys + 2 * each * width
    of = lambda begin, count: [(g * size + begin, count) for g in range(groups)]
    mixed = of(0, keys) + of(keys, keys) + of(2 * keys, each * width) + of(2 * keys + each * width, each * width)
    tokens = lambda begin: [(g * 2 * each + begin, each) for g in range(groups)]

    def parts():
        return {
            "in.weight": joined([rows(module.in_proj_qkvz.weight, mixed),
                                 rows(module.in_proj_ba.weight, tokens(each) + tokens(0))]),
            "conv.weight": [t.squeeze(1) for t in whole(module.conv1d.weight)],
            "decay.rate": whole(module.A_log),
            "decay.bias": whole(module.dt_bias),
            "norm.weight": whole(module.norm.weight),
            "output.weight": whole(module.out_proj.weight),
        }

    write(f"{folder}/qwen3_next.h5", module, generator,
          dict(kind="gated_delta", heads=heads, groups=groups, key_width=keys, value_width=width, conv=conv,
               epsilon_e9=1000), parts)


def bloom(folder, generator):
    heads, width = 6, 3  # no power of two: slopes of two series
    hidden = heads * width
    config = BloomConfig(hidden_size=hidden, n_head=heads, hidden_dropout=0.0, attention_dropout=0.0)
    module = randomize(BloomAttention(config, 0), generator).eval()
    with torch.no_grad():
        module.query_key_value.bias.zero_()
        module.dense.bias.zero_()
    alibi = build_alibi_tensor(torch.ones(SEQUENCES, LENGTH), heads, torch.float32)
    mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)[None, None]
    forward = module.forward
    module.forward = lambda x: forward(x, torch.zeros_like(x), alibi, mask)[0]
    # Rows of query_key_value: of each head its q, k, v.
    of = lambda part: [(h * 3 * width + part * width, width) for h in range(heads)]

    def parts():
        return {
            "qkv.weight": rows(module.query_key_value.weight, of(0) + of(1) + of(2)),
            "output.weight": whole(module.dense.weight),
        }

    write(f"{folder}/bloom.h5", module, generator,
          dict(kind="full", heads=heads, groups=0, key_width=0, value_width=width, conv=0, epsilon_e9=1000), parts, hidden)


def main():
    generator = torch.Generator().manual_seed(16)
    for make in (mamba2, minimax, qwen3_next, bloom):
        make(sys.argv[1], generator)


if __name__ == "__main__":
    main()
