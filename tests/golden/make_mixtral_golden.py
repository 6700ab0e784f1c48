#!/usr/bin/env python3
"""Writes a golden HDF5 file: a small Mixtral with random weights, computed by Hugging Face's code.

The file holds the configuration (attributes), tokens, targets, logits, the mean cross-entropy and,
for every parameter under its Hugging Face name, the weight and the gradient of the cross-entropy.
tests/model/mixtral_golden_test.cpp reads every such file of a folder and compares.

Needs: python3 with torch, transformers (4.36 or later 4.x) and h5py. The tests themselves need none.

  ./make_mixtral_golden.py --output gqa.h5 --heads 4 --kv-heads 2 --seed 7 --top-k 2
"""
import argparse

import h5py
import torch
from transformers import MixtralConfig, MixtralForCausalLM


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the HDF5 file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--intermediate", type=int, default=48, help="width of one expert")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="sequences")
    parser.add_argument("--length", type=int, default=16, help="tokens of a sequence")
    parser.add_argument("--rope-base", type=float, default=10000.0)
    parser.add_argument("--epsilon", type=float, default=1e-6, help="of RMSNorm")
    parser.add_argument("--tie", action="store_true", help="the head shares the embedding's weight")
    parser.add_argument("--std", type=float, default=0.15, help="of the random weights")
    return parser.parse_args()


def make_model(args):
    config = MixtralConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        num_local_experts=args.experts,
        num_experts_per_tok=args.top_k,
        max_position_embeddings=max(args.length, 16),
        rope_theta=args.rope_base,
        rms_norm_eps=args.epsilon,
        tie_word_embeddings=args.tie,
        output_router_logits=False,
        sliding_window=None,
        attention_dropout=0.0,
        use_cache=False,
    )
    model = MixtralForCausalLM(config).float().train()
    generator = torch.Generator().manual_seed(args.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1.0 + 0.1 * noise if "norm" in name else args.std * noise)
    return model, generator


def main():
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model, generator = make_model(args)
    stream = torch.randint(0, args.vocab, (args.batch, args.length + 1), generator=generator)
    tokens, targets = stream[:, :-1], stream[:, 1:]

    logits = model(input_ids=tokens).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, args.vocab), targets.reshape(-1))
    loss.backward()

    with h5py.File(args.output, "w", libver="latest") as file:
        for key, value in dict(
            hidden=args.hidden, intermediate=args.intermediate, num_layers=args.layers, num_heads=args.heads,
            num_kv_heads=args.kv_heads, head_dim=args.hidden // args.heads, num_experts=args.experts,
            top_k=args.top_k, vocab_size=args.vocab, tie_embeddings=int(args.tie),
        ).items():
            file.attrs.create(key, value, dtype="i8")
        file.attrs.create("rope_base", args.rope_base, dtype="f8")
        file.attrs.create("norm_epsilon", args.epsilon, dtype="f8")
        file["tokens"] = tokens.numpy().astype("i4")
        file["targets"] = targets.numpy().astype("i4")
        file["logits"] = logits.detach().numpy()
        file["cross_entropy"] = loss.detach().double().reshape(1).numpy()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            file[f"weights/{name}"] = parameter.detach().numpy()
            file[f"gradients/{name}"] = gradient.numpy()
    total = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.output}: {total} parameters, cross-entropy {loss.item():.6f}")


if __name__ == "__main__":
    main()
