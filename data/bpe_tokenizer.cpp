#include "data/bpe_tokenizer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "data/bpe/recipe.hpp"
#include "data/bpe/tiktoken_file.hpp"
#include "data/bpe/tokenizer_json.hpp"
#include "data/files/atomic_file.hpp"
#include "data/files/utf8.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

using bpe::AddedToken;
using bpe::TokenizerRecipe;

// First lines of serialized tokenizers. The second one is the text of the token that ends documents
// (empty: none was told), or the encoding; behind it is the file as it was read.
constexpr std::string_view json_header = "switchyard tokenizer: tokenizer.json\n";
constexpr std::string_view tiktoken_header = "switchyard tokenizer: tiktoken\n";

std::string text_of_token(const TokenizerRecipe& recipe, const std::string& token) {
  if (recipe.space_mark.empty()) return token;
  std::string text;
  for (std::size_t at = 0; at < token.size();) {
    const bool is_mark = std::string_view(token).substr(at).starts_with(recipe.space_mark);
    text += is_mark ? ' ' : token[at];
    at += is_mark ? recipe.space_mark.size() : 1;
  }
  return text;
}

// The bytes that each id stands for in a text.
std::vector<std::string> bytes_of_ids(const TokenizerRecipe& recipe) {
  std::vector<std::string> bytes;
  const auto set = [&](std::int32_t id, std::string text) {
    if (static_cast<std::size_t>(id) >= bytes.size())
      bytes.resize(static_cast<std::size_t>(id) + 1, std::string(replacement_character));
    bytes[static_cast<std::size_t>(id)] = std::move(text);
  };
  for (const auto& [text, id] : recipe.no_words) set(id, text);
  for (const auto& [text, id] : recipe.vocabulary.tokens) set(id, text_of_token(recipe, text));
  for (unsigned byte = 0; byte < 256 && recipe.has_byte_names; ++byte)
    if (recipe.vocabulary.byte_tokens[byte] >= 0)
      set(recipe.vocabulary.byte_tokens[byte], std::string(1, static_cast<char>(byte)));
  for (const AddedToken& token : recipe.added) set(token.id, token.special ? "" : token.text);
  return bytes;
}

// Where no token has a mark behind another character, no merge crosses the border before a mark:
// texts may be cut there, which keeps words short and changes nothing.
bool may_cut_before_marks(const TokenizerRecipe& recipe) {
  const bpe::BpeVocabulary& vocabulary = recipe.vocabulary;
  const std::string& mark = recipe.space_mark;
  if (vocabulary.of_bytes || mark.empty()) return false;
  if (vocabulary.unknown >= 0 && vocabulary.fuse_unknown &&
      !(vocabulary.byte_fallback &&
        std::ranges::all_of(vocabulary.byte_tokens, [](std::int32_t id) { return id >= 0; })))
    return false;
  return std::ranges::none_of(vocabulary.tokens, [&](const auto& token) {
    std::size_t begin = 0;
    while (token.first.compare(begin, mark.size(), mark) == 0) begin += mark.size();
    return token.first.find(mark, begin) != std::string::npos;
  });
}

bpe::PreTokenizer cutter_of(const TokenizerRecipe& recipe) {
  std::vector<bpe::SplitterStep> steps;
  if (may_cut_before_marks(recipe)) {
    const std::string mark = bpe::quoted_pattern(recipe.space_mark);
    steps.emplace_back(bpe::SplitStep{bpe::SplitPattern(
        fmt::format("(?:{})*(?:(?!{})[\\d\\D])+", mark, mark), bpe::PatternDialect::rust, "")});
  }
  return bpe::PreTokenizer(std::move(steps));
}

std::vector<AddedToken> tokens_to_find(const TokenizerRecipe& recipe, bool normalized) {
  std::vector<AddedToken> tokens;
  if (!recipe.finds_added) return tokens;
  for (AddedToken token : recipe.added) {
    if (token.normalized != normalized) continue;
    if (normalized) token.text = recipe.normalizer(token.text);
    tokens.push_back(std::move(token));
  }
  return tokens;
}

// Two files may disagree on what a token is; then neither can be right for all of them.
void check_added(const TokenizerRecipe& recipe, std::string_view source) {
  if (recipe.vocabulary.of_bytes) return;  // whose texts are bytes by now
  std::vector<std::pair<std::string, std::int32_t>> known = recipe.vocabulary.tokens;
  known.insert(known.end(), recipe.no_words.begin(), recipe.no_words.end());
  std::ranges::sort(known, {}, &std::pair<std::string, std::int32_t>::second);
  for (const AddedToken& token : recipe.added) {
    const auto same = std::ranges::lower_bound(known, token.id, {},
                                               &std::pair<std::string, std::int32_t>::second);
    if (same != known.end() && same->second == token.id && same->first != token.text)
      throw DataError(
          fmt::format("{}: the added token \"{}\" has the id {}, which is \"{}\" in the "
                      "vocabulary",
                      source, token.text, token.id, same->first));
  }
}

std::int32_t end_of_document_of(const TokenizerRecipe& recipe, std::int32_t vocab_size) {
  if (recipe.end_of_document) return *recipe.end_of_document;
  constexpr std::array<std::string_view, 6> usual{
      "<|endoftext|>",
      "<|end_of_text|>",
      "</s>",
      "<eos>",
      "<\xEF\xBD\x9C"
      "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
      "[EOS]"};
  for (const std::string_view name : usual)
    for (const AddedToken& token : recipe.added)
      if (token.text == name) return token.id;
  return vocab_size;
}

class BpeTokenizer final : public Tokenizer {
 public:
  // blob: what serialize() gives.
  BpeTokenizer(const TokenizerRecipe& recipe, std::string name, std::string blob)
      : name_(std::move(name)),
        blob_(std::move(blob)),
        added_(tokens_to_find(recipe, false)),
        added_normalized_(tokens_to_find(recipe, true)),
        cutter_(cutter_of(recipe)),
        model_(recipe.vocabulary),
        begin_(recipe.begin),
        bytes_(bytes_of_ids(recipe)),
        strips_first_space_(recipe.strips_first_space) {
    end_of_document_ = end_of_document_of(recipe, static_cast<std::int32_t>(bytes_.size()));
  }
  void take_steps(TokenizerRecipe&& recipe) {
    normalizer_ = std::move(recipe.normalizer);
    pre_tokenizer_ = std::move(recipe.pre_tokenizer);
  }

  std::string name() const override { return name_; }
  std::int32_t vocab_size() const override {
    return std::max(static_cast<std::int32_t>(bytes_.size()), end_of_document_ + 1);
  }
  std::int32_t end_of_document() const override { return end_of_document_; }
  std::vector<std::int32_t> begin_of_document() const override { return begin_; }
  bool begins_with_text() const override { return begin_.empty(); }

  using Tokenizer::encode;
  std::vector<std::int32_t> encode(std::string_view text, EncodeNotes& /*notes*/) const override {
    std::vector<std::int32_t> tokens;
    if (first_invalid_utf8(text) == text.size())
      encode_parts(text, tokens);
    else
      encode_parts(sanitized_utf8(text), tokens);
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    bool is_first = strips_first_space_;
    for (const std::int32_t token : tokens) {
      const std::string piece = token_bytes(token);
      const bool strips = is_first && piece.starts_with(' ');
      text += strips ? piece.substr(1) : piece;
      is_first = is_first && piece.empty();
    }
    return text;
  }
  std::string token_bytes(std::int32_t token) const override {
    if (token == end_of_document_) return {};
    if (token < 0 || static_cast<std::size_t>(token) >= bytes_.size())
      return std::string(replacement_character);
    return bytes_[static_cast<std::size_t>(token)];
  }
  std::string serialize() const override { return blob_; }
  PublishedFile published_file() const override {
    const std::size_t second = blob_.find('\n') + 1, file = blob_.find('\n', second) + 1;
    if (name_ != "tiktoken") return {"tokenizer.json", blob_.substr(file)};
    return {blob_.substr(second, file - 1 - second) + ".tiktoken", blob_.substr(file)};
  }

 private:
  void encode_parts(std::string_view text, std::vector<std::int32_t>& tokens) const {
    added_.for_each_part(text, [&](std::int32_t token, std::string_view part) {
      if (token >= 0)
        tokens.push_back(token);
      else
        encode_part(part, part.data() == text.data(), tokens);
    });
  }
  // What stands between the tokens that are looked for in the text as it came.
  void encode_part(std::string_view text, bool begins_text,
                   std::vector<std::int32_t>& tokens) const {
    std::string normalized;
    if (!normalizer_.changes_nothing()) text = normalized = normalizer_(text);
    added_normalized_.for_each_part(text, [&](std::int32_t token, std::string_view part) {
      if (token >= 0)
        tokens.push_back(token);
      else
        encode_words(part, begins_text && part.data() == text.data(), tokens);
    });
  }
  void encode_words(std::string_view text, bool begins_text,
                    std::vector<std::int32_t>& tokens) const {
    const auto encode_word = [&](std::string_view word) { model_.encode(word, tokens); };
    const bpe::TakeWord take = std::cref(encode_word);
    const auto cut_word = [&](std::string_view word) { cutter_.for_each_word(word, false, take); };
    pre_tokenizer_.for_each_word(text, begins_text, std::cref(cut_word));
  }

  std::string name_;
  std::string blob_;
  bpe::AddedTokens added_, added_normalized_;
  bpe::Normalizer normalizer_;
  bpe::PreTokenizer pre_tokenizer_;
  bpe::PreTokenizer cutter_;  // of words, where no merge crosses
  bpe::BpeModel model_;
  std::vector<std::int32_t> begin_;
  std::vector<std::string> bytes_;  // of each id
  bool strips_first_space_;
  std::int32_t end_of_document_ = 0;
};

std::unique_ptr<Tokenizer> make_bpe_tokenizer(TokenizerRecipe recipe, std::string name,
                                              std::string blob, std::string_view source) {
  check_added(recipe, source);
  auto tokenizer = std::make_unique<BpeTokenizer>(recipe, std::move(name), std::move(blob));
  tokenizer->take_steps(std::move(recipe));
  return tokenizer;
}

std::unique_ptr<Tokenizer> load_tokenizer_json(std::string_view end_name, std::string_view json,
                                               std::string_view source) {
  TokenizerRecipe recipe = bpe::read_tokenizer_json(json, source);
  const auto named = [&](const auto& text) { return text == end_name; };
  if (!end_name.empty()) {
    const auto added = std::ranges::find_if(recipe.added, named, &AddedToken::text);
    const auto plain = std::ranges::find_if(recipe.vocabulary.tokens, named,
                                            &std::pair<std::string, std::int32_t>::first);
    if (added != recipe.added.end())
      recipe.end_of_document = added->id;
    else if (plain != recipe.vocabulary.tokens.end())
      recipe.end_of_document = plain->second;
    else
      throw DataError(
          fmt::format("{}: has no token \"{}\", which tokenizer_config.json calls its eos_token",
                      source, end_name));
  }
  return make_bpe_tokenizer(std::move(recipe), "tokenizer.json",
                            std::string(json_header).append(end_name).append("\n").append(json),
                            source);
}

std::unique_ptr<Tokenizer> load_tiktoken(std::string_view encoding, std::string_view text,
                                         std::string_view source) {
  return make_bpe_tokenizer(bpe::read_tiktoken(text, encoding, source), "tiktoken",
                            std::string(tiktoken_header).append(encoding).append("\n").append(text),
                            source);
}

// eos_token of the tokenizer_config.json beside a tokenizer.json: a text, or an object with its
// content. Empty if neither tells.
std::string end_name_beside(const std::string& path) {
  const auto config = std::filesystem::path(path).parent_path() / "tokenizer_config.json";
  if (!std::filesystem::exists(config)) return {};
  const auto file = nlohmann::json::parse(read_file(config.string()), nullptr, false);
  if (!file.is_object()) throw DataError(fmt::format("{}: is not a JSON object", config.string()));
  if (!file.contains("eos_token") || file["eos_token"].is_null()) return {};
  const auto& token = file["eos_token"];
  const auto& text = token.is_object() && token.contains("content") ? token["content"] : token;
  if (!text.is_string() || text.get<std::string>().find('\n') != std::string::npos)
    throw DataError(fmt::format("{}: eos_token must be a token", config.string()));
  return text.get<std::string>();
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer_json_file(const std::string& path) {
  return load_tokenizer_json(end_name_beside(path), read_file(path), path);
}

std::unique_ptr<Tokenizer> load_tiktoken_file(std::string_view encoding, const std::string& path) {
  return load_tiktoken(encoding, read_file(path), path);
}

std::unique_ptr<Tokenizer> bpe_tokenizer_of_blob(std::string_view blob, std::string_view source) {
  for (const std::string_view header : {json_header, tiktoken_header}) {
    if (!blob.starts_with(header)) continue;
    const std::string_view rest = blob.substr(header.size());
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return nullptr;
    const std::string_view second = rest.substr(0, end), file = rest.substr(end + 1);
    return header == json_header ? load_tokenizer_json(second, file, source)
                                 : load_tiktoken(second, file, source);
  }
  return nullptr;
}

}  // namespace switchyard
