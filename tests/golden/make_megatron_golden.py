#!/usr/bin/env python3
"""Writes small datasets with Megatron's own code (megatron/core/datasets/indexed_dataset.py), and nanoGPT's way.

megatron/u16.{bin,idx}: a sequence a document, each ended by token 256, as preprocess_data.py --append-eod writes them.
megatron/plain.{bin,idx}: the same documents without the token that ends them.
megatron/i32.{bin,idx}: 4 bytes a token; documents of several sequences and an odd number of them, so that the index is
not aligned. megatron/nanogpt.bin: the tokens of u16 as data/openwebtext/prepare.py writes them.
Documents are bytes of texts: the tokenizer is the program's "bytes".

Needs: python3 with numpy, torch and megatron-core (tried: 0.16.1). The tests themselves need none.
"""
import pathlib

import numpy
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

FOLDER = pathlib.Path(__file__).resolve().parent / "megatron"
TEXTS = ["Once upon a time.", "x", "A second document, with two lines\nand no end", "Zwölf", "last"]
END = 256


def build(name, dtype, documents):
    """documents: lists of sequences."""
    builder = IndexedDatasetBuilder(str(FOLDER / f"{name}.bin"), dtype=dtype)
    for sequences in documents:
        for sequence in sequences:
            builder.add_item(torch.tensor(sequence))
        builder.end_document()
    builder.finalize(str(FOLDER / f"{name}.idx"))


def main():
    FOLDER.mkdir(exist_ok=True)
    tokens = [list(text.encode()) for text in TEXTS]
    build("u16", numpy.uint16, [[document + [END]] for document in tokens])
    build("plain", numpy.uint16, [[document] for document in tokens])
    build("i32", numpy.int32, [[document[:3], document[3:] + [END]] for document in tokens if len(document) > 3] + [[[65, END]]])
    numpy.array(sum((document + [END] for document in tokens), []), dtype=numpy.uint16).tofile(FOLDER / "nanogpt.bin")


if __name__ == "__main__":
    main()
