#!/usr/bin/env python3
"""Writes a golden HDF5 file: a small Mixtral with random weights, computed by Hugging Face's code.

The file holds the configuration (attributes), tokens, targets, logits, the mean cross-entropy and,
for every parameter under its Hugging Face name, the weight and the gradient of the cross-entropy.
tests/model/mixtral_golden_test.cpp reads every such file of a folder and compares.

Needs: python3 with torch, transformers (4.36 or later; 4.48 or later for --window and
--rope-scaling; tried: 4.48.3, 4.57.1, 5.2.0) and h5py. The tests themselves need none.

  ./make_mixtral_golden.py --output gqa.h5 --heads 4 --kv-heads 2 --seed 7 --top-k 2

linear.h5, ntk_window.h5 and yarn.h5 are of transformers 4.48.3 with torch 1.13, small="--hidden 32 --heads 2 --kv-heads 1
--layers 2 --experts 3 --intermediate 16 --vocab 32 --batch 1":

  --output linear.h5 $small --seed 11 --length 96 --rope-base 1000 --rope-scaling linear --rope-factor 4
  --output ntk_window.h5 $small --seed 12 --length 96 --rope-base 100 --rope-scaling ntk --rope-factor 3
    --rope-length 32 --window 20
  --output yarn.h5 $small --seed 13 --length 160 --rope-base 100 --rope-scaling yarn --rope-factor 4
    --rope-length 64 --beta-fast 4

length_one.h5, window_one.h5, large_weights.h5 and wide_head.h5 are of transformers 4.57.1 with torch 2.5.1, and so are
the numbers that 5.2.0 gives; small as above:

  --output length_one.h5 $small --seed 21 --length 1
  --output window_one.h5 $small --seed 22 --length 12 --window 1
  --output large_weights.h5 $small --seed 23 --length 24 --std 0.5
  --output wide_head.h5 $small --seed 24 --length 24 --layers 1 --head-dim 256
"""
import argparse

import h5py
import torch
from transformers import MixtralConfig, MixtralForCausalLM


def make_parser(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="the HDF5 file to write")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--head-dim", type=int, default=0, help="0: hidden / heads")
    parser.add_argument("--intermediate", type=int, default=48, help="width of one expert")
    parser.add_argument("--experts", type=int, default=4)
    parser.add_argument("--top-k", type=int, default=2)
    parser.add_argument("--batch", type=int, default=2, help="sequences")
    parser.add_argument("--length", type=int, default=16, help="tokens of a sequence")
    parser.add_argument("--rope-base", type=float, default=10000.0)
    parser.add_argument("--rope-scaling", choices=["none", "linear", "ntk", "yarn"], default="none")
    parser.add_argument("--rope-factor", type=float, default=1.0, help="how many times longer")
    parser.add_argument("--rope-length", type=int, default=0, help="positions before scaling (ntk, yarn)")
    parser.add_argument("--beta-fast", type=float, default=32.0, help="yarn: turns over --rope-length")
    parser.add_argument("--beta-slow", type=float, default=1.0, help="likewise")
    parser.add_argument("--window", type=int, default=0, help="keys that a query sees, itself among them; 0: all")
    parser.add_argument("--epsilon", type=float, default=1e-6, help="of RMSNorm")
    parser.add_argument("--tie", action="store_true", help="the head shares the embedding's weight")
    parser.add_argument("--std", type=float, default=0.15, help="of the random weights")
    return parser


def rope_scaling(args):
    """The scaling in the terms of transformers.modeling_rope_utils, or None."""
    if args.rope_scaling == "none":
        return None
    if args.rope_scaling == "linear":
        return {"rope_type": "linear", "factor": args.rope_factor}
    if args.rope_scaling == "yarn":
        return {"rope_type": "yarn", "factor": args.rope_factor, "beta_fast": args.beta_fast,
                "beta_slow": args.beta_slow}
    # "dynamic" makes the base of a sequence of L tokens base * (f L / M - (f - 1))^(D / (D - 2)), M being
    # max_position_embeddings < L. This f makes the bracket --rope-factor.
    stretch = args.length / args.rope_length
    return {"rope_type": "dynamic", "factor": (args.rope_factor - 1) / (stretch - 1)}


def write_configuration(file, args):
    """The attributes that tests/model/mixtral_golden.hpp reads."""
    for key, value in dict(
        hidden=args.hidden, intermediate=args.intermediate, num_layers=args.layers, num_heads=args.heads,
        num_kv_heads=args.kv_heads, head_dim=args.head_dim or args.hidden // args.heads, num_experts=args.experts,
        top_k=args.top_k, vocab_size=args.vocab, tie_embeddings=int(args.tie),
    ).items():
        file.attrs.create(key, value, dtype="i8")
    file.attrs.create("rope_base", args.rope_base, dtype="f8")
    file.attrs.create("norm_epsilon", args.epsilon, dtype="f8")
    if args.rope_scaling != "none":
        file.attrs.create("rope_scaling", args.rope_scaling, dtype=h5py.string_dtype("ascii", 8))
        file.attrs.create("rope_factor", args.rope_factor, dtype="f8")
        file.attrs.create("rope_length", args.rope_length, dtype="i8")
        file.attrs.create("beta_fast", args.beta_fast, dtype="f8")
        file.attrs.create("beta_slow", args.beta_slow, dtype="f8")
    if args.window:
        file.attrs.create("window", args.window, dtype="i8")


def make_model(args):
    config = MixtralConfig(
        vocab_size=args.vocab,
        hidden_size=args.hidden,
        intermediate_size=args.intermediate,
        num_hidden_layers=args.layers,
        num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads,
        head_dim=args.head_dim or args.hidden // args.heads,
        num_local_experts=args.experts,
        num_experts_per_tok=args.top_k,
        max_position_embeddings=args.rope_length or max(args.length, 16),
        rope_theta=args.rope_base,
        rms_norm_eps=args.epsilon,
        tie_word_embeddings=args.tie,
        output_router_logits=False,
        sliding_window=args.window or None,
        rope_scaling=rope_scaling(args),
        attn_implementation="eager",
        attention_dropout=0.0,
        use_cache=False,
    )
    model = MixtralForCausalLM(config).float().train()
    generator = torch.Generator().manual_seed(args.seed)
    with torch.no_grad():
        for name, weight, _ in named_weights(model):
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1.0 + 0.1 * noise if "norm" in name else args.std * noise)
    return model, generator


def named_weights(model):
    """Name, weight and gradient of every parameter as transformers 4 names them: later ones keep the experts of a
    layer in two tensors, gate_up_proj (gate rows first) and down_proj."""
    tensors = dict(model.named_parameters())
    for name, whole in tensors.items():
        gradient = torch.zeros_like(whole) if whole.grad is None else whole.grad
        layer = name.split(".mlp.")[0] + ".block_sparse_moe."
        if name.endswith(".experts.gate_up_proj"):
            down_name = name.replace("gate_up_proj", "down_proj")
            down = tensors[down_name]
            d_down = torch.zeros_like(down) if down.grad is None else down.grad
            width = whole.shape[1] // 2
            for e in range(whole.shape[0]):
                yield f"{layer}experts.{e}.w1.weight", whole[e, :width], gradient[e, :width]
                yield f"{layer}experts.{e}.w2.weight", down[e], d_down[e]
                yield f"{layer}experts.{e}.w3.weight", whole[e, width:], gradient[e, width:]
        elif not name.endswith(".experts.down_proj"):
            yield name.replace(".mlp.gate.", ".block_sparse_moe.gate."), whole, gradient


def main():
    args = make_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model, generator = make_model(args)
    stream = torch.randint(0, args.vocab, (args.batch, args.length + 1), generator=generator)
    tokens, targets = stream[:, :-1], stream[:, 1:]

    logits = model(input_ids=tokens).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, args.vocab), targets.reshape(-1))
    loss.backward()

    with h5py.File(args.output, "w", libver="latest") as file:
        write_configuration(file, args)
        file["tokens"] = tokens.numpy().astype("i4")
        file["targets"] = targets.numpy().astype("i4")
        file["logits"] = logits.detach().numpy()
        file["cross_entropy"] = loss.detach().double().reshape(1).numpy()
        for name, weight, gradient in named_weights(model):
            file[f"weights/{name}"] = weight.detach().numpy()
            file[f"gradients/{name}"] = gradient.numpy()
    total = sum(parameter.numel() for parameter in model.parameters())
    print(f"{args.output}: {total} parameters, cross-entropy {loss.item():.6f}")


if __name__ == "__main__":
    main()
