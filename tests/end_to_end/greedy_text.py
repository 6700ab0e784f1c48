#!/usr/bin/env python3
"""Golden models of all families (tests/golden/families) are imported by the program, and `generate` goes on with the
text that transformers' generate() has: token by token, and as text.

The models come without tokenizers. Each gets one of 32 letters, so that every prompt can be written; the end of document
is a letter that stands in none of the sequences, at which generation would end. One model says in its
generation_config.json that text ends at any of several tokens, as those of chats do: it does, and the file goes out as it
came.

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


def write_json(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


def import_model(switchyard, golden, work, **files):
    """A golden model with some files more becomes WORK/run."""
    shutil.copytree(golden, work + "/model", ignore=shutil.ignore_patterns("golden"))
    for name, content in files.items():
        write_json(f"{work}/model/{name}.json", content)
    run(switchyard, "import", work + "/model", "--output", work + "/run", "run.precision=fp32")


def check(switchyard, golden, work):
    results = int_tensors(golden + "/golden/results.safetensors")
    length = len(results["tokens"][0]) - len(results["greedy"][0])
    prompts, wanted = [row[:length] for row in results["tokens"]], results["greedy"]
    free = set(range(len(LETTERS))).difference(*prompts, *wanted)
    end = max(free)
    import_model(switchyard, golden, work, tokenizer=tokenizer_json(end), tokenizer_config=dict(eos_token=LETTERS[end]),
                 generation_config=dict(eos_token_id=end))  # config.json has another, which golden text has not heeded
    for prompt, greedy in zip(prompts, wanted):
        command = [switchyard, "generate", work + "/run", "--prompt", text_of(prompt), "--tokens", str(len(greedy)),
                   "--temperature", "0"]
        assert tuple(map(int, run(*command, "--ids").split())) == prompt + greedy, (golden, prompt, greedy)
    assert run(*command) == text_of(prompt + greedy) + "\n", golden


def check_several_ends(switchyard, golden, work):
    results = int_tensors(golden + "/golden/results.safetensors")
    greedy = results["greedy"][0]
    prompt = results["tokens"][0][:len(results["tokens"][0]) - len(greedy)]
    number = max(map(greedy.index, greedy))  # before the last token that is new
    unused = sorted(set(range(len(LETTERS))).difference(prompt, greedy))
    ends = [unused[0], greedy[number]]
    import_model(switchyard, golden, work, tokenizer=tokenizer_json(unused[1]),
                 tokenizer_config=dict(eos_token=LETTERS[unused[1]]), generation_config=dict(eos_token_id=ends))
    command = [switchyard, "generate", work + "/run", "--prompt", text_of(prompt), "--temperature", "0"]
    kept = work + "/run/hugging_face/"

    def expect_end(where):
        ids = tuple(map(int, run(*command, "--ids").split()))
        assert ids == prompt + greedy[:number + 1], (where, ids, greedy)
        assert run(*command) == text_of(prompt + greedy[:number]) + "\n", where

    expect_end("generation_config.json")
    run(switchyard, "export", work + "/run", "--output", work + "/out")
    with open(work + "/out/generation_config.json", encoding="utf-8") as file:
        assert json.load(file)["eos_token_id"] == ends
    os.remove(kept + "generation_config.json")
    with open(kept + "config.json", encoding="utf-8") as file:
        config = json.load(file)
    for eos in (ends, greedy[number]):
        write_json(kept + "config.json", dict(config, eos_token_id=eos))
        expect_end(f"config.json: {eos}")
    shutil.rmtree(work + "/out")
    run(switchyard, "export", work + "/run", "--output", work + "/out")
    with open(work + "/out/generation_config.json", encoding="utf-8") as file:
        assert json.load(file)["eos_token_id"] == greedy[number]


def main():
    switchyard, folder = sys.argv[1:]
    cases = sorted(os.listdir(folder))
    assert len(cases) >= 14, cases
    for case in cases:
        with tempfile.TemporaryDirectory() as work:
            check(switchyard, f"{folder}/{case}", work)
    with tempfile.TemporaryDirectory() as work:
        check_several_ends(switchyard, f"{folder}/llama_bias", work)


if __name__ == "__main__":
    main()
