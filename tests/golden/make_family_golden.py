#!/usr/bin/env python3
"""Writes golden folders of families of models: tiny ones with random weights, made, saved and computed by Hugging Face's
code. tests/trainer/family_golden_test.cpp imports every one and compares.

  FOLDER/<case>/config.json, *.safetensors   as save_pretrained() writes them
  FOLDER/<case>/golden/results.safetensors   tokens, targets, logits, cross_entropy
  FOLDER/<case>/golden/gradients.safetensors the gradient of the cross-entropy of every published tensor

Needs: python3 with torch, transformers and safetensors; made with transformers 5.24.0 and torch 2.15.0. The tests
themselves need none.

  ./make_family_golden.py FOLDER [CASE...]
"""
import copy
import os
import sys

import torch
import transformers
from safetensors.torch import save_file

BATCH, LENGTH, VOCAB = 4, 12, 32

SMALL = dict(vocab_size=VOCAB, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, attn_implementation="eager", pad_token_id=None,
             bos_token_id=1, eos_token_id=2)
EXPERTS = dict(num_experts_per_tok=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=100.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
YARN = dict(rope_type="yarn", rope_theta=100.0, factor=4.0, beta_fast=4.0, beta_slow=1.0,
            original_max_position_embeddings=32)
LATENT = dict(num_key_value_heads=4, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=5, n_routed_experts=8,
              num_experts_per_tok=3, moe_intermediate_size=8, first_k_dense_replace=1, rms_norm_eps=1e-5)
# Case: the architecture, what differs from SMALL, and how it is saved.
CASES = {
    "llama": ("Llama", dict(rope_parameters=LLAMA3, tie_word_embeddings=True), dict(dtype=torch.bfloat16)),
    "llama_bias": ("Llama", dict(attention_bias=True, head_dim=6), {}),
    "mistral": ("Mistral", dict(head_dim=8, sliding_window=5), {}),
    "qwen3": ("Qwen3", dict(head_dim=8, use_sliding_window=True, sliding_window=4, max_window_layers=1,
                            num_hidden_layers=3), {}),
    "mixtral": ("Mixtral", dict(num_local_experts=4, **EXPERTS), dict(max_shard_size="12KB")),
    "olmoe": ("Olmoe", dict(num_experts=4, **EXPERTS), {}),
    "qwen2_moe": ("Qwen2Moe", dict(num_experts=4, moe_intermediate_size=12, shared_expert_intermediate_size=10,
                                   mlp_only_layers=[0], num_hidden_layers=3, **EXPERTS), {}),
    "qwen3_moe": ("Qwen3Moe", dict(head_dim=8, num_experts=4, moe_intermediate_size=12, norm_topk_prob=True,
                                   decoder_sparse_step=2, **EXPERTS), {}),
    "deepseek_v2": ("DeepseekV2", dict(q_lora_rank=None, kv_lora_rank=10, n_shared_experts=2, topk_method="greedy",
                                       **LATENT), {}),
    "deepseek_v2_groups": ("DeepseekV2", dict(q_lora_rank=7, kv_lora_rank=8, n_shared_experts=1, n_group=4, topk_group=2,
                                              topk_method="group_limited_greedy", routed_scaling_factor=4.0,
                                              rope_parameters=dict(YARN, mscale=0.8, mscale_all_dim=0.8), **LATENT), {}),
    "deepseek_v3": ("DeepseekV3", dict(q_lora_rank=7, kv_lora_rank=8, n_shared_experts=1, n_group=4, topk_group=2,
                                       rope_parameters=dict(YARN, mscale=1.0, mscale_all_dim=0.5), **LATENT), {}),
}


def make_model(case, seed):
    architecture, settings, saving = CASES[case]
    config = getattr(transformers, architecture + "Config")(**{**SMALL, **settings})
    model = getattr(transformers, architecture + "ForCausalLM")(config).float().train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
            if saving.get("dtype"):
                weight.copy_(weight.to(saving["dtype"]).float())
    return model, generator, saving


def save(model, folder, saving):
    dtype = saving.get("dtype", torch.float32)
    more = {key: value for key, value in saving.items() if key != "dtype"}
    copy.deepcopy(model).to(dtype).save_pretrained(folder, **more)  # a copy: that rounds frequencies, too


def save_gradients(model, folder):
    """As weights, so that they get the published names."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    model.save_pretrained(folder + "/all")
    os.replace(folder + "/all/model.safetensors", folder + "/gradients.safetensors")
    for name in os.listdir(folder + "/all"):
        os.remove(f"{folder}/all/{name}")
    os.rmdir(folder + "/all")


def write_case(folder, case, seed):
    torch.manual_seed(seed)
    model, generator, saving = make_model(case, seed)
    stream = torch.randint(0, VOCAB, (BATCH, LENGTH + 1), generator=generator)
    tokens, targets = stream[:, :-1].contiguous(), stream[:, 1:].contiguous()
    path = f"{folder}/{case}"
    os.makedirs(path + "/golden", exist_ok=True)
    save(model, path, saving)
    os.remove(path + "/generation_config.json")
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), targets.reshape(-1))
    loss.backward()
    save_file(dict(tokens=tokens.to(torch.int32), targets=targets.to(torch.int32), logits=logits.detach().contiguous(),
                   cross_entropy=loss.detach().reshape(1)), path + "/golden/results.safetensors")
    save_gradients(model, path + "/golden")
    total = sum(parameter.numel() for parameter in model.parameters())
    print(f"{path}: {total} parameters, cross-entropy {loss.item():.6f}")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for seed, case in enumerate(CASES):
        if len(sys.argv) == 2 or case in sys.argv[2:]:
            write_case(sys.argv[1], case, 31 + seed)


if __name__ == "__main__":
    main()
