"""Which public forms of causal mixers leak the future: each in a few lines of double precision, as published. Eight futures
follow the same first half, and positions of this are counted whose output is not the same in all.

    leaks.py        prints a table: mixer, positions that moved, of how many, the largest change
"""
import math
import random

LENGTH, WIDTH, BORDER = 64, 8, 32


def dot(a, b):
    return sum(x * y for x, y in zip(a, b))


def mean(weights, rows):
    total = sum(weights)
    return [sum(w * row[c] for w, row in zip(weights, rows)) / total for c in range(len(rows[0]))]


def attend(query, keys, values):
    """Softmax attention of one query."""
    scores = [dot(query, key) / math.sqrt(WIDTH) for key in keys]
    largest = max(scores)
    return mean([math.exp(score - largest) for score in scores], values)


def causal_attention(x):
    """What all others are measured against: nothing moves."""
    return [attend(x[t], x[:t + 1], x[:t + 1]) for t in range(len(x))]


def linformer(x, rank=8):
    """Wang et al. 2020: keys and values mixed over all positions, then no mask can help."""
    draw = random.Random(1)
    mix = [[draw.gauss(0, 1 / math.sqrt(rank)) for _ in x] for _ in range(rank)]
    mixed = [[sum(w * row[c] for w, row in zip(weights, x)) for c in range(WIDTH)] for weights in mix]
    return [attend(query, mixed, mixed) for query in x]


def big_bird_decoder(x, block=8):
    """Zaheer et al. 2020 with global rows: the first block sees everything, and everything sees it (a second layer)."""
    def layer(rows):
        out = []
        for t, query in enumerate(rows):
            own = t // block
            seen = range(len(rows)) if own == 0 else [
                j for j in range(len(rows)) if j // block in (0, own - 1, own) and (j <= t or j // block == 0)]
            out.append(attend(query, [rows[j] for j in seen], [rows[j] for j in seen]))
        return out
    return layer(layer(x))


def reformer(x, buckets=4, chunk=8):
    """Kitaev et al. 2020: rows sorted by hash, attention within chunks of the sorted order and the chunk before. The mask is
    causal; where chunks begin is not: it depends on how many later tokens fall into earlier buckets."""
    draw = random.Random(2)
    rotation = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(buckets // 2)]
    def bucket(row):
        turned = [dot(row, r) for r in rotation]
        turned += [-value for value in turned]
        return turned.index(max(turned))
    order = sorted(range(len(x)), key=lambda t: (bucket(x[t]), t))
    place = {t: i for i, t in enumerate(order)}
    out = []
    for t, query in enumerate(x):
        first = max(0, (place[t] // chunk - 1) * chunk)
        seen = [j for j in order[first:(place[t] // chunk + 1) * chunk] if j <= t]
        out.append(attend(query, [x[j] for j in seen], [x[j] for j in seen]))
    return out


def own_bucket(x, buckets=4, window=8):
    """The causal form: the last tokens before of the own bucket, whatever follows."""
    draw = random.Random(2)
    rotation = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(buckets // 2)]
    def bucket(row):
        turned = [dot(row, r) for r in rotation]
        turned += [-value for value in turned]
        return turned.index(max(turned))
    hashes = [bucket(row) for row in x]
    out = []
    for t, query in enumerate(x):
        seen = [j for j in range(t + 1) if hashes[j] == hashes[t]][-window:]
        out.append(attend(query, [x[j] for j in seen], [x[j] for j in seen]))
    return out


def performer(x, epsilon, num_features=32):
    """Choromanski et al. 2020: the largest key exponent of all positions is taken off, then epsilon is added."""
    draw = random.Random(3)
    directions = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(num_features)]
    scaled = [[value / WIDTH ** 0.25 for value in row] for row in x]
    exponents = [[dot(w, row) - dot(row, row) / 2 for w in directions] for row in scaled]
    largest = max(max(row) for row in exponents)
    keys = [[math.exp(value - largest) + epsilon for value in row] for row in exponents]
    queries = [[math.exp(value - max(row)) + epsilon for value in row] for row in exponents]
    return [mean([dot(queries[t], keys[j]) for j in range(t + 1)], x[:t + 1]) for t in range(len(x))]


def expert_choice(x, experts=4, capacity=8):
    """Zhou et al. 2022: each expert takes its best tokens of the whole sequence."""
    draw = random.Random(4)
    routers = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(experts)]
    out = [[0.0] * WIDTH for _ in x]
    for number, router in enumerate(routers):
        best = sorted(range(len(x)), key=lambda t: (-dot(router, x[t]), t))[:capacity]
        for t in best:
            out[t] = [a + (number + 1) * b for a, b in zip(out[t], x[t])]
    return out


MIXERS = {
    "attention with a causal mask": causal_attention,
    "Linformer over positions": linformer,
    "BigBird with global rows": big_bird_decoder,
    "Reformer, chunks of sorted rows": reformer,
    "LSH, own bucket, last of it": own_bucket,
    "Performer, largest key of all, epsilon 1e-4": lambda x: performer(x, 1e-4),
    "Performer, largest key of all, no epsilon": lambda x: performer(x, 0.0),
    "experts that choose tokens": expert_choice,
}


def moved(mixer, futures=8):
    """Positions before the border that move by more than rounding in any of some futures, and by how much at most."""
    draw = random.Random(0)
    past = [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(BORDER)]
    outputs = [mixer(past + [[draw.gauss(0, 1) for _ in range(WIDTH)] for _ in range(LENGTH - BORDER)])[:BORDER]
               for _ in range(futures)]
    changes = [max(abs(a - b) for other in outputs for a, b in zip(other[t], outputs[0][t])) for t in range(BORDER)]
    return sum(change > 1e-9 for change in changes), max(changes)


def table():
    return [(name, *moved(mixer)) for name, mixer in MIXERS.items()]


if __name__ == "__main__":
    for name, count, largest in table():
        print(f"{name}\t{count}\t{BORDER}\t{largest:.2g}")
