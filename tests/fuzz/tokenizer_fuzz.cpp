// Tokenizers of others: the first byte says whether a tokenizer.json or a tiktoken file follows.
// One that is read encodes and decodes a text with ids of its vocabulary.
#include <cstdlib>
#include <memory>

#include "data/tokenizer.hpp"
#include "tensor/error.hpp"
#include "tests/fuzz/fuzz_target.hpp"

namespace {

constexpr std::string_view headers[] = {"switchyard tokenizer: tokenizer.json\n\n",
                                        "switchyard tokenizer: tiktoken\ncl100k_base\n"};

void check(const switchyard::Tokenizer& tokenizer) {
  const auto tokens = tokenizer.encode("abcab d</s> \xC3\xA9 12345, don't\n");
  for (const std::int32_t token : tokens)
    if (token < 0 || token >= tokenizer.vocab_size()) std::abort();
  tokenizer.decode(tokens);
}

}  // namespace

std::vector<std::string> switchyard::fuzz::seeds() {
  return {std::string(1, '\0') + R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 7, "content": "</s>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\s+|[^\\s]+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
    "post_processor": null, "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
              "byte_fallback": false,
              "vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "ab": 5, "abc": 6},
              "merges": ["a b", "ab c"]}})",
          std::string(1, '\0') + R"({"version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 0, "content": "<unk>", "single_word": false, "lstrip": false,
                      "rstrip": false, "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    "pre_tokenizer": null, "post_processor": null,
    "decoder": {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "\u2581"},
      "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "fuse_unk": true,
              "byte_fallback": true, "ignore_merges": false,
              "vocab": {"<unk>": 0, "<0x0A>": 1, "\u2581": 2, "a": 3, "b": 4, "\u2581a": 5},
              "merges": [["\u2581", "a"]]}})",
          "\1YQ== 0\nYg== 1\nYWI= 2\nIA== 3\n"};
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string blob =
      std::string(headers[data[0] % 2]).append(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    check(*switchyard::load_tokenizer_blob(blob, "fuzz"));
  } catch (const switchyard::Error&) {
  }
  return 0;
}
