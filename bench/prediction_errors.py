#!/usr/bin/env python3
"""Planned step times against measured ones on this machine, for configurations that nothing was fitted to.

    bench/prediction_errors.py --program build/release/switchyard --profile PROFILE [--seed N] [--count N]
                               [--repeats N] [--seconds S] [--output FOLDER/NAME]

Draws configurations from the seed: 1 and 2 ranks, dense and with experts, windows, sequences split over 2 ranks,
recomputation, fp32 and bf16. Each is trained `repeats` times for about S seconds of steps; a run foretells its own steps
with the load of its experts (record.json), and its medians are what is compared. Writes NAME.csv, NAME.md and, where
gnuplot is there, NAME.svg. The profile has to have settings of 1 rank and of 2 ranks on this host
(switchyard bench machine, alone and under mpirun -n 2). Run it while nothing else runs. Python's standard library alone.
"""
import argparse, csv, json, os, pathlib, random, shutil, statistics, subprocess, sys, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SMALL_PART = 0.05  # of a step: such parts are compared as shares of the step


def draw(rng):
    """One configuration: keys of a YAML file, and its ranks."""
    ranks = rng.choice([1, 2])
    hidden = rng.choice([128, 256, 512, 1024])
    length = rng.choice([128, 256, 512, 1024, 2048, 4096, 8192])
    head_dim = rng.choice([32, 64, 128])
    heads = max(2, hidden // head_dim)
    experts = rng.choice([0, 2, 4, 8, 16, 32, 64])
    sequences = max(1, min(16, 4096 // length))
    keys = {
        "run.precision": rng.choice(["fp32", "bf16"]),
        "model.hidden": hidden,
        "model.num_layers": rng.choice([1, 2, 4]),
        "model.num_heads": heads,
        "model.num_kv_heads": rng.choice([heads, heads // 2]),
        "model.head_dim": head_dim,
        "model.sequence_length": length,
        "model.dense_intermediate": 2 * hidden,
        "experts.num_experts": experts,
        "train.micro_batch": sequences,
        "activations.policy": rng.choice(["keep", "keep", "recompute"]),
    }
    if length >= 512 and rng.random() < 0.3:
        keys["model.attention"] = "[{kind: window, window: %d}]" % rng.choice([128, 256])
    if experts:
        keys["experts.top_k"] = rng.choice([1, 2]) if experts > 2 else 1
        keys["experts.intermediate"] = rng.choice([hidden // 2, hidden, 2 * hidden])
    data = ranks
    if ranks == 2:
        if length >= 512 and rng.random() < 0.35:
            keys["parallel.context"], data = 2, 1
        if experts:
            keys["parallel.expert"] = rng.choice([1, 2])
    keys["train.global_batch"] = sequences * data * rng.choice([1, 2])
    return ranks, keys


class Machine:
    def __init__(self, args, work):
        self.args, self.work = args, work
        self.corpus = work / "corpus.h5"
        text = work / "text.txt"
        rng = random.Random(7)
        words = ["".join(rng.choice("etaoinshrdlu") for _ in range(rng.randint(2, 9))) for _ in range(4000)]
        text.write_text(" ".join(words[min(int(rng.expovariate(1 / 400)), 3999)] for _ in range(400000)))
        self.call([args.program, "prepare", text, "--output", self.corpus])

    def call(self, command):
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
        return done.stdout

    def words(self, ranks, keys):
        base = {"data.path": self.corpus, "run.threads": max(1, os.cpu_count() // ranks),
                "plan.profile": self.args.profile, "checkpoint.resume": "never", "checkpoint.every": 0,
                "evaluate.every": 0, "parallel.expert": 1, "metrics.layers_every": 0}
        return [f"{key}={value}" for key, value in {**base, **keys}.items()]

    def planned_seconds(self, ranks, keys):
        out = self.call([self.args.program, "plan", ROOT / "configs/tiny.yaml", *self.words(ranks, keys), "--ranks",
                         ranks, "--threads", max(1, os.cpu_count() // ranks), "--json"])
        plan = json.loads(out)
        if "seconds" not in plan:
            raise RuntimeError("the profile does not price it")
        return plan["seconds"]["step_seconds"], plan["memory_bytes"]

    def measure(self, ranks, keys, steps, number):
        folder = self.work / f"run-{number}"
        words = self.words(ranks, {**keys, "train.num_steps": steps, "run.output": folder})
        program = [self.args.program] if ranks == 1 else [
            "mpirun", "--allow-run-as-root", "--bind-to", "none", "-n", ranks, self.args.program]
        self.call([*program, "train", ROOT / "configs/tiny.yaml", *words])
        predicted = json.loads((folder / "record.json").read_text())["predicted"]
        shutil.rmtree(folder)
        if "why_not" in predicted:
            raise RuntimeError(predicted["why_not"])
        return predicted


def part_errors(predicted, measured):
    """Of each part: its error, or, of a small one, the difference as a share of the step."""
    errors = {}
    for part in set(predicted["parts"]) | set(measured["parts"]):
        foretold, took = predicted["parts"].get(part, 0.0), measured["parts"].get(part, 0.0)
        step = measured["step_seconds"]
        errors[part] = (foretold - took) / (step if max(foretold, took) < SMALL_PART * step else max(took, SMALL_PART * step))
    return errors


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def points(args, machine):
    rng = random.Random(args.seed)
    found = tried = 0
    while found < args.count and tried < 20 * args.count:
        tried += 1
        ranks, keys = draw(rng)
        try:
            seconds, memory = machine.planned_seconds(ranks, keys)
        except RuntimeError as error:
            print(f"not drawn: {error}", file=sys.stderr)
            continue
        if seconds > args.seconds / 5 or memory * ranks > 6e9:
            continue
        steps = max(6, min(200, round(args.seconds / seconds)))
        runs = [machine.measure(ranks, keys, steps, f"{found}-{i}") for i in range(args.repeats)]
        took = [run["measured"]["step_seconds"] for run in runs]
        middle = sorted(runs, key=lambda run: run["measured"]["step_seconds"])[(len(runs) - 1) // 2]
        measured = middle["measured"]
        error = middle["step_seconds"] / measured["step_seconds"] - 1
        spread = (max(took) - min(took)) / statistics.median(took)
        found += 1
        print(f"{found:3} ranks {ranks} foretold {middle['step_seconds']:.4f} s, took {measured['step_seconds']:.4f} s "
              f"({100 * error:+.1f} %, repeats {100 * spread:.1f} %)", flush=True)
        yield {"ranks": ranks, **keys, "imbalance": middle["imbalance"], "predicted": middle["step_seconds"],
               "measured": measured["step_seconds"], "error": error, "spread": spread,
               **{f"{kind} {part}": seconds for kind, figures in (("predicted", middle), ("measured", measured))
                  for part, seconds in figures["parts"].items()},
               "parts": part_errors(middle, measured)}


def summary(rows):
    errors = [abs(row["error"]) for row in rows]
    lines = [f"{len(rows)} configurations. Mean error {100 * statistics.mean(errors):.1f} %, 90th percentile "
             f"{100 * percentile(errors, 0.9):.1f} %, bias {100 * statistics.mean(row['error'] for row in rows):+.1f} %; "
             f"mean spread of repeats {100 * statistics.mean(row['spread'] for row in rows):.1f} %.", "",
             "| part | mean error | 90th percentile | bias |", "|---|---|---|---|"]
    for part in sorted({part for row in rows for part in row["parts"]}):
        of_part = [row["parts"][part] for row in rows if part in row["parts"]]
        sizes = [abs(value) for value in of_part]
        lines.append(f"| {part} | {100 * statistics.mean(sizes):.1f} % | {100 * percentile(sizes, 0.9):.1f} % | "
                     f"{100 * statistics.mean(of_part):+.1f} % |")
    return lines


def write(rows, args):
    output = pathlib.Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    names = sorted({key for row in rows for key in row if key != "parts"},
                   key=lambda key: (" " in key, key in ("imbalance", "predicted", "measured", "error", "spread"),
                                    key != "ranks", key))
    with open(f"{output}.csv", "w", newline="") as file:
        table = csv.DictWriter(file, names, extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)
    lines = ["# Planned against measured step times", "",
             f"`bench/prediction_errors.py --seed {args.seed} --count {args.count} --repeats {args.repeats}`; the "
             f"configurations are in {output.name}.csv. Parts under 5 % of a step count as shares of the step.", ""]
    pathlib.Path(f"{output}.md").write_text("\n".join(lines + summary(rows)) + "\n")
    if shutil.which("gnuplot"):
        script = f"""set terminal svg size 640,560
set output '{output}.svg'
set logscale xy
set xlabel 'measured, s a step'
set ylabel 'foretold, s a step'
set key top left
set datafile separator ','
plot x title 'equal' lc rgb '#808080', 1.15*x title '15 %' dt 2 lc rgb '#808080', x/1.15 notitle dt 2 lc rgb '#808080', \\
  '{output}.csv' using 'measured':'predicted' notitle with points pt 7 ps 0.6
"""
        subprocess.run(["gnuplot"], input=script, text=True, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default=str(ROOT / "build/release/switchyard"))
    parser.add_argument("--profile", default="auto")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--output", default="prediction_errors")
    args = parser.parse_args()
    for name in ("program", "profile"):
        value = getattr(args, name)
        if value != "auto":
            setattr(args, name, str(pathlib.Path(value).resolve()))
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    with tempfile.TemporaryDirectory() as folder:
        rows = list(points(args, Machine(args, pathlib.Path(folder))))
    if not rows:
        sys.exit("no configuration could be run: see above")
    write(rows, args)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
