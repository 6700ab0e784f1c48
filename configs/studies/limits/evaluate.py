"""Asks the trained models of a study for more than they were trained on: longer sequences, other texts.

    evaluate.py SWITCHYARD STUDY_FOLDER OUTPUT.csv        again: asks for what is not in the file yet
"""
import csv
import os
import re
import subprocess
import sys

CORPORA = "runs/corpora/limits"
# Of a set of points: name of the question, and what the configuration gets for it.
QUESTIONS = {
    "copy": [(str(n), {"data.path": f"{CORPORA}/copy-{n}.h5", "model.sequence_length": 2 * n + 28,
                       "evaluate.num_sequences": 64}) for n in (50, 100, 200)],
    "parity": [(str(n), {"data.path": f"{CORPORA}/parity-{n}.h5", "model.sequence_length": n + 4,
                         "evaluate.num_sequences": 512}) for n in (12, 24, 48)],
    "needle": [(str(n), {"data.path": f"{CORPORA}/needle-{n}.h5", "model.sequence_length": n,
                         "evaluate.num_sequences": min(64, 131072 // n)}) for n in (512, 2048, 8192)],
    "positions": [(str(n), {"model.sequence_length": n, "evaluate.num_sequences": 65536 // n})
                  for n in (16, 32, 64, 128, 256, 512, 1024)],
}
STRETCHED = {
    "needle": {"yarn": {"model.rope_scaling.kind": "yarn", "model.rope_scaling.factor": 16,
                        "model.rope_scaling.original_length": 512}},
    "positions": {"ntk": {"model.rope_scaling.kind": "ntk", "model.rope_scaling.factor": 8},
                  "yarn": {"model.rope_scaling.kind": "yarn", "model.rope_scaling.factor": 8,
                           "model.rope_scaling.original_length": 128}},
}
COLUMNS = ["point", "question", "stretched", "loss", "accuracy"]


def questions_of(point):
    for name, keys in QUESTIONS.get(point["set"], []):
        yield name, "", keys
        # Rotary positions of full attention, stretched without training.
        if point["config.model.position.kind"] == "rope" and "window" not in point["config.model.mixer"]:
            for stretched, more in STRETCHED.get(point["set"], {}).items():
                yield name, stretched, {**keys, **more}


def ask(switchyard, folder, keys):
    overrides = [f"{key}={value}" for key, value in keys.items()]
    command = [switchyard, "eval", f"{folder}/point.yaml", "train.micro_batch=1", "train.global_batch=1", *overrides]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    accuracy = re.search(r"accuracy ([0-9.]+)", told)
    return (float(re.search(r"validation loss ([0-9.e+-]+|nan|inf)", told)[1]),
            float(accuracy[1]) if accuracy else float("nan"))


def main(switchyard, study, output):
    with open(f"{study}/study.csv", newline="") as file:
        points = [row for row in csv.DictReader(file) if row["status"] == "done"]
    known = set()
    if os.path.exists(output):
        with open(output, newline="") as file:
            known = {(row["point"], row["question"], row["stretched"]) for row in csv.DictReader(file)}
    with open(output, "a", newline="") as file:
        writer = csv.writer(file)
        if not known:
            file.truncate(0)
            writer.writerow(COLUMNS)
        for point in points:
            for name, stretched, keys in questions_of(point):
                if (point["point"], name, stretched) in known:
                    continue
                loss, accuracy = ask(switchyard, f"{study}/{point['folder']}", keys)
                writer.writerow([point["point"], name, stretched, loss, accuracy])
                file.flush()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
