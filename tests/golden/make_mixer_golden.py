#!/usr/bin/env python3
"""Writes golden HDF5 files of mixers alone, computed by Hugging Face's code: x, what the mixer makes of it,
every weight, and the gradients of <output, dy>. tests/model/mixer_golden_test.cpp reads every such file.

Mamba-2 (ssd), MiniMax's lightning attention, Qwen3-Next's gated DeltaNet, Bloom's attention with ALiBi, T5's with
relative positions, gpt-oss's with a window, sinks, biases and YaRN, XLNet's score by distance under a causal mask (without
its residual and norm).

Needs: python3 with torch, transformers and h5py, and no flash-linear-attention, whose kernels want a card; made with
5.24.0 and torch 2.15. The tests themselves need none.

  ./make_mixer_golden.py FOLDER

Files: mamba2.h5, minimax.h5, qwen3_next.h5, bloom.h5, t5.h5, gpt_oss.h5, xlnet.h5. Names of datasets are those of the program's parameters behind the layer's
prefix: in.weight, conv.weight, decay.rate ...; "d NAME" is a gradient. Rows of in.weight: queries, keys, values, gate,
decays, betas.
"""
import sys

import h5py
import torch
from transformers import BloomConfig, GptOssConfig, Mamba2Config, MiniMaxConfig, Qwen3NextConfig, T5Config, XLNetConfig
from transformers.models.bloom.modeling_bloom import BloomAttention, build_alibi_tensor
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention, GptOssRotaryEmbedding
from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer
from transformers.models.minimax.modeling_minimax import MiniMaxLightningAttention
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

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


def causal_mask():
    return torch.full((LENGTH, LENGTH), float("-inf")).triu(1)[None, None]


def write(path, module, generator, attributes, parts, hidden=HIDDEN):
    x = torch.randn(SEQUENCES, LENGTH, hidden, generator=generator).requires_grad_()
    dy = torch.randn(SEQUENCES, LENGTH, hidden, generator=generator)
    y = module(x)
    y.backward(dy)
    with h5py.File(path, "w", libver="latest") as file:
        sizes = dict(hidden=hidden, length=LENGTH, sequences=SEQUENCES, layers=LAYERS, layer=LAYER, groups=0,
                     key_width=0, conv=0, epsilon_e9=1000, kv_heads=attributes["heads"], window=0, sinks=0, biases=0,
                     position="none", buckets=32, max_distance=128, rope_base=10000, yarn_factor=1, yarn_length=0)
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
    forward = module.forward
    module.forward = lambda x: forward(x, torch.zeros_like(x), alibi, causal_mask())[0]
    # Rows of query_key_value: of each head its q, k, v.
    of = lambda part: [(h * 3 * width + part * width, width) for h in range(heads)]

    def parts():
        return {
            "qkv.weight": rows(module.query_key_value.weight, of(0) + of(1) + of(2)),
            "output.weight": whole(module.dense.weight),
        }

    write(f"{folder}/bloom.h5", module, generator,
          dict(kind="full", heads=heads, value_width=width, position="alibi"), parts, hidden)


def t5(folder, generator):
    heads, width, buckets, farthest = 4, 5, 8, 16
    config = T5Config(d_model=HIDDEN, d_kv=width, num_heads=heads, is_decoder=True, dropout_rate=0.0,
                      relative_attention_num_buckets=buckets, relative_attention_max_distance=farthest)
    config._attn_implementation = "eager"
    module = randomize(T5Attention(config, has_relative_attention_bias=True, layer_idx=0), generator).eval()
    with torch.no_grad():
        module.relative_attention_bias.weight.mul_(4)
    # compute_bias goes without the mask: it is in the bias that the layer hands on.
    forward = module.forward
    module.forward = lambda x: forward(x, position_bias=module.compute_bias(LENGTH, LENGTH) + causal_mask())[0]

    def parts():
        # T5 does not scale scores: its queries are ours divided by the root of a head's width.
        value, gradient = whole(module.q.weight)
        return {
            "qkv.weight": joined([(value * width**0.5, gradient / width**0.5), whole(module.k.weight),
                                  whole(module.v.weight)]),
            "relative.weight": [t.T.contiguous() for t in whole(module.relative_attention_bias.weight)],
            "output.weight": whole(module.o.weight),
        }

    write(f"{folder}/t5.h5", module, generator,
          dict(kind="full", heads=heads, value_width=width, position="relative", buckets=buckets,
               max_distance=farthest), parts)


def gpt_oss(folder, generator):
    heads, kv_heads, width, window = 4, 2, 6, 5
    config = GptOssConfig(hidden_size=HIDDEN, num_attention_heads=heads, num_key_value_heads=kv_heads, head_dim=width,
                          num_hidden_layers=1, layer_types=["sliding_attention"], sliding_window=window)
    config._attn_implementation = "eager"
    module = randomize(GptOssAttention(config, 0), generator).eval()
    rope = config.rope_parameters
    turns = GptOssRotaryEmbedding(config)
    mask = causal_mask() + torch.full((LENGTH, LENGTH), float("-inf")).tril(-window)
    forward = module.forward
    module.forward = lambda x: forward(x, turns(x, torch.arange(LENGTH)[None]), mask)[0]
    projections = (module.q_proj, module.k_proj, module.v_proj)

    def parts():
        return {
            "qkv.weight": joined([whole(each.weight) for each in projections]),
            "qkv.bias": joined([whole(each.bias) for each in projections]),
            "sinks": whole(module.sinks),
            "output.weight": whole(module.o_proj.weight),
            "output.bias": whole(module.o_proj.bias),
        }

    write(f"{folder}/gpt_oss.h5", module, generator,
          dict(kind="window", heads=heads, value_width=width, kv_heads=kv_heads, window=window, sinks=1, biases=1,
               position="rope", rope_base=int(rope["rope_theta"]), yarn_factor=int(rope["factor"]),
               yarn_length=int(rope["original_max_position_embeddings"])), parts)


def xlnet(folder, generator):
    heads, width = 4, HIDDEN // 4
    config = XLNetConfig(d_model=HIDDEN, n_head=heads, n_layer=1, attn_type="uni", dropout=0.0, d_inner=8, vocab_size=8)
    module = randomize(XLNetRelativeAttention(config), generator).eval()
    distances = XLNetModel(config).relative_positional_encoding(LENGTH, LENGTH, bsz=SEQUENCES)
    masked = torch.ones(LENGTH, LENGTH).triu(1)[:, :, None, None].expand(-1, -1, SEQUENCES, 1)

    def forward(x):
        h = x.transpose(0, 1)
        q, k, v, r = (torch.einsum("ibh,hnd->ibnd", rows, weight)
                      for rows, weight in ((h, module.q), (h, module.k), (h, module.v), (distances, module.r)))
        vectors = module.rel_attn_core(q, k, v, r, attn_mask=masked)
        return torch.einsum("ibnd,hnd->bih", vectors, module.o)

    module.forward = forward
    by_rows = lambda weight: [t.permute(1, 2, 0).reshape(heads * width, HIDDEN) for t in whole(weight)]

    def parts():
        return {
            "qkv.weight": joined([by_rows(each) for each in (module.q, module.k, module.v)]),
            "distance.weight": by_rows(module.r),
            "distance.key_bias": [t.reshape(-1) for t in whole(module.r_w_bias)],
            "distance.distance_bias": [t.reshape(-1) for t in whole(module.r_r_bias)],
            "output.weight": [t.reshape(HIDDEN, heads * width) for t in whole(module.o)],
        }

    write(f"{folder}/xlnet.h5", module, generator,
          dict(kind="full", heads=heads, value_width=width, position="xl"), parts)


def main():
    generator = torch.Generator().manual_seed(16)
    for make in (mamba2, minimax, qwen3_next, bloom, t5, gpt_oss, xlnet):
        make(sys.argv[1], generator)


if __name__ == "__main__":
    main()
