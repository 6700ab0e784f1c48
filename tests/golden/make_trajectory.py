#!/usr/bin/env python3
"""Writes an HDF5 file of a training run by PyTorch: a small Mixtral of Hugging Face's, 30 steps of torch.optim.AdamW
with clip_grad_norm_, weight decay on all but the norms, a warm-up (LinearLR) and a cosine (CosineAnnealingLR).

tests/end_to_end/trajectory_test.cpp reads it. The file holds the configuration (attributes), tokens and targets by
step, the loss, the norm of the gradient before clipping and the learning rate of every step, and all weights, under
their Hugging Face names, before the first step and after chosen ones (weights/STEP/NAME).

Needs: as make_mixtral_golden.py. tests/golden/trajectories/adamw.h5 is of transformers 4.57.1 with torch 2.5.1:

  ./make_trajectory.py --output trajectories/adamw.h5 --seed 5 --vocab 24 --hidden 16 --layers 3 --heads 2 --kv-heads 1
    --experts 3 --intermediate 8 --batch 12 --length 12 --clip-norm 0.7
"""
import h5py
import numpy
import torch
from torch.optim import lr_scheduler

from make_mixtral_golden import make_model, make_parser, named_weights, write_configuration

WEIGHTS_AFTER = (0, 1, 10, 20, 30)


def parse_arguments():
    parser = make_parser(__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--learning-rate", type=float, default=1e-2)
    parser.add_argument("--min-learning-rate", type=float, default=1e-3)
    parser.add_argument("--warmup-steps", type=int, default=5)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--beta1", type=float, default=0.9)
    parser.add_argument("--beta2", type=float, default=0.95)
    parser.add_argument("--adam-epsilon", type=float, default=1e-8)
    parser.add_argument("--clip-norm", type=float, default=1.0)
    return parser.parse_args()


def make_optimizer(args, model):
    norms = [p for name, p in model.named_parameters() if "norm" in name]
    others = [p for name, p in model.named_parameters() if "norm" not in name]
    groups = [{"params": others, "weight_decay": args.weight_decay}, {"params": norms, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=(args.beta1, args.beta2), eps=args.adam_epsilon)


def make_schedule(args, optimizer):
    """Step s of the warm-up has the rate peak * s / warmup; the cosine reaches its end after the last step."""
    w = args.warmup_steps
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / w, end_factor=1.0, total_iters=w - 1)
    cosine = lr_scheduler.CosineAnnealingLR(optimizer, T_max=args.steps + 1 - w, eta_min=args.min_learning_rate)
    return lr_scheduler.SequentialLR(optimizer, [warmup, cosine], milestones=[w - 1])


def keep_weights(file, step, model):
    for name, weight, _ in named_weights(model):
        file[f"weights/{step}/{name}"] = weight.detach().numpy()


def main():
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    model, generator = make_model(args)
    optimizer = make_optimizer(args, model)
    schedule = make_schedule(args, optimizer)
    # Small ids are more frequent, so that there is something to learn.
    shape = (args.steps, args.batch, args.length + 1)
    stream = torch.randint(0, args.vocab, shape, generator=generator) ** 2 // args.vocab
    figures = {"losses": [], "gradient_norms": [], "learning_rates": []}

    with h5py.File(args.output, "w", libver="latest") as file:
        write_configuration(file, args)
        file.attrs.create("warmup_steps", args.warmup_steps, dtype="i8")
        for key in ("learning_rate", "min_learning_rate", "weight_decay", "beta1", "beta2", "adam_epsilon", "clip_norm"):
            file.attrs.create(key, getattr(args, key), dtype="f8")
        keep_weights(file, 0, model)
        # An expert without tokens in a step has a gradient of zero and goes on by its momentum and its decay. Without a
        # gradient (None) torch would pass it over, and count fewer steps for it.
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for step in range(1, args.steps + 1):
            tokens, targets = stream[step - 1, :, :-1], stream[step - 1, :, 1:]
            logits = model(input_ids=tokens).logits.float()
            loss = torch.nn.functional.cross_entropy(logits.reshape(-1, args.vocab), targets.reshape(-1))
            optimizer.zero_grad(set_to_none=False)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip_norm)
            for key, value in zip(figures, (loss.item(), norm.item(), optimizer.param_groups[0]["lr"])):
                figures[key].append(value)
            optimizer.step()
            schedule.step()
            if step in WEIGHTS_AFTER:
                keep_weights(file, step, model)
        file["tokens"] = stream[:, :, :-1].numpy().astype("i4")
        file["targets"] = stream[:, :, 1:].numpy().astype("i4")
        for key, values in figures.items():
            file[key] = numpy.array(values, dtype="f8")
    clipped = sum(norm > args.clip_norm for norm in figures["gradient_norms"])
    print(f"{args.output}: loss {figures['losses'][0]:.4f} to {figures['losses'][-1]:.4f}, {clipped} steps clipped")


if __name__ == "__main__":
    main()
