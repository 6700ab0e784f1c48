#!/usr/bin/env python3
"""Writes golden folders of families of models: tiny ones with random weights, made, saved and computed by Hugging Face's
code. tests/trainer/family_golden_test.cpp imports every one and compares.

  FOLDER/<case>/config.json, *.safetensors   as save_pretrained() writes them
  FOLDER/<case>/golden/results.safetensors   tokens, targets, logits, cross_entropy; losses of the steps of a training on
                                             these tokens; what greedy decoding goes on with behind the first tokens
  FOLDER/<case>/golden/gradients.safetensors the gradient of the cross-entropy of every published tensor
  FOLDER/<case>/golden/trained.safetensors   every published tensor after the training

Needs: python3 with torch, transformers and safetensors; made with transformers 5.24.0 and torch 2.15.0. The tests
themselves need none.

  ./make_family_golden.py FOLDER [CASE...]
"""
import copy
import json
import os
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

BATCH, LENGTH, VOCAB = 4, 12, 32
PROMPT, NEW_TOKENS = 4, 8  # of greedy decoding
# As tests/trainer/family_training_test.cpp has them. Elements whose gradient is rounding alone hardly move with this
# epsilon.
NUM_STEPS, LEARNING_RATE, WEIGHT_DECAY, BETAS, EPSILON, CLIP_NORM = 5, 5e-3, 0.1, (0.9, 0.95), 1e-6, 0.5

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
    "olmoe_clip": ("Olmoe", dict(num_experts=4, clip_qkv=1.1, num_hidden_layers=1, **EXPERTS), {}),
    "gpt_oss": ("GptOss", dict(head_dim=8, num_local_experts=4, sliding_window=5, swiglu_limit=0.4,
                               rope_parameters=dict(YARN, truncate=False), **EXPERTS), {}),
    "gpt_oss_mxfp4": ("GptOss", dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                     num_key_value_heads=1, head_dim=8, num_local_experts=2, num_experts_per_tok=1,
                                     rope_parameters=dict(YARN, truncate=False)), dict(mxfp4=True)),
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
# Cases that came later keep the seeds of the others as they were.
SEEDS = {case: 31 + number for number, case in enumerate(
    ["llama", "llama_bias", "mistral", "qwen3", "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "deepseek_v2",
     "deepseek_v2_groups", "deepseek_v3", "olmoe_clip", "gpt_oss", "gpt_oss_mxfp4"])}


def make_model(case, seed):
    architecture, settings, saving = CASES[case]
    config = getattr(transformers, architecture + "Config")(**{**SMALL, **settings})
    model = getattr(transformers, architecture + "ForCausalLM")(config).float().train()
    generator = torch.Generator().manual_seed(seed)
    packed = {}
    with torch.no_grad():
        for name, weight in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name:
                continue
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.1 * noise if "norm" in name and name.endswith("weight") else 0.2 * noise)
            if saving.get("mxfp4") and name.endswith("_proj") and weight.dim() == 3:
                packed[name] = random_mxfp4(weight, generator)
            if saving.get("dtype"):
                weight.copy_(weight.to(saving["dtype"]).float())
    return model, generator, saving, packed


def random_mxfp4(weight, generator):
    """Sets a weight [experts, columns, rows] to numbers of that type; returns its blocks and scales."""
    experts, columns, rows = weight.shape
    shape = (experts, rows, columns // 32)
    blocks = torch.randint(0, 256, (*shape, 16), generator=generator, dtype=torch.uint8)
    scales = torch.randint(123, 126, shape, generator=generator, dtype=torch.uint8)
    weight.copy_(convert_moe_packed_tensors(blocks, scales, dtype=torch.float32))
    return blocks, scales


def save(model, folder, saving, packed):
    dtype = saving.get("dtype", torch.float32)
    more = {key: value for key, value in saving.items() if key == "max_shard_size"}
    copy.deepcopy(model).to(dtype).save_pretrained(folder, **more)  # a copy: that rounds frequencies, too
    if not packed:
        return
    tensors = load_file(folder + "/model.safetensors")
    for name, (blocks, scales) in packed.items():
        del tensors[name]
        tensors[name + "_blocks"], tensors[name + "_scales"] = blocks, scales
    save_file(tensors, folder + "/model.safetensors", metadata=dict(format="pt"))
    with open(folder + "/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn"])
    with open(folder + "/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


def save_numbers(model, folder, name):
    """A model's parameters as NAME.safetensors, with the published names."""
    model.save_pretrained(folder + "/all")
    os.replace(folder + "/all/model.safetensors", f"{folder}/{name}.safetensors")
    for left in os.listdir(folder + "/all"):
        os.remove(f"{folder}/all/{left}")
    os.rmdir(folder + "/all")


def save_gradients(model, folder):
    """As weights, so that they get the published names."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    save_numbers(model, folder, "gradients")


def cross_entropy(model, tokens, targets):
    logits = model(input_ids=tokens, use_cache=False).logits.float()
    return logits, torch.nn.functional.cross_entropy(logits.reshape(-1, VOCAB), targets.reshape(-1))


def train(model, tokens, targets):
    """Trains on one batch over and over; the loss before each step. Matrices and the embedding decay."""
    def is_vector(name):
        return "norm" in name or name.endswith(("bias", "sinks"))

    groups = [dict(params=[p for n, p in model.named_parameters() if is_vector(n) == kept],
                   weight_decay=0.0 if kept else WEIGHT_DECAY) for kept in (False, True)]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=BETAS, eps=EPSILON)
    losses = []
    for _ in range(NUM_STEPS):
        optimizer.zero_grad(set_to_none=False)
        loss = cross_entropy(model, tokens, targets)[1]
        loss.backward()
        losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
    return torch.tensor(losses)


def greedy_tokens(model, tokens):
    settings = transformers.GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    continued = copy.deepcopy(model).eval()
    continued.generation_config = settings
    text = continued.generate(tokens[:, :PROMPT], attention_mask=torch.ones(BATCH, PROMPT, dtype=torch.long))
    assert text.shape == (BATCH, PROMPT + NEW_TOKENS), text.shape
    return text[:, PROMPT:].to(torch.int32).contiguous()


def write_case(folder, case, seed):
    torch.manual_seed(seed)
    model, generator, saving, packed = make_model(case, seed)
    stream = torch.randint(0, VOCAB, (BATCH, LENGTH + 1), generator=generator)
    tokens, targets = stream[:, :-1].contiguous(), stream[:, 1:].contiguous()
    path = f"{folder}/{case}"
    os.makedirs(path + "/golden", exist_ok=True)
    save(model, path, saving, packed)
    os.remove(path + "/generation_config.json")
    logits, loss = cross_entropy(model, tokens, targets)
    loss.backward()
    trained = copy.deepcopy(model)
    losses = train(trained, tokens, targets)
    save_file(dict(tokens=tokens.to(torch.int32), targets=targets.to(torch.int32), logits=logits.detach().contiguous(),
                   cross_entropy=loss.detach().reshape(1), losses=losses, greedy=greedy_tokens(model, tokens)),
              path + "/golden/results.safetensors")
    save_numbers(trained, path + "/golden", "trained")
    save_gradients(model, path + "/golden")
    total = sum(parameter.numel() for parameter in model.parameters())
    print(f"{path}: {total} parameters, cross-entropy {loss.item():.6f}")


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    torch.set_num_threads(1)
    for case in CASES:
        if len(sys.argv) == 2 or case in sys.argv[2:]:
            write_case(sys.argv[1], case, SEEDS[case])


if __name__ == "__main__":
    main()
