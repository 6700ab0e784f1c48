// Tokenizer files that cannot be used: each is refused with its place, and none does harm.
#include <nlohmann/json.hpp>

#include "data/bpe/split_pattern.hpp"
#include "data/tokenizer.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {
namespace {

using nlohmann::json;

// Bytes a to e and two merges.
json small_file() {
  return json::parse(R"({"version": "1.0", "truncation": null, "padding": null,
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
              "merges": ["a b", "ab c"]}})");
}

class BpeFileTest : public ScratchFolder {
 protected:
  std::unique_ptr<Tokenizer> load(const json& file) const {
    return make_tokenizer(write("tokenizer.json", file.dump()));
  }
  std::string refusal_of(const json& file) const {
    return message_of<DataError>([&] { load(file); });
  }
};

TEST_F(BpeFileTest, ASmallFileIsUnderstood) {
  const auto tokenizer = load(small_file());
  EXPECT_EQ(tokenizer->encode("abcdeab</s>x"), (std::vector<std::int32_t>{6, 3, 4, 5, 7}));
  EXPECT_EQ(tokenizer->end_of_document(), 7);
  EXPECT_EQ(make_tokenizer(folder_)->encode("abc"), std::vector<std::int32_t>{6});

  write("tokenizer_config.json", R"({"eos_token": {"content": "abc"}})");
  EXPECT_EQ(load(small_file())->end_of_document(), 6);
  write("tokenizer_config.json", R"({"eos_token": "nowhere"})");
  EXPECT_TRUE(contains(refusal_of(small_file()), "has no token \"nowhere\""));
}

TEST_F(BpeFileTest, UnknownPartsAreRefusedByName) {
  const auto refusal = [&](const char* place, const json& value) {
    json file = small_file();
    file[json::json_pointer(place)] = value;
    return refusal_of(file);
  };
  EXPECT_TRUE(contains(refusal("/normalizer", {{"type", "Lowercase"}}),
                       "tokenizer.json: normalizer: is of type Lowercase, which this program does "
                       "not know; it knows Sequence, NFC"));
  EXPECT_TRUE(contains(refusal("/pre_tokenizer/pretokenizers/0", {{"type", "BertPreTokenizer"}}),
                       "pre_tokenizer.pretokenizers[0]: is of type BertPreTokenizer"));
  EXPECT_TRUE(
      contains(refusal("/decoder", {{"type", "WordPiece"}}), "decoder: is of type WordPiece"));
  EXPECT_TRUE(contains(refusal("/post_processor", {{"type", "BertProcessing"}}),
                       "post_processor: is of type BertProcessing"));
  EXPECT_TRUE(contains(refusal("/model/type", "Unigram"), "model: is of type Unigram"));
  EXPECT_TRUE(contains(refusal("/model/dropout", 0.1), "model.dropout: merges that are left out"));
  EXPECT_TRUE(contains(refusal("/model/end_of_word_suffix", "</w>"), "model.end_of_word_suffix"));
  EXPECT_TRUE(contains(refusal("/model/sorcery", true), "model: has the key \"sorcery\""));
  EXPECT_TRUE(contains(refusal("/surprise", 1), "the file: has the key \"surprise\""));
  EXPECT_TRUE(contains(refusal("/model/merges/1", "ab x"),
                       "model.merges[1]: needs \"x\", which model.vocab does not have"));
  EXPECT_TRUE(contains(refusal("/model/merges/1", "a b c"), "must be two tokens with a space"));
  EXPECT_TRUE(contains(refusal("/model/vocab/abc", 5), "gives the id 5 twice"));
  EXPECT_TRUE(contains(refusal("/model/vocab/abc", 2000000000), "the id 2000000000"));
  EXPECT_TRUE(contains(refusal("/model/vocab/abc", -1), "the id -1"));
  EXPECT_TRUE(contains(refusal("/model/vocab/abc", "6"), "model.vocab[\"abc\"]: must be a whole"));
  EXPECT_TRUE(contains(refusal("/added_tokens/0/id", 1 << 30), "the id 1073741824"));
  EXPECT_TRUE(contains(refusal("/pre_tokenizer/pretokenizers/0/behavior", "Random"), "is Random"));
  json deep = {{"type", "NFC"}};
  for (int i = 0; i < 1000; ++i) deep = {{"type", "Sequence"}, {"normalizers", {deep}}};
  EXPECT_TRUE(contains(refusal("/normalizer", deep), "more than 16"));
  EXPECT_TRUE(
      contains(message_of<DataError>([&] { make_tokenizer(write("a.json", "{\"model\": [")); }),
               "a.json: the file: is not valid JSON"));
}

TEST_F(BpeFileTest, PatternsThatPcre2WouldReadInAnotherWayAreRefused) {
  const auto reason = [](const char* pattern) {
    return message_of<DataError>(
        [&] { bpe::SplitPattern(pattern, bpe::PatternDialect::oniguruma, "t.json"); });
  };
  EXPECT_TRUE(contains(reason("[a[bc]]"), "has a set inside a set at its byte 2"));
  EXPECT_TRUE(contains(reason("[a-z&&b]"), "has &&"));
  EXPECT_TRUE(contains(reason("a(?i)b"), "has a special group"));
  EXPECT_TRUE(contains(reason("\\p{N}{1,3}+"), "has a + behind }"));
  EXPECT_TRUE(contains(reason("\\h"), "has \\h"));
  EXPECT_TRUE(contains(reason("(*UTF)a"), "has a special group"));
  EXPECT_TRUE(contains(reason("a(b"), "cannot be used"));
  EXPECT_TRUE(contains(reason("[^\\S]"), "a complement inside a set"));
}

TEST_F(BpeFileTest, APatternThatNeverEndsIsAnError) {
  const bpe::SplitPattern pattern("(?:(?:a|a)+)+[bc]", bpe::PatternDialect::oniguruma, "t.json");
  EXPECT_TRUE(contains(message_of<DataError>([&] {
                         pattern.for_each_match(std::string(40, 'a'), [](auto, auto) {});
                       }),
                       "cannot be matched with a text of 40 bytes"));
}

TEST_F(BpeFileTest, TiktokenFilesAreChecked) {
  write("cl100k_base.tiktoken", "YQ== 0\nYg== 1\nYWI= 2\n");
  const auto tokenizer = make_tokenizer(path("cl100k_base.tiktoken"));
  EXPECT_EQ(tokenizer->encode("abb"), (std::vector<std::int32_t>{2, 1}));
  EXPECT_EQ(tokenizer->end_of_document(), 100257);
  EXPECT_EQ(tokenizer->vocab_size(), 100277);
  const auto refusal = [&](std::string_view content) {
    return message_of<DataError>(
        [&] { make_tokenizer("llama3:" + write("some.tiktoken", content)); });
  };
  EXPECT_TRUE(contains(refusal("YQ== 0\nnonsense\n"), "some.tiktoken:2: is not a token in base64"));
  EXPECT_TRUE(contains(refusal("YQ== 0\nYg== 0\n"), ":2: the rank 0 occurs twice"));
  EXPECT_TRUE(contains(refusal("YQ== 0\nYg== 99999999\n"), "the id 99999999"));
  EXPECT_TRUE(contains(refusal("YQ== 0\nYQ== 1\n"), "has an earlier one's bytes"));
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { make_tokenizer(path("some.tiktoken")); }),
                       "its name tells no encoding; give ENCODING:"));
  EXPECT_TRUE(
      contains(message_of<ConfigError>([&] { make_tokenizer("x9:" + path("some.tiktoken")); }),
               "the encoding x9 is not known; this program knows r50k_base"));
}

// Files with random bytes exchanged, cut or doubled: read or refused, and what was read encodes.
TEST_F(BpeFileTest, DamagedFilesDoNoHarm) {
  const std::string whole = small_file().dump();
  const std::string tiktoken = "YQ== 0\nYg== 1\nYWI= 2\nIA== 3\n";
  const RandomKey key = random_key(17, "damage");
  int num_read = 0, num_refused = 0;
  for (std::uint64_t trial = 0; trial < 20000; ++trial) {
    const bool is_json = trial % 4 != 0;
    std::string file = is_json ? whole : tiktoken;
    for (std::uint64_t change = 0; change <= trial % 3; ++change) {
      const auto words = random_words(key, trial, change);
      const std::size_t at = words[0] % file.size();
      if (words[1] % 4 == 0)
        file.erase(at, words[2] % 9);
      else if (words[1] % 4 == 1)
        file.insert(at, file.substr(words[2] % file.size(), words[3] % 30));
      else
        file[at] = static_cast<char>(words[2]);
      if (file.empty()) file = " ";
    }
    try {
      const auto tokenizer =
          load_tokenizer_blob((is_json ? "switchyard tokenizer: tokenizer.json\n\n"
                                       : "switchyard tokenizer: tiktoken\nr50k_base\n") +
                                  file,
                              "damaged");
      tokenizer->decode(tokenizer->encode("abcde ab </s>\xC3\xA9 e\xCC\x81\xFF"));
      ++num_read;
    } catch (const Error&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_read, 500);
  EXPECT_GT(num_refused, 5000);
}

}  // namespace
}  // namespace switchyard
