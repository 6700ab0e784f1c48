"""What docs/checkpoints.md says of the tensors, written as a model in numpy: its loss must be the program's, and the
tokens that `switchyard generate --temperature 0` chose must be its largest logits.

  checkpoint_forward.py CHECKPOINT TOKEN_FILE LOSS NUM_TOKENS IDS

LOSS and NUM_TOKENS: what `switchyard eval` printed, with global_batch 1; IDS: a file of token ids, the prompt's first and
PROMPT of them. The sizes are those of checkpoint_page_test.sh.
"""
import sys

import h5py
import numpy as np

HEADS, KV_HEADS, DIM, LENGTH, ROPE_BASE, EPSILON, TOP_K = 4, 2, 8, 32, 500.0, 1e-6, 2
WINDOWS = [20, 7, 20]  # by layer
PROMPT = 6


def rms_norm(x, gain):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * gain


def silu(x):
    return x / (1 + np.exp(-x))


def log_sum_exp(x):
    largest = x.max(-1, keepdims=True)
    return largest + np.log(np.exp(x - largest).sum(-1, keepdims=True))


def rotate(x):  # [tokens, heads, DIM]
    angle = np.arange(len(x))[:, None] * ROPE_BASE ** (-2 * np.arange(DIM // 2) / DIM)
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    a, b = x[..., : DIM // 2], x[..., DIM // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(x, w, layer):
    n = len(x)
    rows = x @ w[f"layers.{layer}.attention.qkv.weight"].T
    parts = rows.reshape(n, HEADS + 2 * KV_HEADS, DIM)
    q, k, v = np.split(parts, [HEADS, HEADS + KV_HEADS], axis=1)
    q, k = rotate(q), rotate(k)
    distance = np.arange(n)[:, None] - np.arange(n)
    hidden = (distance < 0) | (distance >= WINDOWS[layer])
    sinks = w.get(f"layers.{layer}.attention.sinks", np.zeros((HEADS, 0)))
    heads = []
    for head in range(HEADS):
        kv = head // (HEADS // KV_HEADS)
        scores = np.where(hidden, -np.inf, q[:, head] @ k[:, kv].T / np.sqrt(DIM))
        scores = np.concatenate([scores, np.tile(sinks[head], (n, 1))], 1)
        probs = np.exp(scores - log_sum_exp(scores))
        heads.append(probs[:, :n] @ v[:, kv])
    return np.concatenate(heads, 1) @ w[f"layers.{layer}.attention.output.weight"].T


def network(x, gate_up, down):
    gate, up = np.split(x @ gate_up.T, 2, axis=-1)
    return silu(gate) * up @ down.T


def feed_forward(x, w, layer):
    name = f"layers.{layer}."
    if name + "router.weight" not in w:
        return network(x, w[name + "feed_forward.gate_up.weight"], w[name + "feed_forward.down.weight"])
    logits = x @ w[name + "router.weight"].T
    probs = np.exp(logits - log_sum_exp(logits))
    y = np.zeros_like(x)
    for t, row in enumerate(probs):
        chosen = np.argsort(-row, kind="stable")[:TOP_K]
        for e in chosen:
            y[t] += row[e] / row[chosen].sum() * network(
                x[t], w[name + "experts.gate_up.weight"][e], w[name + "experts.down.weight"][e])
    return y


def logits_of(tokens, w):
    x = w["embedding.weight"][tokens]
    for layer in range(len(WINDOWS)):
        x = x + attention(rms_norm(x, w[f"layers.{layer}.attention_norm.weight"]), w, layer)
        x = x + feed_forward(rms_norm(x, w[f"layers.{layer}.feed_forward_norm.weight"]), w, layer)
    return rms_norm(x, w["final_norm.weight"]) @ w["head.weight"].T


def loss_of(stream, num_tokens, w):
    losses = []
    for begin in range(0, num_tokens, LENGTH):
        logits = logits_of(stream[begin : begin + LENGTH], w)
        targets = stream[begin + 1 : begin + 1 + LENGTH]
        losses.append(log_sum_exp(logits)[:, 0] - logits[np.arange(LENGTH), targets])
    return np.mean(losses)


def reordered(w, name, first, last):
    """The weights with two blocks of rows of one tensor exchanged, as someone who guesses would read them."""
    tensor = w[name].copy()
    tensor[..., first, :], tensor[..., last, :] = w[name][..., last, :], w[name][..., first, :]
    return {**w, name: tensor}


def main():
    checkpoint, token_file, loss, num_tokens, ids = sys.argv[1:]
    with h5py.File(checkpoint + "/checkpoint.h5") as f:
        w = {name: f["parameters/" + name][:].astype(np.float64) for name in f["parameters"]}
    with h5py.File(token_file) as f:
        stream = f["valid/tokens"][:].astype(np.int64)

    def off(weights):
        return abs(loss_of(stream, int(num_tokens), weights) / float(loss) - 1)

    assert off(w) < 1e-6, f"the loss differs by {off(w)} from {loss}"
    k, v = slice(32, 48), slice(48, 64)
    for name, first, last in [("layers.0.attention.qkv.weight", k, v),
                              ("layers.0.feed_forward.gate_up.weight", slice(0, 40), slice(40, 80)),
                              ("layers.1.experts.gate_up.weight", slice(0, 24), slice(24, 48))]:
        assert off(reordered(w, name, first, last)) > 1e-5, f"the order of the rows of {name} does not matter"

    tokens = np.loadtxt(ids, dtype=np.int64)
    assert len(tokens) > 2 * LENGTH, f"only {len(tokens)} tokens were generated"
    logits = logits_of(tokens[:-1], w)[PROMPT - 1 :]
    chosen = logits[np.arange(len(logits)), tokens[PROMPT:]]
    assert (chosen > logits.max(-1) - 1e-4).all(), f"not the largest logits: {chosen - logits.max(-1)}"
    print(f"loss {loss}, {len(tokens)} tokens: as in numpy")


main()
