#include "data/bpe/tiktoken_file.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <vector>

#include "data/bpe/token_index.hpp"
#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

struct Special {
  std::string_view text;
  std::int32_t id;
};

struct Encoding {
  std::string_view name;
  std::string_view pattern;
  std::vector<Special> specials;   // the first one ends documents
  std::string_view reserved = {};  // further ones: RESERVED{i}|> with ...
  std::int32_t first_number = 0, first_reserved = 0, num_reserved = 0;  // ... i, its id, how many
};

constexpr std::string_view gpt2_words =
    R"('(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view gpt4_words =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen_words =
    R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view o200k_words =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

// Sources: tiktoken_ext/openai_public.py of tiktoken 0.14; llama_models' llama3/tokenizer.py;
// Qwen's tokenization_qwen.py.
const std::vector<Encoding>& encodings() {
  static const std::vector<Encoding> all{
      {"r50k_base", gpt2_words, {{"<|endoftext|>", 50256}}},
      {"p50k_base", gpt2_words, {{"<|endoftext|>", 50256}}},
      {"cl100k_base",
       gpt4_words,
       {{"<|endoftext|>", 100257},
        {"<|fim_prefix|>", 100258},
        {"<|fim_middle|>", 100259},
        {"<|fim_suffix|>", 100260},
        {"<|endofprompt|>", 100276}}},
      {"o200k_base", o200k_words, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
      {"o200k_harmony",
       o200k_words,
       {{"<|endoftext|>", 199999},
        {"<|startoftext|>", 199998},
        {"<|return|>", 200002},
        {"<|constrain|>", 200003},
        {"<|channel|>", 200005},
        {"<|start|>", 200006},
        {"<|end|>", 200007},
        {"<|message|>", 200008},
        {"<|call|>", 200012},
        {"<|endofprompt|>", 200018}},
       "<|reserved_",
       200000,
       200000,
       1088},
      {"llama3",
       gpt4_words,
       {{"<|end_of_text|>", 128001},
        {"<|begin_of_text|>", 128000},
        {"<|finetune_right_pad_id|>", 128004},
        {"<|step_id|>", 128005},
        {"<|start_header_id|>", 128006},
        {"<|end_header_id|>", 128007},
        {"<|eom_id|>", 128008},
        {"<|eot_id|>", 128009},
        {"<|python_tag|>", 128010},
        {"<|image|>", 128011}},
       "<|reserved_special_token_",
       0,
       128002,
       254},
      {"qwen",
       qwen_words,
       {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}},
       "<|extra_",
       0,
       151646,
       205},
  };
  return all;
}

std::array<std::int8_t, 256> make_base64() {
  constexpr std::string_view digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::array<std::int8_t, 256> values{};
  values.fill(-1);
  for (std::size_t i = 0; i < digits.size(); ++i)
    values[static_cast<unsigned char>(digits[i])] = static_cast<std::int8_t>(i);
  return values;
}

// False: is not base64.
bool decode_base64(std::string_view text, std::string& bytes) {
  static const std::array<std::int8_t, 256> values = make_base64();
  if (text.empty() || text.size() % 4 != 0) return false;
  while (text.ends_with('=') && text.size() % 4 != 2) text.remove_suffix(1);
  std::uint32_t bits = 0;
  int num_bits = 0;
  for (const char c : text) {
    const std::int8_t value = values[static_cast<unsigned char>(c)];
    if (value < 0) return false;
    bits = bits << 6 | static_cast<std::uint32_t>(value);
    num_bits += 6;
    if (num_bits < 8) continue;
    num_bits -= 8;
    bytes.push_back(static_cast<char>(bits >> num_bits & 0xFF));
  }
  return true;
}

void read_tokens(std::string_view text, std::string_view source, BpeVocabulary& vocabulary) {
  const auto num_lines = static_cast<std::size_t>(std::ranges::count(text, '\n') + 1);
  std::vector<bool> is_taken(2 * num_lines + 4097);
  vocabulary.tokens.reserve(num_lines);
  for (std::int64_t line = 1; !text.empty(); ++line) {
    std::string_view row = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(text.size(), row.size() + 1));
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;
    const std::size_t space = row.find(' ');
    std::string bytes;
    std::int32_t rank = -1;
    const std::string_view number = space == std::string_view::npos ? "" : row.substr(space + 1);
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (!decode_base64(row.substr(0, space), bytes) || error != std::errc{} ||
        end != number.data() + number.size())
      throw DataError(
          fmt::format("{}:{}: is not a token in base64, a space and its rank, as in tiktoken files",
                      source, line));
    check_token_id(rank, num_lines, source);
    if (is_taken[static_cast<std::size_t>(rank)])
      throw DataError(fmt::format("{}:{}: the rank {} occurs twice", source, line, rank));
    is_taken[static_cast<std::size_t>(rank)] = true;
    vocabulary.tokens.emplace_back(std::move(bytes), rank);
  }
}

// Two neighbours are merged if their bytes together are a token, the one of the lowest rank first:
// all ways to make a token of two others, in the order of its rank.
void make_merges(std::string_view source, BpeVocabulary& vocabulary) {
  const auto rank_of = &std::pair<std::string, std::int32_t>::second;
  if (!std::ranges::is_sorted(vocabulary.tokens, {}, rank_of))
    std::ranges::sort(vocabulary.tokens, {}, rank_of);
  std::size_t num_bytes = 0;
  for (const auto& [text, rank] : vocabulary.tokens) num_bytes += text.size();
  TokenIndex index(vocabulary.tokens.size(), num_bytes);
  for (const auto& [text, rank] : vocabulary.tokens)
    if (!index.add(text, rank))
      throw DataError(
          fmt::format("{}: the token of rank {} has an earlier one's bytes", source, rank));
  for (const auto& [text, rank] : vocabulary.tokens)
    for (std::size_t cut = 1; cut < text.size(); ++cut) {
      const std::int32_t left = index.find(std::string_view(text).substr(0, cut));
      if (left < 0) continue;
      const std::int32_t right = index.find(std::string_view(text).substr(cut));
      if (right >= 0) vocabulary.merges.push_back({left, right, rank});
    }
}

void add_specials(const Encoding& encoding, std::string_view source, TokenizerRecipe& recipe) {
  const auto add = [&](std::string text, std::int32_t id) {
    recipe.added.push_back({.text = std::move(text), .id = id, .special = true});
  };
  for (const Special& special : encoding.specials) add(std::string(special.text), special.id);
  for (std::int32_t i = 0, number = encoding.first_number; i < encoding.num_reserved; ++i) {
    const std::int32_t id = encoding.first_reserved + i;
    if (std::ranges::find(encoding.specials, id, &Special::id) != encoding.specials.end()) {
      // Harmony's reserved tokens are named by their ids, the others are counted.
      if (encoding.first_number == encoding.first_reserved) ++number;
      continue;
    }
    add(fmt::format("{}{}|>", encoding.reserved, number++), id);
  }
  for (const auto& [text, rank] : recipe.vocabulary.tokens)
    for (const Special& special : encoding.specials)
      if (special.id == rank)
        throw DataError(fmt::format(
            "{}: has a token of rank {}, which is {} in the encoding {}: the file is another one's",
            source, rank, special.text, encoding.name));
}

}  // namespace

std::optional<std::string_view> encoding_of_file(std::string_view path) {
  std::string_view name = path.substr(path.rfind('/') + 1);
  if (!name.ends_with(".tiktoken")) return std::nullopt;
  name.remove_suffix(std::string_view(".tiktoken").size());
  if (name == "gpt2") name = "r50k_base";
  const auto found = std::ranges::find(encodings(), name, &Encoding::name);
  if (found == encodings().end()) return std::nullopt;
  return found->name;
}

std::string known_encodings() {
  std::vector<std::string_view> names;
  for (const Encoding& encoding : encodings()) names.push_back(encoding.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

TokenizerRecipe read_tiktoken(std::string_view text, std::string_view encoding,
                              std::string_view source) {
  const auto found = std::ranges::find(encodings(), encoding, &Encoding::name);
  if (found == encodings().end())
    throw ConfigError(fmt::format("{}: the encoding {} is not known; this program knows {}", source,
                                  encoding, known_encodings()));
  TokenizerRecipe recipe;
  read_tokens(text, source, recipe.vocabulary);
  make_merges(source, recipe.vocabulary);
  recipe.vocabulary.whole_words_first = true;
  std::vector<SplitterStep> steps;
  steps.emplace_back(SplitStep{SplitPattern(found->pattern, PatternDialect::rust, source)});
  recipe.pre_tokenizer = PreTokenizer(std::move(steps));
  add_specials(*found, source, recipe);
  recipe.finds_added = false;
  recipe.end_of_document = found->specials.front().id;
  if (found->name == "llama3") recipe.begin = {128000};
  return recipe;
}

}  // namespace switchyard::bpe
