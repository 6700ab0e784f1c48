#!/usr/bin/env python3
"""Writes what the tensors of published models are called and how large they are, from Hugging Face's code on the meta
device, with the published configurations: no weight is read. tests/trainer/published_names_test.cpp maps them.

  FOLDER/<model>/config.json
  FOLDER/<model>/tensors.txt    lines `number shape name`, with # for the numbers of layers and experts in a name

Needs: python3 with torch and transformers; made with transformers 5.24.0. The tests themselves need none.

  ./make_published_names.py FOLDER
"""
import collections
import json
import os
import re
import sys

import torch
import transformers
from transformers.core_model_loading import revert_weight_conversion

COMMON = dict(hidden_act="silu", torch_dtype="bfloat16")
# As in the config.json of these models on the hub.
MODELS = {
    "llama-3.1-8b": dict(
        model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=500000.0,
        rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=8192), attention_bias=False, tie_word_embeddings=False),
    "mistral-7b-v0.1": dict(
        model_type="mistral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=32000, max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=10000.0,
        sliding_window=4096, tie_word_embeddings=False),
    "qwen3-8b": dict(
        model_type="qwen3", hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, max_position_embeddings=40960, rms_norm_eps=1e-6,
        rope_theta=1000000, rope_scaling=None, attention_bias=False, use_sliding_window=False, sliding_window=None,
        max_window_layers=36, tie_word_embeddings=False),
    "mixtral-8x7b": dict(
        model_type="mixtral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=32000, max_position_embeddings=32768, rms_norm_eps=1e-5, rope_theta=1000000.0,
        sliding_window=None, num_local_experts=8, num_experts_per_tok=2, router_aux_loss_coef=0.02,
        tie_word_embeddings=False),
    "olmoe-1b-7b": dict(
        model_type="olmoe", hidden_size=2048, intermediate_size=1024, num_hidden_layers=16, num_attention_heads=16,
        num_key_value_heads=16, vocab_size=50304, max_position_embeddings=4096, rms_norm_eps=1e-5, rope_theta=10000.0,
        rope_scaling=None, attention_bias=False, clip_qkv=None, num_experts=64, num_experts_per_tok=8,
        norm_topk_prob=False, router_aux_loss_coef=0.01, tie_word_embeddings=False),
    "qwen1.5-moe-a2.7b": dict(
        model_type="qwen2_moe", hidden_size=2048, intermediate_size=5632, num_hidden_layers=24, num_attention_heads=16,
        num_key_value_heads=16, vocab_size=151936, max_position_embeddings=8192, rms_norm_eps=1e-6, rope_theta=1000000.0,
        use_sliding_window=False, sliding_window=32768, max_window_layers=21, decoder_sparse_step=1, num_experts=60,
        num_experts_per_tok=4, moe_intermediate_size=1408, shared_expert_intermediate_size=5632, norm_topk_prob=False,
        router_aux_loss_coef=0.001, tie_word_embeddings=False),
    "qwen3-30b-a3b": dict(
        model_type="qwen3_moe", hidden_size=2048, intermediate_size=6144, num_hidden_layers=48, num_attention_heads=32,
        num_key_value_heads=4, head_dim=128, vocab_size=151936, max_position_embeddings=40960, rms_norm_eps=1e-6,
        rope_theta=1000000.0, rope_scaling=None, attention_bias=False, use_sliding_window=False, sliding_window=None,
        max_window_layers=48, decoder_sparse_step=1, mlp_only_layers=[], num_experts=128, num_experts_per_tok=8,
        moe_intermediate_size=768, norm_topk_prob=True, router_aux_loss_coef=0.001, tie_word_embeddings=False),
    "gpt-oss-20b": dict(
        model_type="gpt_oss", hidden_size=2880, intermediate_size=2880, num_hidden_layers=24, num_attention_heads=64,
        num_key_value_heads=8, head_dim=64, vocab_size=201088, max_position_embeddings=131072, rms_norm_eps=1e-5,
        rope_theta=150000, rope_scaling=dict(rope_type="yarn", factor=32.0, beta_fast=32.0, beta_slow=1.0, truncate=False,
                                             original_max_position_embeddings=4096),
        attention_bias=True, sliding_window=128, layer_types=["sliding_attention", "full_attention"] * 12,
        num_local_experts=32, num_experts_per_tok=4, experts_per_token=4, initial_context_length=4096, swiglu_limit=7.0,
        router_aux_loss_coef=0.9, tie_word_embeddings=False,
        quantization_config=dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"])),
    "deepseek-v2": dict(
        model_type="deepseek_v2", hidden_size=5120, intermediate_size=12288, num_hidden_layers=60,
        num_attention_heads=128, num_key_value_heads=128, vocab_size=102400, max_position_embeddings=163840,
        rms_norm_eps=1e-6, rope_theta=10000, kv_lora_rank=512, q_lora_rank=1536, qk_nope_head_dim=128,
        qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=160, n_shared_experts=2, num_experts_per_tok=6,
        moe_intermediate_size=1536, moe_layer_freq=1, first_k_dense_replace=1, n_group=8, topk_group=3,
        topk_method="group_limited_greedy", scoring_func="softmax", routed_scaling_factor=16.0, norm_topk_prob=False,
        aux_loss_alpha=0.001, rope_scaling=dict(type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=0.707,
                                                mscale_all_dim=0.707, original_max_position_embeddings=4096),
        attention_bias=False, tie_word_embeddings=False),
    "deepseek-v3": dict(
        model_type="deepseek_v3", hidden_size=7168, intermediate_size=18432, num_hidden_layers=61,
        num_attention_heads=128, num_key_value_heads=128, vocab_size=129280, max_position_embeddings=163840,
        rms_norm_eps=1e-6, rope_theta=10000, kv_lora_rank=512, q_lora_rank=1536, qk_nope_head_dim=128,
        qk_rope_head_dim=64, v_head_dim=128, n_routed_experts=256, n_shared_experts=1, num_experts_per_tok=8,
        moe_intermediate_size=2048, moe_layer_freq=1, first_k_dense_replace=3, n_group=8, topk_group=4,
        topk_method="noaux_tc", scoring_func="sigmoid", routed_scaling_factor=2.5, norm_topk_prob=True,
        rope_scaling=dict(type="yarn", factor=40, beta_fast=32, beta_slow=1, mscale=1.0, mscale_all_dim=1.0,
                          original_max_position_embeddings=4096), attention_bias=False, tie_word_embeddings=False,
        quantization_config=dict(quant_method="fp8", fmt="e4m3", weight_block_size=[128, 128])),
}


def published_tensors(settings):
    """Name and shape, one expert at a time, as save_pretrained() writes them."""
    settings = {key: value for key, value in settings.items() if key != "quantization_config"}
    config = transformers.AutoConfig.for_model(**settings)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, model.state_dict()).items()}


def write_model(folder, settings):
    os.makedirs(folder, exist_ok=True)
    with open(folder + "/config.json", "w", encoding="ascii") as file:
        json.dump({**COMMON, **settings}, file, indent=1)
        file.write("\n")
    counts = collections.Counter()
    for name, shape in published_tensors(settings).items():
        counts[(re.sub(r"\.\d+\.", ".#.", name), shape)] += 1
    with open(folder + "/tensors.txt", "w", encoding="ascii") as file:
        for (name, shape), number in sorted(counts.items()):
            file.write(f"{number} [{', '.join(map(str, shape))}] {name}\n")
    print(folder, sum(counts.values()))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, settings in MODELS.items():
        write_model(f"{sys.argv[1]}/{name}", settings)


if __name__ == "__main__":
    main()
