"""The report of the study of limits: report.md, points.csv and figures, from what limits.sh has measured.

    report.py STUDIES_FOLDER OUTPUT_FOLDER
"""
import csv
import math
import os
import platform
import statistics
import sys

import figures
import leaks
from measured import Points, grouped, kind_of, number, part_seconds, percent, rows_of, spread

# Recall by state of Zoology's figure, as plotted (Arora et al. 2023 and the authors' later figure): bytes, accuracy.
ZOOLOGY = {"gated DeltaNet": [(6.6e4, 0.99)], "Mamba-2": [(6.6e4, 0.83)],
           "window": [(6.6e4, 0.51), (1.3e5, 0.65), (2.6e5, 0.80)]}
TEXT_VOCABULARY = 512  # as limits.sh trains its tokenizer
LINEAR_KINDS = ("linear", "retention", "lightning", "ssd", "delta", "gated_delta", "infini")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]) + "\n"


def slope(points):
    """Of log seconds over log length in the last two octaves."""
    last, b = points[-1]
    first, a = next(((x, y) for x, y in points if 4 * x >= last and x < last), points[0])
    return math.log(b / a) / math.log(last / first) if last > first else math.nan


class Report:
    def __init__(self, studies, output):
        self.output = output
        self.points = {name: Points(studies, name) for name in ("cost", "recall", "compute", "needle", "positions")}
        self.layouts = rows_of(f"{studies}/layouts.csv")
        self.sections, self.verdicts = [], []

    def section(self, title, *texts):
        self.sections.append(f"## {title}\n\n" + "\n".join(texts))

    def verdict(self, claim, verdict, evidence):
        self.verdicts.append((claim, verdict, evidence))

    def figure(self, name, caption, settings, series, style="linespoints"):
        drawn = figures.draw(f"{self.output}/{name}.png", settings, series, style)
        return f"\n![{caption}]({name}.png)\n" if drawn else f"\n*{caption}: no points.*\n"

    # ---- E1 -----------------------------------------------------------------------------------------
    def cost(self):
        rows = self.points["cost"].rows
        if not rows:
            return
        seconds, slopes, lines, memory, decode = {}, {}, [], {}, {}
        lengths = sorted({row["length"] for row in rows})
        for (kind,), group in grouped(rows, "kind").items():
            group = sorted(group, key=lambda row: row["length"])
            seconds[kind] = [(row["length"], part_seconds(row, "attention")) for row in group]
            memory[kind] = [(row["length"], number(row["memory_bytes"])) for row in group]
            decode[kind] = [(row["length"], row["state"]) for row in group]
            slopes[kind] = slope(seconds[kind])
            exact = all(row["memory_bytes"] == row["planned_memory_bytes"] for row in group)
            known = dict(seconds[kind])
            lines.append([kind, *(f"{known[length]:.3g}" if length in known else "–" for length in lengths),
                          f"{slopes[kind]:.2f}", f"{slope(memory[kind]):.2f}", "yes" if exact else "no"])
        crossings = []
        full_seconds = dict(seconds["full"])
        for kind in seconds:
            faster = [length for length, value in seconds[kind] if value < full_seconds.get(length, 0)]
            if kind != "full" and faster:
                crossings.append(f"{kind} {faster[0]:,}")
        self.section(
            "E1: seconds and bytes by length",
            "One layer, 4 heads of 64, fp32, one sequence, forward and backward with its projections, median of 3 steps, in "
            "seconds. Slopes are those of the logarithms over the last two octaves.\n",
            table(["kind", *(f"{length:,}" for length in lengths), "slope", "slope of memory", "memory as planned"], lines),
            f"First of these lengths at which a kind takes less time than full attention: {', '.join(crossings) or 'none'}.\n",
            self.figure("F1", "seconds by length",
                        'set logscale xy 2\nset xlabel "tokens"\nset ylabel "seconds of the layer, forward and backward"',
                        [(f"{kind} ({slopes[kind]:.2f})", values) for kind, values in seconds.items()]),
            self.figure("F2", "bytes by length",
                        'set logscale xy 2\nset xlabel "tokens"\nset ylabel "bytes: of a training step (all), and of '
                        'generation (dec)"',
                        [(f"{kind} all", memory[kind]) for kind in ("full", "ssd") if kind in memory] +
                        [(f"{kind} dec", decode[kind]) for kind in decode]))
        full = slopes["full"]
        grows = slope(memory["full"])
        self.verdict("A, B: full attention's time grows with the square of the length",
                     "holds" if abs(full - 2) <= 0.15 else "holds in the limit",
                     f"slope {full:.2f} up to {lengths[-1]:,} tokens, with projections")
        self.verdict("A: full attention needs O(L²) memory", "does not" if grows < 1.2 else "holds",
                     f"allocated bytes grow with slope {grows:.2f}: scores are never stored")
        linear = [kind for kind in slopes if kind.split()[0] in LINEAR_KINDS]
        self.verdict("A, B: linear attention and states of fixed size make time linear",
                     "holds" if all(abs(slopes[kind] - 1) <= 0.15 for kind in linear) else "holds with a condition",
                     ", ".join(f"{kind} {slopes[kind]:.2f}" for kind in linear))
        sparse = {kind: 1.5 if kind == "strided" else 1.0 for kind in slopes
                  if kind.split()[0] in ("window", "segment", "bigbird", "hierarchical", "strided")}
        if sparse:
            near = all(abs(slopes[kind] - wanted) <= 0.15 for kind, wanted in sparse.items())
            slower = all(slopes[kind] < slopes["full"] - 0.2 for kind in sparse)
            self.verdict("A, B: sparse patterns make time linear, strides of the root of the length a power of 1.5",
                         "holds" if near else "holds with a condition" if slower else "does not",
                         ", ".join(f"{kind} {slopes[kind]:.2f}" for kind in sparse))

    # ---- E2 -----------------------------------------------------------------------------------------
    def recall(self):
        rows = self.points["recall"].rows
        if not rows:
            return
        def pairs_of(row):
            return int(row["config.data.path"].rsplit("-", 1)[1].split(".")[0])
        for row in rows:
            row["pairs"] = pairs_of(row)
        lines, by_pairs, by_state = [], {}, {}
        for (kind, hidden, pairs), group in grouped(rows, "kind", "hidden", "pairs").items():
            accuracies = [row["accuracy"] for row in group]
            lines.append([kind, pairs, group[0]["length"], hidden, f"{group[0]['state']:,}",
                          group[0]["config.train.num_steps"], percent(accuracies)])
            if hidden == 64:
                by_pairs.setdefault(kind, []).append((pairs, *spread(accuracies)))
            if pairs == 16:
                by_state.setdefault(kind.split()[0], []).append((group[0]["state"], *spread(accuracies)))
        most = {kind: values[-1][1] for kind, values in by_pairs.items()}
        self.section(
            "E2: recall and the size of the state",
            "Multi-query associative recall, 256 symbols, 2 layers without feed-forward, convolution 4 everywhere, one learning "
            "rate (0.003). Accuracy in percent, median (range) over seeds; state: fp32 bytes of both layers in generation. "
            "Chance is 0.8 %.\n",
            table(["kind", "pairs", "tokens", "hidden", "state", "steps", "accuracy"], lines),
            self.figure("F3", "recall by bytes of state, 16 pairs",
                        'set logscale x 2\nset yrange [0:1.02]\nset xlabel "bytes of state"\nset ylabel "accuracy"',
                        [(kind, sorted(values)) for kind, values in by_state.items()] +
                        [(f"{kind} (Zoology) hollow", values) for kind, values in ZOOLOGY.items()]),
            self.figure("F4", "recall by pairs",
                        'set logscale x 2\nset yrange [0:1.02]\nset xlabel "pairs"\nset ylabel "accuracy"',
                        [(kind, sorted(values)) for kind, values in by_pairs.items()]))
        states = [kind for kind in most if kind.split()[0] in LINEAR_KINDS]
        worst = min(states, key=lambda kind: most[kind])
        told = ", ".join(f"{kind} {100 * value:.0f} %" for kind, value in most.items())
        claims = [("A: a state of fixed size cannot hold arbitrarily many facts, attention can",
                   "holds with a condition", "does not"),
                  ("B: linear attention comes without a loss of fidelity", "does not", "holds at this size")]
        learnt = most.get("full", 0) >= 0.99
        for claim, if_less, otherwise in claims:
            verdict = (if_less if most[worst] < 0.9 else otherwise) if learnt else "cannot be said at this size"
            self.verdict(claim, verdict, f"16 pairs: {told}")
        if learnt:
            self.order_of_states(most)
            self.window_reach(rows)

    def order_of_states(self, most):
        """Zoology's order, at states of some ten kilobytes."""
        families = {"delta rule": ("delta", "gated_delta"), "Taylor features": ("linear taylor",), "SSD": ("ssd",),
                    "window": ("window 16",)}
        best = {name: max((most[kind] for kind in kinds if kind in most), default=math.nan)
                for name, kinds in families.items()}
        values = list(best.values())
        if any(map(math.isnan, values)):
            return
        self.verdict("With states of fixed size the delta rule recalls most, then Taylor features, SSD, windows (Arora et al. 2024)",
                     "holds" if all(a > b - 0.02 for a, b in zip(values, values[1:])) and values[0] > values[-1] + 0.1 else
                     "holds with a condition" if values[0] == max(values) else "does not",
                     ", ".join(f"{name} {100 * value:.0f} %" for name, value in best.items()))

    def window_reach(self, rows):
        """A window recalls no more than what lies within its reach."""
        for (kind, pairs, length), group in grouped(
                [row for row in rows if row["kind"].startswith("window") and row["hidden"] == 64],
                "kind", "pairs", "length").items():
            # What two layers see back: a window and a convolution each.
            reach = 2 * (int(kind.split()[1]) - 1 + 3)
            places = (length - 1 - 2 * pairs) // 2
            within = statistics.mean(2 * pairs + 2 * place - (2 * pair + 1) <= reach
                                     for pair in range(pairs) for place in range(places))
            accuracy, _, _ = spread([row["accuracy"] for row in group])
            self.verdict(f"A window recalls what is within reach ({kind}, {pairs} pairs)",
                         "holds" if accuracy <= within + 0.02 else "does not",
                         f"{100 * accuracy:.1f} % recalled, {100 * within:.1f} % of the queries within {reach} tokens")

    # ---- E3 -----------------------------------------------------------------------------------------
    def compute(self):
        points = self.points["compute"]
        if not points.rows:
            return
        def asked(name, questions):
            lines, medians = [], {}
            for (kind, position), group in grouped(points.of_set(name), "kind", "position").items():
                values = [[number(answer["accuracy"]) for row in group for answer in points.answers(row, question)]
                          for question in questions]
                lines.append([kind, position, percent([row["accuracy"] for row in group]), *map(percent, values)])
                medians[kind, position] = [spread([row["accuracy"] for row in group])[0], *(spread(v)[0] for v in values)]
            return lines, medians
        copied, copies = asked("copy", ("50", "100", "200"))
        parity, parities = asked("parity", ("12", "24", "48"))
        nested = [[kind, percent([row["accuracy"] for row in group])]
                  for (kind,), group in grouped(points.of_set("listops"), "kind").items()]
        self.section(
            "E3: copying, parity, nested expressions",
            "Strings of 10 to 50 letters, copied; the same models asked for strings of 50, 100 and 200 letters. Accuracy of "
            "letters in percent.\n",
            table(["kind", "position", "as trained", "50", "100", "200"], copied),
            "\nParity of 2 to 12 bits (chance is 50), and of 12, 24 and 48 bits.\n",
            table(["kind", "position", "as trained", "12", "24", "48"], parity),
            "\nNested expressions of depth 2 (always the commonest digit: some 15 to 20).\n",
            table(["kind", "accuracy"], nested))
        full = max((values[2] for (kind, _), values in copies.items() if kind == "full"), default=math.nan)
        states = [values for (kind, _), values in copies.items() if kind.split()[0] in LINEAR_KINDS]
        best = max((values[2] for values in states), default=math.nan)
        trained = max((values[0] for (kind, _), values in copies.items() if kind == "full"), default=math.nan)
        self.verdict("Attention copies strings longer than trained on, states of fixed size do not (Jelassi et al. 2024)",
                     "cannot be said at this size" if trained < 0.9 else "holds" if full > 0.9 > best else
                     "holds with a condition" if full > best else "does not",
                     f"100 letters: best attention {100 * full:.0f} %, best state {100 * best:.0f} %; attention as trained "
                     f"{100 * trained:.0f} %")
        if parities:
            negative = parities.get(("gated_delta negative", "none"), [math.nan] * 4)
            others = max(values[0] for (kind, _), values in parities.items() if "negative" not in kind)
            self.verdict("No mixer here learns parity but those with negative eigenvalues",
                         "holds" if negative[0] > 0.95 > others else "does not" if others > 0.95 else
                         "cannot be said at this size",
                         f"as trained: negative eigenvalues {100 * negative[0]:.0f} %, best other {100 * others:.0f} %")
        if nested:
            self.verdict("A, B: hierarchy is not captured", "cannot be said at this size",
                         "depth 2: " + ", ".join(f"{kind} {text} %" for kind, text in nested))

    # ---- E4 -----------------------------------------------------------------------------------------
    def needle(self):
        points = self.points["needle"]
        if not points.rows:
            return
        lines, beyond, trained = [], {}, {}
        for (kind, position), group in grouped(points.rows, "kind", "position").items():
            for stretched in ("", "yarn"):
                values = [[number(answer["accuracy"]) for row in group
                           for answer in points.answers(row, question, stretched)] for question in ("512", "2048", "8192")]
                if any(values):
                    name = f"{position} {stretched}".strip()
                    lines.append([kind, name, *map(percent, values)])
                    trained[kind, name], beyond[kind, name] = spread(values[0])[0], spread(values[2])[0]
        self.section(
            "E4: a needle in a long text",
            "A sentence with 4 digits somewhere in a text that repeats itself, asked for at the end; trained at 512 tokens. "
            "Accuracy of digits in percent (chance 10).\n",
            table(["kind", "position", "512", "2,048", "8,192"], lines))
        best = max(trained.values())
        keeps = max(beyond, key=lambda key: beyond[key] if not math.isnan(beyond[key]) else -1)
        self.verdict("Fidelity over long ranges is lost beyond the trained length",
                     "cannot be said at this size" if best < 0.9 else "holds with a condition" if beyond[keeps] > 0.9 else
                     "holds", f"best at 512: {100 * best:.0f} %; best at 8,192: {' '.join(keeps)} {100 * beyond[keeps]:.0f} %")

        windows = [value for (kind, _), value in trained.items() if kind.startswith("window")]
        if windows and best >= 0.9:
            self.verdict("A window with the first tokens does not find what is beyond its reach",
                         "holds" if max(windows) < 0.5 else "does not", f"at 512: {100 * max(windows):.0f} %")

    # ---- E6 -----------------------------------------------------------------------------------------
    def positions(self):
        points = self.points["positions"]
        if not points.rows:
            return
        lengths = [16, 32, 64, 128, 256, 512, 1024]
        series, lines = {}, []
        for (kind, position), group in grouped(points.rows, "kind", "position").items():
            for stretched in ("", "ntk", "yarn"):
                means = [spread([number(answer["loss"]) for row in group
                                 for answer in points.answers(row, str(length), stretched)])[0] for length in lengths]
                if all(map(math.isnan, means)):
                    continue
                name = " ".join(filter(None, [position if kind == "full" else kind, stretched]))
                # Loss of the second half of a sequence: what the whole has more than the half.
                series[name] = [(0.75 * length, 2 * whole - half)
                                for length, half, whole in zip(lengths[1:], means, means[1:])]
                lines.append([name, *(f"{loss:.3f}" for _, loss in series[name])])
        self.section(
            "E6: positions beyond the trained length",
            "Two layers, trained at 128 tokens of Python's standard library. Loss (nats a token) by place in the sequence: each "
            "column is the second half of sequences of that length, of the same text.\n",
            table(["position", *(f"{length // 2}–{length}" for length in lengths[1:])], lines),
            self.figure("F6", "loss by position",
                        'set logscale x 2\nset xlabel "position"\nset ylabel "loss"\nset arrow from 128, graph 0 to 128, graph '
                        '1 nohead dt 2', list(series.items())))
        # A model that has hardly learnt the text says nothing about positions.
        least = min(values[2][1] for values in series.values())
        if least > 0.6 * math.log(TEXT_VOCABULARY):
            self.verdict("B: rotary positions extrapolate", "cannot be said at this size",
                         f"the least loss at 64–128 is {least:.2f}")
            return
        rises = {name: values[-1][1] - values[2][1] for name, values in series.items()}
        told = ", ".join(f"{name} {rise:+.2f}" for name, rise in rises.items())
        if "rope" in rises:
            self.verdict("B: rotary positions extrapolate", "does not" if rises["rope"] > 0.1 else "holds at this size",
                         f"loss at 512–1,024 less that at 64–128: {told}")
        if "alibi" in rises:
            self.verdict("ALiBi holds its loss beyond the trained length (Press et al. 2022)",
                         "holds" if rises["alibi"] < 0.05 else "does not", f"{rises['alibi']:+.3f}")
        for stretched in ("rope ntk", "rope yarn"):
            if stretched in rises and "rope" in rises:
                self.verdict(f"{stretched}, without training, lets rotary positions reach further",
                             "holds" if rises[stretched] < rises["rope"] / 2 else "does not",
                             f"{rises[stretched]:+.2f} against {rises['rope']:+.2f}")

    # ---- E9, T1, T2 ---------------------------------------------------------------------------------
    def splits(self):
        if not self.layouts:
            return
        alone = {row["mixer"]: row for row in self.layouts if row["ranks"] == "1"}
        lines, worst, exact, constant = [], 0.0, True, []
        for (mixer,), group in grouped(self.layouts, "mixer").items():
            wanted = [float(loss) for loss in alone[mixer]["losses"].split()]
            difference = max(abs(a / b - 1) for row in group if row["length"] == "128"
                             for a, b in zip(map(float, row["losses"].split()), wanted))
            wire = {row["length"]: int(row["wire_bytes"]) for row in group
                    if row["ranks"] == "2" and row["layout"] == "zigzag"}
            planned = all(row["memory_bytes"] == row["planned_memory_bytes"] for row in group)
            worst, exact = max(worst, difference), exact and planned
            if kind_of(mixer).split()[0] in LINEAR_KINDS and len(wire) == 2:
                constant.append(wire["128"] == wire["256"])
            lines.append([kind_of(mixer), f"{difference:.1e}", "yes" if planned else "no",
                          *(f"{wire[length]:,}" for length in ("128", "256") if length in wire)])
        self.section(
            "E9: sequences split over ranks",
            "Every kind on 1, 2 and 4 ranks, zigzag and contiguous, 20 steps: the largest relative difference of a loss from "
            "that of one rank; whether allocated bytes are the planned ones; bytes that 2 ranks send in a step for the mixer, "
            "at 128 and 256 tokens.\n",
            table(["kind", "difference", "memory as planned", "sent at 128", "sent at 256"], lines))
        self.verdict("Layouts compute the same", "holds" if worst <= 1e-5 else "holds with a condition",
                     f"largest relative difference of a loss {worst:.1e}; memory as planned: {'always' if exact else 'not always'}")
        if constant:
            self.verdict("States of fixed size make the bytes between ranks independent of the length",
                         "holds" if all(constant) else "does not", "E9, the last two columns")

    def leak_table(self):
        lines = [[name, f"{count} of {leaks.BORDER}", f"{largest:.1g}"] for name, count, largest in leaks.table()]
        self.section(
            "T1: who sees the future",
            "Forms as published, each in a few lines of double precision (`leaks.py`): eight futures follow the same first half, "
            "and positions of this are counted whose output is not the same in all. Every kind that this program has is held to 0 by its tests, "
            "to the bit and on every layout (`model_sequence_mixer_test`, `end_to_end_context_test`).\n",
            table(["form", "positions that moved", "by at most"], lines))
        moved = {name: count for name, count, _ in leaks.table()}
        self.verdict("B: Reformer is among the sparse methods that language models can use", "holds with a condition",
                     f"as published {moved['Reformer, chunks of sorted rows']} of {leaks.BORDER} past positions move; with the "
                     f"last tokens of the own bucket {moved['LSH, own bucket, last of it']}")

    def write(self):
        for part in (self.cost, self.recall, self.compute, self.needle, self.positions, self.splits, self.leak_table):
            part()
        runs = [row for points in self.points.values() for row in points.rows]
        columns = ["point", "set", "kind", "position", "hidden", "length", "seed", "num_steps", "num_parameters",
                   "config_hash", "seconds", "planned_memory_bytes", "memory_bytes", "planned_wire_bytes", "state", "loss",
                   "accuracy"]
        with open(f"{self.output}/points.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(runs)
        minutes = sum(number(row["seconds"]) for row in runs) / 60
        seeds = len({row["seed"] for row in self.points["recall"].rows}) or 1
        head = (
            "# The limits of attention and of its alternatives, measured\n\n"
            "Made by `configs/studies/limits/limits.sh`: small models, trained here, each the same but for its mixer. "
            f"{len(runs)} runs, {minutes:.0f} minutes of training on a core, {seeds} seed{'s' if seeds > 1 else ''}, {platform.machine()}, version "
            f"{runs[0]['code_version'] if runs else '?'}. Every run is a row of [points.csv](points.csv).\n\n"
            "What it cannot tell: laws of scale, states above a megabyte, the speed of cards. A verdict counts for models of "
            "this size and this many steps.\n")
        missing = [name for name, points in self.points.items() if not points.rows]
        if not self.layouts:
            missing.append("layouts")
        if missing:
            head += f"\n**Not whole: no runs yet of {', '.join(missing)}.** `limits.sh` makes them.\n"
        verdicts = "## T2: verdicts\n\n" + table(["claim", "verdict", "evidence"], self.verdicts)
        left = ("## Not here\n\nThe experiments on experts at equal compute, memories of segments, and diffusion (they need "
                "parts that come later, or are told in [scaling_laws.md](../scaling_laws.md)); LSH as a trained mixer; one "
                "learning rate in place of the better of two.\n")
        with open(f"{self.output}/report.md", "w") as file:
            file.write("\n".join([head, verdicts, *self.sections, left]))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.makedirs(sys.argv[2], exist_ok=True)
    Report(*sys.argv[1:]).write()
