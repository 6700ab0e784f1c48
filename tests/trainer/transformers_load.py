#!/usr/bin/env python3
"""Loads exported models with Hugging Face's code and compares them with the golden models that they came from.

  transformers_load.py EXPORTED_FOLDER GOLDEN_FOLDER
"""
import json
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


def load(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True)
    left = {key: info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if info.get(key)}
    assert not left, f"{folder}: {left}"
    return model


def is_packed(folder):
    """Weights that transformers reads with further packages, and as bf16."""
    with open(folder + "/config.json", encoding="utf-8") as file:
        return "quantization_config" in json.load(file)


def main():
    torch.set_num_threads(1)
    for name in sorted(os.listdir(sys.argv[2])):
        exported = load(f"{sys.argv[1]}/{name}")
        actual = exported.state_dict()
        if not is_packed(f"{sys.argv[2]}/{name}"):
            expected = load(f"{sys.argv[2]}/{name}").state_dict()
            assert expected.keys() == actual.keys(), name
            for key, tensor in expected.items():
                assert torch.equal(tensor, actual[key]), f"{name}: {key}"
        results = load_file(f"{sys.argv[2]}/{name}/golden/results.safetensors")
        logits = exported(input_ids=results["tokens"].long(), use_cache=False).logits
        error = (logits - results["logits"]).norm() / results["logits"].norm()
        assert error < 1e-5, f"{name}: logits differ by {error}"
        print(f"{name}: {len(actual)} tensors equal, logits within {error:.1e}")


if __name__ == "__main__":
    main()
