#include "data/bpe/tokenizer_json.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "data/bpe/byte_letters.hpp"
#include "data/bpe/json_part.hpp"
#include "data/bpe/token_index.hpp"
#include "tensor/error.hpp"

namespace switchyard::bpe {

namespace {

using nlohmann::json;
using Part = JsonPart;

constexpr std::string_view gpt2_words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view ascii_punctuation = R"(!-\/:-@\[-`\{-~)";

// Parts of Sequences, all on one level, in order.
void flatten(const Part& part, const char* list, std::vector<Part>& parts, int depth = 0) {
  constexpr int most = 16;
  if (part.is_null()) return;
  if (depth > most) part.refuse("has Sequences inside each other, more than 16");
  if (part.type() != "Sequence") return parts.push_back(part);
  part.expect_keys({"type", list});
  for (const Part& element : part[list].elements()) flatten(element, list, parts, depth + 1);
}

std::vector<Part> flattened(const Part& part, const char* list) {
  std::vector<Part> parts;
  flatten(part, list, parts);
  return parts;
}

// {"String": text} or {"Regex": pattern}
SplitPattern pattern_of(const Part& part) {
  part.expect_keys({"String", "Regex"});
  if (part.value().size() != 1) part.refuse("must have one of String and Regex");
  const std::string pattern =
      part["Regex"].is_null() ? quoted_pattern(part["String"].text()) : part["Regex"].text();
  return {pattern, PatternDialect::oniguruma, part.source()};
}

SplitPattern known_pattern(std::string_view pattern) {
  return {pattern, PatternDialect::oniguruma, "a pattern of the program"};
}

NormalizerStep normalizer_step(const Part& part) {
  constexpr std::array<std::pair<std::string_view, UnicodeForm>, 4> forms{
      {{"NFC", UnicodeForm::nfc},
       {"NFD", UnicodeForm::nfd},
       {"NFKC", UnicodeForm::nfkc},
       {"NFKD", UnicodeForm::nfkd}}};
  const std::string type = part.type();
  for (const auto& [name, form] : forms) {
    if (type != name) continue;
    part.expect_keys({"type"});
    return form;
  }
  if (type == "Prepend") {
    part.expect_keys({"type", "prepend"});
    return Prepend{part["prepend"].text()};
  }
  if (type != "Replace")
    part.refuse_type({"Sequence", "NFC", "NFD", "NFKC", "NFKD", "Prepend", "Replace"});
  part.expect_keys({"type", "pattern", "content"});
  return Replace{pattern_of(part["pattern"]), part["content"].text()};
}

Normalizer normalizer_of(const Part& part) {
  std::vector<NormalizerStep> steps;
  for (const Part& step : flattened(part, "normalizers")) steps.push_back(normalizer_step(step));
  return Normalizer(std::move(steps));
}

SplitBehavior behavior_of(const Part& part) {
  constexpr std::array<std::string_view, 5> names{"Isolated", "Removed", "MergedWithPrevious",
                                                  "MergedWithNext", "Contiguous"};
  const auto found = std::ranges::find(names, part.text());
  if (found == names.end())
    part.refuse(fmt::format("is {}; this program knows {}", part.text(), fmt::join(names, ", ")));
  return static_cast<SplitBehavior>(found - names.begin());
}

PrefixRule prefix_of(const Part& part) {
  const Part scheme = part["prepend_scheme"];
  if (scheme.is_null())
    return part["add_prefix_space"].flag(true) ? PrefixRule::always : PrefixRule::never;
  const std::string name = scheme.text();
  if (name == "always") return PrefixRule::always;
  if (name == "first") return PrefixRule::first;
  if (name != "never") scheme.refuse("must be always, first or never");
  return PrefixRule::never;
}

MarkStep mark_step(const Part& part) {
  part.expect_keys(
      {"type", "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep"});
  const std::string mark = part["replacement"].text();
  if (mark.empty()) part["replacement"].refuse("must be a character");
  return {mark, prefix_of(part), part["split"].flag(true)};
}

void add_byte_level(const Part& part, std::vector<SplitterStep>& steps) {
  part.expect_keys({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  if (part["add_prefix_space"].flag(true)) steps.emplace_back(SpaceStep{});
  if (part["use_regex"].flag(true)) steps.emplace_back(SplitStep{known_pattern(gpt2_words)});
}

SplitterStep splitter_step(const Part& part) {
  const std::string type = part.type();
  if (type == "Metaspace") return mark_step(part);
  if (type == "Split") {
    part.expect_keys({"type", "pattern", "behavior", "invert"});
    return SplitStep{pattern_of(part["pattern"]), behavior_of(part["behavior"]),
                     part["invert"].flag(false)};
  }
  if (type == "Digits") {
    part.expect_keys({"type", "individual_digits"});
    return SplitStep{known_pattern(R"(\p{N})"), part["individual_digits"].flag(false)
                                                    ? SplitBehavior::isolated
                                                    : SplitBehavior::contiguous};
  }
  if (type == "Punctuation") {
    part.expect_keys({"type", "behavior"});
    const Part behavior = part["behavior"];
    return SplitStep{known_pattern(fmt::format("[{}\\p{{P}}]", ascii_punctuation)),
                     behavior.is_null() ? SplitBehavior::isolated : behavior_of(behavior)};
  }
  if (type == "WhitespaceSplit" || type == "Whitespace") {
    part.expect_keys({"type"});
    if (type == "WhitespaceSplit") return SplitStep{known_pattern(R"(\s)"), SplitBehavior::removed};
    return SplitStep{known_pattern(R"(\w+|[^\w\s]+)"), SplitBehavior::removed, true};
  }
  part.refuse_type({"Sequence", "ByteLevel", "Split", "Digits", "Punctuation", "Metaspace",
                    "Whitespace", "WhitespaceSplit"});
}

// Whether the words are bytes in the end, written as letters.
bool read_pre_tokenizer(const Part& part, TokenizerRecipe& recipe) {
  std::vector<SplitterStep> steps;
  bool of_bytes = false;
  for (const Part& step : flattened(part, "pretokenizers")) {
    if (of_bytes)
      step.refuse("stands behind a ByteLevel, whose letters this program does not split");
    of_bytes = step.type() == "ByteLevel";
    if (of_bytes)
      add_byte_level(step, steps);
    else
      steps.push_back(splitter_step(step));
  }
  recipe.pre_tokenizer = PreTokenizer(std::move(steps));
  return of_bytes;
}

void read_decoder(const Part& part, TokenizerRecipe& recipe) {
  for (const Part& step : flattened(part, "decoders")) {
    const std::string type = step.type();
    if (type == "ByteLevel" && !recipe.vocabulary.of_bytes)
      step.refuse("decodes bytes, but no pre_tokenizer of type ByteLevel encodes them");
    if (type == "ByteLevel" || type == "Fuse") continue;
    if (type == "ByteFallback") {
      recipe.has_byte_names = true;
    } else if (type == "Metaspace") {
      const MarkStep marks = mark_step(step);
      recipe.space_mark = marks.mark;
      recipe.strips_first_space = marks.prefix != PrefixRule::never;
    } else if (type == "Replace") {
      step.expect_keys({"type", "pattern", "content"});
      recipe.space_mark = step["pattern"]["String"].text();
      if (step["content"].text() != " " || recipe.space_mark.empty())
        step.refuse("must give a character back as a space");
    } else if (type == "Strip") {
      step.expect_keys({"type", "content", "start", "stop"});
      if (step["content"].text() != " " || step["start"].number() > 1 || step["stop"].number() != 0)
        step.refuse("may only leave out one space at the beginning of a text");
      recipe.strips_first_space = step["start"].number() == 1;
    } else {
      step.refuse_type(
          {"Sequence", "ByteLevel", "ByteFallback", "Fuse", "Metaspace", "Replace", "Strip"});
    }
  }
}

// The vocabulary's texts as the file writes them, by which merges are told.
TokenIndex read_vocabulary(const Part& model, BpeVocabulary& vocabulary) {
  const Part part = model["vocab"];
  if (!part.value().is_object()) part.refuse("must be an object of tokens and ids");
  const std::size_t num_tokens = part.value().size();
  std::size_t num_bytes = 0;
  for (const auto& [text, id] : part.value().items()) num_bytes += text.size();
  TokenIndex index(num_tokens, num_bytes);
  std::vector<bool> is_taken(2 * num_tokens + 4097);
  for (const auto& [text, id] : part.value().items()) {
    const std::int64_t number =
        Part(id, fmt::format("model.vocab[\"{}\"]", text), part.source()).number();
    check_token_id(number, num_tokens, part.source());
    const auto token = static_cast<std::int32_t>(number);
    if (is_taken[static_cast<std::size_t>(token)])
      part.refuse(fmt::format("gives the id {} twice, the second time to \"{}\"", token, text));
    is_taken[static_cast<std::size_t>(token)] = true;
    index.add(text, token);
    vocabulary.tokens.emplace_back(text, token);
  }
  return index;
}

// "LEFT RIGHT" or [LEFT, RIGHT]
std::pair<std::string, std::string> merged_pair(const Part& part) {
  if (part.value().is_array()) {
    const std::vector<Part> both = part.elements();
    if (both.size() != 2) part.refuse("must be two tokens");
    return {both[0].text(), both[1].text()};
  }
  const std::string text = part.text();
  const std::size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos)
    part.refuse("must be two tokens with a space between them");
  return {text.substr(0, space), text.substr(space + 1)};
}

void read_merges(const Part& model, const TokenIndex& index, BpeVocabulary& vocabulary) {
  const Part part = model["merges"];
  if (!part.value().is_array()) part.refuse("must be a list");
  vocabulary.merges.reserve(part.value().size());
  std::size_t number = 0;
  for (const json& element : part.value()) {
    const Part merge(element, fmt::format("model.merges[{}]", number++), part.source());
    const auto [left, right] = merged_pair(merge);
    const auto token_of = [&](const std::string& text) {
      const std::int32_t token = index.find(text);
      if (token < 0)
        merge.refuse(fmt::format("needs \"{}\", which model.vocab does not have", text));
      return token;
    };
    vocabulary.merges.push_back({token_of(left), token_of(right), token_of(left + right)});
  }
}

void read_model(const Part& model, TokenizerRecipe& recipe) {
  if (!model["type"].is_null() && model.type() != "BPE")
    model.refuse(fmt::format("is of type {}; this program knows BPE", model.type()));
  model.expect_keys({"type", "dropout", "unk_token", "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", "byte_fallback", "ignore_merges", "vocab",
                     "merges"});
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!model[key].is_null() && !model[key].text().empty())
      model[key].refuse("marks of words' parts are not known to this program");
  if (const json& dropout = model["dropout"].value(); !dropout.is_null() && dropout != 0.0)
    model["dropout"].refuse("merges that are left out at random are not known to this program");

  BpeVocabulary& vocabulary = recipe.vocabulary;
  const TokenIndex index = read_vocabulary(model, vocabulary);
  read_merges(model, index, vocabulary);
  vocabulary.fuse_unknown = model["fuse_unk"].flag(false);
  vocabulary.byte_fallback = model["byte_fallback"].flag(false);
  vocabulary.whole_words_first = model["ignore_merges"].flag(false);
  if (!model["unk_token"].is_null()) {
    vocabulary.unknown = index.find(model["unk_token"].text());
    if (vocabulary.unknown < 0) model["unk_token"].refuse("is not in model.vocab");
  }
  for (unsigned byte = 0; byte < 256; ++byte)
    vocabulary.byte_tokens[byte] = index.find(byte_name(byte));
}

// Letters become the bytes they stand for. What is not of letters occurs in no word.
void undo_letters(TokenizerRecipe& recipe) {
  std::erase_if(recipe.vocabulary.tokens, [&](auto& token) {
    const std::optional<std::string> bytes = bytes_of_letters(token.first);
    if (bytes)
      token.first = *bytes;
    else
      recipe.no_words.push_back(token);
    return !bytes;
  });
}

void read_added_tokens(const Part& part, TokenizerRecipe& recipe) {
  if (part.is_null()) return;
  const std::vector<Part> elements = part.elements();
  const std::size_t num_tokens = recipe.vocabulary.tokens.size() + elements.size();
  for (const Part& element : elements) {
    element.expect_keys(
        {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    const bool is_special = element["special"].flag(false);
    check_token_id(element["id"].number(), num_tokens, part.source());
    recipe.added.push_back({.text = element["content"].text(),
                            .id = static_cast<std::int32_t>(element["id"].number()),
                            .single_word = element["single_word"].flag(false),
                            .takes_left_space = element["lstrip"].flag(false),
                            .takes_right_space = element["rstrip"].flag(false),
                            .normalized = element["normalized"].flag(!is_special),
                            .special = is_special});
  }
}

// [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}}]: the tokens before the text.
void read_template(const Part& part, TokenizerRecipe& recipe) {
  part.expect_keys({"type", "single", "pair", "special_tokens"});
  for (const Part& piece : part["single"].elements()) {
    if (!piece["Sequence"].is_null()) return;
    const std::string name = piece["SpecialToken"]["id"].text();
    for (const Part& id : part["special_tokens"][name.c_str()]["ids"].elements()) {
      const std::int64_t number = id.number();
      check_token_id(number, recipe.vocabulary.tokens.size() + recipe.added.size(), part.source());
      recipe.begin.push_back(static_cast<std::int32_t>(number));
    }
  }
  part["single"].refuse("has no Sequence, the place of the text");
}

void read_post_processor(const Part& part, TokenizerRecipe& recipe) {
  for (const Part& step : flattened(part, "processors")) {
    if (step.type() == "ByteLevel") continue;  // about the places of tokens in the text
    if (step.type() != "TemplateProcessing")
      step.refuse_type({"Sequence", "ByteLevel", "TemplateProcessing"});
    read_template(step, recipe);
  }
}

}  // namespace

TokenizerRecipe read_tokenizer_json(std::string_view text, std::string_view source) {
  const json file = json::parse(text, nullptr, false);
  const Part part(file, "", source);
  if (file.is_discarded()) part.refuse("is not valid JSON");
  part.expect_keys({"version", "truncation", "padding", "added_tokens", "normalizer",
                    "pre_tokenizer", "post_processor", "decoder", "model"});
  if (!part["model"].value().is_object()) part["model"].refuse("must be an object");
  TokenizerRecipe recipe;
  read_model(part["model"], recipe);
  recipe.normalizer = normalizer_of(part["normalizer"]);
  recipe.vocabulary.of_bytes = read_pre_tokenizer(part["pre_tokenizer"], recipe);
  read_added_tokens(part["added_tokens"], recipe);
  if (recipe.vocabulary.of_bytes) undo_letters(recipe);
  read_decoder(part["decoder"], recipe);
  read_post_processor(part["post_processor"], recipe);
  return recipe;
}

}  // namespace switchyard::bpe
