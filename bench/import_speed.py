#!/usr/bin/env python3
"""Measures `switchyard import` and `export` against what the disk gives: a random model is written (--gigabytes of
weights), imported and exported. Beside the seconds stand those of reading the files it reads and of writing, with
fsync, as many bytes as it writes, and its peak memory (ru_maxrss). Each is done --repeat times, and the best counts.

Import writes a checkpoint, export reads one: beside that stands what this takes the trainer on one rank. It is asked to
train one step of a third of the model, whose checkpoint with its moments has as many bytes as import writes, and its
seconds for that are taken by the byte (--no-trainer leaves that out). Reading is `checkpoint show --digest`, which
reads every number as a training that goes on does, without the hashes of whole files that this looks at before.

  bench/import_speed.py build/release/switchyard [--gigabytes 1.5] [--family mixtral|llama|gpt_oss] [--folder /tmp]

Needs python3 alone, in --folder eight times the gigabytes, which are removed at the end, and as much memory for the
trainer. Files that were just written are still in memory, so reading is that of memory unless --cold drops them first
(posix_fadvise).
"""
import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time

HIDDEN, VOCAB = 1024, 32000
PIECE = 1 << 24


def config_of(family, layers):
    common = dict(model_type=family, hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=16,
                  num_key_value_heads=4, head_dim=64, vocab_size=VOCAB, max_position_embeddings=2048, rms_norm_eps=1e-5,
                  intermediate_size=2 * HIDDEN, tie_word_embeddings=False)
    if family == "gpt_oss":
        return dict(common, num_local_experts=8, num_experts_per_tok=2, sliding_window=128)
    if family == "mixtral":
        return dict(common, num_local_experts=8, num_experts_per_tok=2)
    return common


def tensors_of(config):
    """Names and shapes, in the order of the file."""
    hidden, inner, family = config["hidden_size"], config["intermediate_size"], config["model_type"]
    query, key = config["num_attention_heads"] * 64, config["num_key_value_heads"] * 64
    yield "model.embed_tokens.weight", (VOCAB, hidden)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", (hidden,)
        yield at + "post_attention_layernorm.weight", (hidden,)
        for name, rows in (("q", query), ("k", key), ("v", key)):
            yield at + f"self_attn.{name}_proj.weight", (rows, hidden)
            if family == "gpt_oss":
                yield at + f"self_attn.{name}_proj.bias", (rows,)
        yield at + "self_attn.o_proj.weight", (hidden, query)
        if family == "llama":
            for name, shape in (("gate", (inner, hidden)), ("up", (inner, hidden)), ("down", (hidden, inner))):
                yield at + f"mlp.{name}_proj.weight", shape
        elif family == "mixtral":
            yield at + "block_sparse_moe.gate.weight", (8, hidden)
            for expert in range(8):
                for name, shape in (("w1", (inner, hidden)), ("w2", (hidden, inner)), ("w3", (inner, hidden))):
                    yield at + f"block_sparse_moe.experts.{expert}.{name}.weight", shape
        else:
            yield at + "self_attn.o_proj.bias", (hidden,)
            yield at + "self_attn.sinks", (config["num_attention_heads"],)
            yield at + "mlp.router.weight", (8, hidden)
            yield at + "mlp.router.bias", (8,)
            yield at + "mlp.experts.gate_up_proj", (8, hidden, 2 * inner)
            yield at + "mlp.experts.gate_up_proj_bias", (8, 2 * inner)
            yield at + "mlp.experts.down_proj", (8, inner, hidden)
            yield at + "mlp.experts.down_proj_bias", (8, hidden)
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (VOCAB, hidden)


def numel(shape):
    total = 1
    for size in shape:
        total *= size
    return total


def write_model(folder, family, gigabytes):
    """bf16; the bytes are random but for the exponents, which make numbers below 2."""
    layers = 1
    while 2 * sum(numel(shape) for _, shape in tensors_of(config_of(family, layers))) < gigabytes * 1e9:
        layers += 1
    config = config_of(family, layers)
    header, at = {}, 0
    for name, shape in tensors_of(config):
        end = at + 2 * numel(shape)
        header[name] = dict(dtype="BF16", shape=shape, data_offsets=[at, end])
        at = end
    os.mkdir(folder)
    with open(folder + "/config.json", "w", encoding="ascii") as file:
        json.dump(config, file)
    text = json.dumps(header).encode()
    block = bytearray(os.urandom(PIECE))
    block[1::2] = bytes(byte & 0xBF for byte in block[1::2])
    with open(folder + "/model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for begin in range(0, at, PIECE):
            file.write(block[:min(PIECE, at - begin)])
        file.flush()
        os.fsync(file.fileno())
    return at, layers


def files_in(folder):
    return [os.path.join(path, name) for path, _, names in os.walk(folder) for name in names]


def drop(folder):
    for path in files_in(folder):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_of(action):
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def read_all(folder):
    buffer = bytearray(PIECE)
    for path in files_in(folder):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def write_bytes(path, number):
    block = os.urandom(PIECE)
    with open(path, "wb", buffering=0) as file:
        for begin in range(0, number, PIECE):
            file.write(block[:min(PIECE, number - begin)])
        os.fsync(file.fileno())
    os.remove(path)


def run(command):
    """Seconds and the peak of memory, in bytes."""
    begun = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with {child.returncode}")
    return time.perf_counter() - begun, usage.ru_maxrss * 1024


def trainer_seconds_of_byte(arguments, folder):
    """To write a checkpoint: what the trainer says of its own."""
    model, trained, corpus = folder + "/third", folder + "/trained", folder + "/corpus.h5"
    write_model(model, arguments.family, arguments.gigabytes / 3)
    program = arguments.program
    run([program, "import", model, "--output", trained])
    run([program, "prepare", "--synthetic", "copy", "--length", "64", "--documents", "100", "--output", corpus])
    best = None
    for _ in range(arguments.repeat):
        shutil.rmtree(folder + "/step", ignore_errors=True)
        command = [program, "train", trained + "/config.yaml", "data.path=" + corpus, "run.output=" + folder + "/step",
                   "model.sequence_length=64", "train.num_steps=1", "train.global_batch=1", "train.micro_batch=1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = re.search(r"saved (\S+) \(.*, ([0-9.]+) s\)", done.stdout + done.stderr)
        if done.returncode != 0 or not said:
            sys.exit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stdout}{done.stderr}")
        seconds = float(said[2]) / sum(map(os.path.getsize, files_in(said[1])))
        best = min(best or seconds, seconds)
    for path in (model, trained, folder + "/step"):
        shutil.rmtree(path)
    return best


def measure(name, command, source, target, arguments):
    best = dict(seconds=1e9, read=1e9, write=1e9, peak=0)
    for _ in range(arguments.repeat):
        shutil.rmtree(target, ignore_errors=True)
        for key, action in (("read", lambda: read_all(source)), ("seconds", None)):
            if arguments.cold:
                drop(source)
            if action:
                best[key] = min(best[key], seconds_of(action))
            else:
                seconds, peak = run(command)
                best["seconds"] = min(best["seconds"], seconds)
                best["peak"] = max(best["peak"], peak)
        written = sum(map(os.path.getsize, files_in(target)))
        best["write"] = min(best["write"], seconds_of(lambda: write_bytes(target + ".bytes", written)))
    slower = max(best["read"], best["write"])
    print(f"{name}: {best['seconds']:.2f} s; reading its {sum(map(os.path.getsize, files_in(source))) / 1e9:.2f} GB {best['read']:.2f} s, "
          f"writing its {written / 1e9:.2f} GB {best['write']:.2f} s: {slower / best['seconds']:.0%} of the slower; "
          f"peak {best['peak'] / 2**20:.0f} MiB", flush=True)
    return dict(best, written=written)


def compare_with_trainer(arguments, folder, imported, exported, run_folder):
    write = trainer_seconds_of_byte(arguments, folder) * imported["written"]
    slower = max(imported["read"], write)
    print(f"import: the trainer writes such a checkpoint in {write:.2f} s: {slower / imported['seconds']:.0%} of the slower "
          "of reading the files and that", flush=True)
    read = 1e9
    for _ in range(arguments.repeat):
        if arguments.cold:
            drop(run_folder)
        read = min(read, run([arguments.program, "checkpoint", "show", run_folder, "--digest"])[0])
    slower = max(read, exported["write"])
    print(f"export: reading such a checkpoint as the trainer does takes {read:.2f} s: {slower / exported['seconds']:.0%} of "
          "the slower of that and writing the files", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--gigabytes", type=float, default=1.5)
    parser.add_argument("--family", choices=("mixtral", "llama", "gpt_oss"), default="mixtral")
    parser.add_argument("--folder", default="/tmp")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--no-trainer", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        model, imported, exported = folder + "/model", folder + "/run", folder + "/exported"
        size, layers = write_model(model, arguments.family, arguments.gigabytes)
        print(f"{arguments.family}: {size / 1e9:.2f} GB of bf16 in {layers} layers", flush=True)
        of_import = measure("import", [arguments.program, "import", model, "--output", imported], model, imported, arguments)
        of_export = measure("export", [arguments.program, "export", imported, "--output", exported], imported, exported,
                            arguments)
        if not arguments.no_trainer:
            compare_with_trainer(arguments, folder, of_import, of_export, imported)


if __name__ == "__main__":
    main()
