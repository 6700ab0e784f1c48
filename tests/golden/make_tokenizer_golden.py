#!/usr/bin/env python3
"""Writes small tokenizer files and what `tokenizers` and `tiktoken` make of some texts with them.

Each tokenizers/NAME.json is a tokenizer.json of a form that published models have, trained here on the texts
themselves; NAME.tiktoken is a file of tiktoken. NAME.expected.json holds "ids", one list a text of tokenizers/texts.json,
where the texts stand in base64, as some of them are no UTF-8: what is broken counts as U+FFFD, as in
bytes.decode("utf-8", errors="replace"). tests/data/bpe_golden_test.cpp reads them all.

Needs: python3 with tokenizers and tiktoken (tried: 0.23.3 and 0.14.0). The tests themselves need neither.

  ./make_tokenizer_golden.py
"""
import base64
import json
import pathlib

import tiktoken
import tiktoken_ext.openai_public as public
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import AddedToken

FOLDER = pathlib.Path(__file__).resolve().parent / "tokenizers"

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
DEEPSEEK_CODER = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"]

TEXTS = [
    "", " ", "\n", "a", "  two  spaces\tand\ttabs \n\n\n  then lines\r\n\r\nend  ",
    "The quick brown fox jumps over the lazy dog, and the dog doesn't care; they've seen it before.",
    "I'll say we're DON'T HE'LL o'clock 'tis it's IT'S you'd 'S'S 'ſ wasn’t",
    "12345678901 3.14159 1,000,000 ½ ²³ ٣٤٥ ⅷ Ⅻ x2y3z 0x7fff 2024-05-06T07:08:09",
    "for (int i = 0; i < n; ++i) {\n\tsum += a[i] * b[i];  // dot\n}\n\n\treturn sum;\n",
    "def f(self, *args, **kw):\n    return {k: v for k, v in kw.items() if not k.startswith('_')}\n",
    "<html><body class=\"a-b\">&nbsp;<|not special|> <s> </s> <unk></body></html>",
    "你好，世界。我们在这里学习自然语言处理！今天天气很好。",
    "これは日本語の文章です。カタカナとひらがな、漢字。ｱｲｳ㌔",
    "안녕하세요. 한국어 문장입니다. 각", "ภาษาไทยไม่มีช่องว่าง สวัสดีครับ", "Привет, мир! Ещё раз — «кавычки».",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣", "שָׁלוֹם עוֹלָם", "नमस्ते दुनिया। क्षत्रिय", "Ελληνικά Άλφα ΣΊΣΥΦΟΣ ς",
    "Grüße aus Österreich, Straße, naïve café façade Ångström",
    "e\u0301 a\u030a \u1100\u1161\u11a8 \ufb01 \u2126 \u212b \u0958 q\u0323\u0307 q\u0307\u0323", "İstanbul ıI ǅ ǈ ǲ Ǆ",
    "🙂 👍🏽 👨‍👩‍👧‍👦 🇫🇷🇩🇪 ❤️ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 ☃ ✂︎", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 𐍈 𠮷",
    "\u00a0no\u00a0break\u2003em\u3000wide\u1680ogham\u180emongol\u0085next\u2028line\u2029para\u200bzero\u202fnarrow",
    "\x0b\x0c\x1c\x1d\x00nul\x7f\ufeffbom", "‿_x_y__z  _ \u2160\u24d0\u0345", "C# C++ .NET @user #tag $5.00 100% a/b\\c ~`^| x=>y !== ===",
    "https://example.org/a?b=c&d=%20#frag mail@example.org", " leading and trailing ", "\t\n \n\t x", "   ", "\n\n\n\n", " \n  \n",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
    "supercalifragilisticexpialidociousantidisestablishmentarianismpneumonoultramicroscopicsilicovolcanoconiosis" * 2,
    "-" * 90 + "\n" + "=" * 70 + " " * 80 + "x", "hello<|endoftext|>world <|endoftext|> x", "<|begin|><|begin|>", "<mask> x<mask>y  <mask>  z",
    "word wordy sword a word, wordword word_ éword", "naïve nai\u0308ve NAI\u0308VE", "▁mark ▁▁ a▁b", "a  b   c    d",
]
BROKEN = [b"ok \xff bad", b"\xc3", b"\xe2\x82 cut \xe2\x82\xac", b"\xf0\x9f\x99", b"\xed\xa0\x80 surrogate", b"\xc0\x80\xf5", b"a\x80b\xe0\x9f\xbf"]


def all_texts():
    return [text.encode() for text in TEXTS] + BROKEN


def written(data):
    return data.decode("utf-8", errors="replace")


def save(name, ids):
    text = json.dumps({"ids": ids}, separators=(",", ":")).replace("],[", "],\n[")
    (FOLDER / f"{name}.expected.json").write_text(text + "\n")


def save_tokenizer(name, tokenizer, value=None):
    """`value`: the file's content if it was changed behind the library's back."""
    value = value or json.loads(tokenizer.to_str())
    value["model"]["merges"] = [pair if isinstance(pair, str) else list(pair) for pair in value["model"]["merges"]]
    (FOLDER / f"{name}.json").write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
    tokenizer = Tokenizer.from_file(str(FOLDER / f"{name}.json"))
    save(name, [tokenizer.encode(written(data), add_special_tokens=False).ids for data in all_texts()])


def train_bytes(pre_tokenizer, normalizer=None, vocab=460, specials=("<|endoftext|>",)):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=list(specials), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def split(patterns, last):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + last)


def byte_level(**keys):
    return pre_tokenizers.ByteLevel(add_prefix_space=keys.pop("add_prefix_space", False), **keys)


def make_gpt2():
    tokenizer = train_bytes(byte_level())
    save_tokenizer("gpt2", tokenizer)
    return tokenizer


def make_llama3():
    tokenizer = train_bytes(split([LLAMA3], [byte_level(use_regex=False)]), specials=("<|begin|>", "<|endoftext|>"))
    begin = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
    value = json.loads(tokenizer.to_str())
    value["model"]["ignore_merges"] = True
    # A word of the vocabulary that no merges make.
    value["model"]["vocab"]["Ġlazy"] = 460
    value["model"]["vocab"]["Ġsum"] = 461
    save_tokenizer("llama3", tokenizer, value)


def make_qwen():
    save_tokenizer("qwen", train_bytes(split([QWEN], [byte_level(use_regex=False)]), normalizers.NFC()))


def make_deepseek():
    save_tokenizer("deepseek", train_bytes(split(DEEPSEEK, [byte_level(use_regex=False)])))
    last = [pre_tokenizers.Digits(individual_digits=True), byte_level(use_regex=False)]
    save_tokenizer("deepseek_coder", train_bytes(split(DEEPSEEK_CODER, last)))


def make_o200k():
    save_tokenizer("o200k", train_bytes(split([pattern_in_source("o200k_base")], [byte_level(use_regex=False)])))


def make_added():
    """Added tokens of every kind, a prefix space, NFKC, punctuation and digits in runs."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Punctuation(), pre_tokenizers.Digits(), byte_level(add_prefix_space=True)])
    tokenizer = train_bytes(pre, normalizers.NFKC())
    tokenizer.add_special_tokens(["<|begin|>"])
    tokenizer.add_tokens([AddedToken("word", single_word=True), AddedToken("<mask>", lstrip=True, rstrip=True),
                          AddedToken("nai\u0308ve", normalized=True), AddedToken("fox jumps", normalized=False),
                          AddedToken("fox", normalized=False)])
    save_tokenizer("added", tokenizer)


def make_characters():
    """As Llama 2 and Mistral: characters, their bytes where the vocabulary has none."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    specials = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=620, special_tokens=specials, show_progress=False, limit_alphabet=150)
    tokenizer.train_from_iterator(TEXTS, trainer)
    value = json.loads(tokenizer.to_str())
    value["added_tokens"] = value["added_tokens"][:3]
    value["post_processor"] = {"type": "TemplateProcessing",
                               "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                               "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                               "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    value["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    value["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    save_tokenizer("metaspace", tokenizer, json.loads(json.dumps(value)))
    value["pre_tokenizer"] = None
    value["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    save_tokenizer("llama2", tokenizer, json.loads(json.dumps(value)))
    # As Gemma: no space before a text, and words are split behind spaces that are none any more.
    value["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    value["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    value["decoder"] = {"type": "Sequence", "decoders": value["decoder"]["decoders"][:3]}
    save_tokenizer("gemma", tokenizer, json.loads(json.dumps(value)))
    # Without the bytes' tokens what is not known is <unk>, one for several.
    for byte in range(256):
        del value["model"]["vocab"][f"<0x{byte:02X}>"]
    value["model"]["vocab"] = {token: id if id < 3 else id - 256 for token, id in value["model"]["vocab"].items()}
    save_tokenizer("unknown", tokenizer, value)


def make_tiktoken(gpt2):
    """One file of ranks, read under three encodings."""
    letters = {letter: byte for byte, letter in bytes_to_letters().items()}
    tokens = [bytes(letters[letter] for letter in token)
              for token, id in sorted(gpt2.get_vocab().items(), key=lambda item: item[1]) if token != "<|endoftext|>"]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    lines = [base64.b64encode(token) + b" %d\n" % rank for token, rank in ranks.items()]
    (FOLDER / "ranks.tiktoken").write_bytes(b"".join(lines))
    for name, pattern in [("r50k_base", public.r50k_pat_str), ("cl100k_base", pattern_in_source("cl100k_base")), ("o200k_base", pattern_in_source("o200k_base"))]:
        encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={"<|endoftext|>": 300000})
        save(name, [encoding.encode_ordinary(written(data)) for data in all_texts()])


def bytes_to_letters():
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        letters.setdefault(byte, chr(256 + len([b for b in range(byte) if b not in printable])))
    return letters


def pattern_in_source(name):
    """Of an encoding of tiktoken, without the download of its file."""
    loaded = public.load_tiktoken_bpe
    public.load_tiktoken_bpe = lambda *args, **keys: {}
    try:
        return getattr(public, name)()["pat_str"]
    finally:
        public.load_tiktoken_bpe = loaded


def main():
    FOLDER.mkdir(exist_ok=True)
    texts = [base64.b64encode(data).decode() for data in all_texts()]
    (FOLDER / "texts.json").write_text(json.dumps(texts, indent=0) + "\n")
    gpt2 = make_gpt2()
    make_llama3()
    make_qwen()
    make_deepseek()
    make_o200k()
    make_added()
    make_characters()
    make_tiktoken(gpt2)


if __name__ == "__main__":
    main()
