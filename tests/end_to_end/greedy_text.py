#!/usr/bin/env python3
"""Golden models of all families (tests/golden/families) are imported by the program, and `generate` goes on with the
text that transformers' generate() has: token by token, and as text.

The models come without tokenizers. Each gets one of 32 letters, so that every prompt can be written; the end of document
is a letter that stands in none of the sequences, at which generation would end.

  greedy_text.py SWITCHYARD GOLDEN_FOLDER
"""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

LETTERS = [chr(ord("A") + i) for i in range(32)]


def int_tensors(path):
    """name: rows of a safetensors file's tensors of type I32."""
    with open(path, "rb") as file:
        data = file.read()
    (length,) = struct.unpack("<Q", data[:8])
    tensors = {}
    for name, info in json.loads(data[8:8 + length]).items():
        if info.get("dtype") == "I32":
            begin, end = (8 + length + at for at in info["data_offsets"])
            numbers = struct.unpack(f"<{(end - begin) // 4}i", data[begin:end])
            width = info["shape"][1]
            tensors[name] = [numbers[at:at + width] for at in range(0, len(numbers), width)]
    return tensors


def tokenizer_json(end):
    end_token = dict(id=end, content=LETTERS[end], single_word=False, lstrip=False, rstrip=False, normalized=False,
                     special=True)
    return dict(version="1.0", truncation=None, padding=None, added_tokens=[end_token], normalizer=None,
                pre_tokenizer=dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
                post_processor=None, decoder=dict(type="ByteLevel"),
                model=dict(type="BPE", dropout=None, unk_token=None, fuse_unk=False, byte_fallback=False,
                           vocab={letter: i for i, letter in enumerate(LETTERS)}, merges=[]))


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: ended with {done.returncode}\n{done.stderr}")
    return done.stdout


def text_of(ids):
    return "".join(LETTERS[token] for token in ids)


def check(switchyard, golden, work):
    results = int_tensors(golden + "/golden/results.safetensors")
    length = len(results["tokens"][0]) - len(results["greedy"][0])
    prompts, wanted = [row[:length] for row in results["tokens"]], results["greedy"]
    free = set(range(len(LETTERS))).difference(*prompts, *wanted)
    end = max(free)
    shutil.copytree(golden, work + "/model", ignore=shutil.ignore_patterns("golden"))
    for name, content in (("tokenizer.json", tokenizer_json(end)), ("tokenizer_config.json", dict(eos_token=LETTERS[end]))):
        with open(f"{work}/model/{name}", "w", encoding="utf-8") as file:
            json.dump(content, file)
    run(switchyard, "import", work + "/model", "--output", work + "/run", "run.precision=fp32")
    for prompt, greedy in zip(prompts, wanted):
        command = [switchyard, "generate", work + "/run", "--prompt", text_of(prompt), "--tokens", str(len(greedy)),
                   "--temperature", "0"]
        assert tuple(map(int, run(*command, "--ids").split())) == prompt + greedy, (golden, prompt, greedy)
    assert run(*command) == text_of(prompt + greedy) + "\n", golden


def main():
    switchyard, folder = sys.argv[1:]
    cases = sorted(os.listdir(folder))
    assert len(cases) >= 14, cases
    for case in cases:
        with tempfile.TemporaryDirectory() as work:
            check(switchyard, f"{folder}/{case}", work)


if __name__ == "__main__":
    main()
