#!/usr/bin/env python3
"""Writes golden HDF5 files of mixture-of-experts blocks alone, computed by Hugging Face's code: x, what the block makes of
it, every weight, and the gradients of <output, dy>. tests/experts/block_golden_test.cpp reads every such file.

Of OLMoE, Qwen2-MoE, Qwen3-MoE and DeepSeek-V3 the whole block, shared experts included; of gpt-oss, Switch and
DeepSeek-V2 the router: its output is then a weight for each expert, 0 of those not chosen.

Needs: python3 with torch, transformers and h5py; made with 4.57.1 and torch 2.5.1. The tests themselves need none.

  ./make_block_golden.py FOLDER

Files: <model>_block.h5 and <model>_router.h5. Names of datasets follow the program's: router.weight, gate_up, down, ...
"""
import sys

import h5py
import torch
import torch.nn.functional as functional
from transformers import (DeepseekV2Config, DeepseekV3Config, GptOssConfig, OlmoeConfig, Qwen2MoeConfig,
                          Qwen3MoeConfig, SwitchTransformersConfig)
from transformers.models.deepseek_v2.modeling_deepseek_v2 import DeepseekV2MoEGate
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssTopKRouter
from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock
from transformers.models.switch_transformers.modeling_switch_transformers import SwitchTransformersTop1Router

HIDDEN, INTERMEDIATE, EXPERTS, TOKENS, SHARED = 16, 12, 8, 24, 10


def randomize(module, generator, std=0.5):
    with torch.no_grad():
        for tensor in list(module.parameters()) + list(module.buffers()):
            tensor.copy_(std * torch.randn(tensor.shape, generator=generator))
    return module


def both(file, name, tensors):
    """Weights one after the other, and their gradients."""
    stack = torch.stack if tensors[0].dim() == 2 and len(tensors) > 1 else lambda t: t[0]
    gradients = [torch.zeros_like(t) if t.grad is None else t.grad for t in tensors]
    file[name] = stack([t.detach() for t in tensors]).numpy()
    file["d " + name] = stack(gradients).numpy()


class Joined:
    """gate_proj and up_proj as one tensor, gate rows first."""

    def __init__(self, mlp):
        self.value = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]).detach()
        parts = [mlp.gate_proj.weight, mlp.up_proj.weight]
        self.grad = torch.cat([torch.zeros_like(p) if p.grad is None else p.grad for p in parts])


def write_mlps(file, name, mlps):
    joined = [Joined(mlp) for mlp in mlps]
    file[name + ".gate_up"] = torch.stack([j.value for j in joined]).numpy()
    file["d " + name + ".gate_up"] = torch.stack([j.grad for j in joined]).numpy()
    downs = [mlp.down_proj.weight for mlp in mlps]
    file[name + ".down"] = torch.stack([d.detach() for d in downs]).numpy()
    file["d " + name + ".down"] = torch.stack(
        [torch.zeros_like(d) if d.grad is None else d.grad for d in downs]).numpy()


def write_file(path, attributes, x, y, dy, parts):
    y.backward(dy)
    with h5py.File(path, "w", libver="latest") as file:
        for key, value in attributes.items():
            if isinstance(value, str):
                file.attrs.create(key, value, dtype=h5py.string_dtype("ascii", 16))
            else:
                file.attrs.create(key, value, dtype="i8")
        file["x"], file["d x"] = x.detach().numpy(), x.grad.numpy()
        file["y"], file["dy"] = y.detach().numpy(), dy.numpy()
        parts(file)
    print(path)


def attributes(top_k, experts=EXPERTS, hidden=HIDDEN, **more):
    defaults = dict(hidden=hidden, intermediate=INTERMEDIATE, num_experts=experts, top_k=top_k, normalize=0,
                    score="softmax", softmax_over="all", scale_percent=100, groups=1, top_groups=1,
                    group_score="best", shared=0, shared_gate=0, has_bias=0)
    return {**defaults, **more}


def inputs(generator, hidden=HIDDEN):
    x = torch.randn(TOKENS, hidden, generator=generator).requires_grad_()
    return x, torch.randn(TOKENS, hidden, generator=generator)


def write_block(folder, name, module, generator, settings, router, experts, shared=None, gate=None, bias=None):
    x, dy = inputs(generator)
    out = module(x.unsqueeze(0))
    y = (out[0] if isinstance(out, tuple) else out).reshape(TOKENS, HIDDEN)

    def parts(file):
        both(file, "router.weight", [router])
        write_mlps(file, "experts", experts)
        if shared is not None:
            write_mlps(file, "shared", [shared])
        if gate is not None:
            both(file, "shared.gate", [gate])
        if bias is not None:
            file["router.bias"] = bias.detach().numpy()

    write_file(f"{folder}/{name}_block.h5", settings, x, y, dy, parts)


def write_blocks(folder, generator):
    sizes = dict(hidden_size=HIDDEN, num_experts=EXPERTS, num_attention_heads=2)
    for name, config, kind in (("olmoe", OlmoeConfig(**sizes, num_experts_per_tok=3, intermediate_size=INTERMEDIATE),
                                OlmoeSparseMoeBlock),
                               ("qwen3_moe", Qwen3MoeConfig(**sizes, num_experts_per_tok=3, norm_topk_prob=True,
                                                            moe_intermediate_size=INTERMEDIATE),
                                Qwen3MoeSparseMoeBlock)):
        module = randomize(kind(config), generator)
        settings = attributes(3, normalize=int(config.norm_topk_prob))
        write_block(folder, name, module, generator, settings, module.gate.weight, module.experts)
    config = Qwen2MoeConfig(**sizes, num_experts_per_tok=4, moe_intermediate_size=INTERMEDIATE,
                            shared_expert_intermediate_size=SHARED)
    module = randomize(Qwen2MoeSparseMoeBlock(config), generator)
    settings = attributes(4, normalize=int(config.norm_topk_prob), shared=SHARED, shared_gate=1)
    write_block(folder, "qwen2_moe", module, generator, settings, module.gate.weight, module.experts,
                module.shared_expert, module.shared_expert_gate.weight)
    config = DeepseekV3Config(hidden_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=3, n_group=4,
                              topk_group=2, norm_topk_prob=True, routed_scaling_factor=2.5, n_shared_experts=1,
                              moe_intermediate_size=INTERMEDIATE)
    module = randomize(DeepseekV3MoE(config), generator)
    with torch.no_grad():  # all biased scores above 0, where a mask of 0 is one of -infinity
        module.gate.e_score_correction_bias.copy_(torch.rand(EXPERTS, generator=generator))
    settings = attributes(3, normalize=1, score="sigmoid", scale_percent=250, groups=4, top_groups=2,
                          group_score="best_two", shared=INTERMEDIATE, has_bias=1)
    write_block(folder, "deepseek_v3", module, generator, settings, module.gate.weight, module.experts,
                module.shared_experts, None, module.gate.e_score_correction_bias)


def write_router(folder, name, generator, settings, weight, x, dense):
    """dense: [T, E], the weight of every expert, of which the gradient is random."""
    dy = torch.randn(dense.shape, generator=generator)
    write_file(f"{folder}/{name}_router.h5", settings, x, dense, dy,
               lambda file: both(file, "router.weight", [weight]))


def scattered(indices, weights):
    return torch.zeros(TOKENS, EXPERTS).scatter(1, indices, weights)


def write_routers(folder, generator):
    # The bias of gpt-oss's logits is the last column of the weight, and 1 the last of x.
    config = GptOssConfig(hidden_size=HIDDEN, num_local_experts=EXPERTS, num_experts_per_tok=4)
    module = randomize(GptOssTopKRouter(config), generator)
    x = torch.cat([torch.randn(TOKENS, HIDDEN, generator=generator), torch.ones(TOKENS, 1)], 1).requires_grad_()
    whole = torch.cat([module.weight, module.bias.unsqueeze(1)], 1).detach().requires_grad_()
    linear = functional.linear
    functional.linear = lambda h, w, b: linear(x, whole)  # the module's own arithmetic with one tensor for both
    dense, _ = module(x[:, :HIDDEN])
    functional.linear = linear
    write_router(folder, "gpt_oss", generator,
                 attributes(4, hidden=HIDDEN + 1, normalize=1, softmax_over="chosen"), whole, x, dense)

    config = SwitchTransformersConfig(hidden_size=HIDDEN, num_experts=EXPERTS, expert_capacity=TOKENS)
    module = randomize(SwitchTransformersTop1Router(config), generator).eval()
    x, _ = inputs(generator)
    index, probability, _ = module(x.unsqueeze(0))
    write_router(folder, "switch", generator, attributes(1), module.classifier.weight, x,
                 (index * probability).reshape(TOKENS, EXPERTS))

    config = DeepseekV2Config(hidden_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=3, n_group=4,
                              topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=16.0)
    module = randomize(DeepseekV2MoEGate(config), generator)
    x, _ = inputs(generator)
    indices, weights = module(x.unsqueeze(0))
    write_router(folder, "deepseek_v2", generator, attributes(3, scale_percent=1600, groups=4, top_groups=2),
                 module.weight, x, scattered(indices, weights))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    torch.manual_seed(5)
    generator = torch.Generator().manual_seed(5)
    write_blocks(sys.argv[1], generator)
    write_routers(sys.argv[1], generator)


if __name__ == "__main__":
    main()
