#include "data/tokenizer.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "data/bpe/tiktoken_file.hpp"
#include "data/bpe_tokenizer.hpp"
#include "data/files/utf8.hpp"
#include "data/hdf5/hdf5.hpp"
#include "data/sentencepiece_tokenizer.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// The first line of a serialized tokenizer.
constexpr std::string_view bytes_header = "switchyard tokenizer: bytes\n";
constexpr std::string_view sentencepiece_header = "switchyard tokenizer: sentencepiece\n";

class ByteTokenizer final : public Tokenizer {
 public:
  std::string name() const override { return "bytes"; }
  std::int32_t vocab_size() const override { return 257; }
  std::int32_t end_of_document() const override { return 256; }

  std::vector<std::int32_t> encode(std::string_view text, EncodeNotes& /*notes*/) const override {
    std::vector<std::int32_t> tokens(text.size());
    std::transform(text.begin(), text.end(), tokens.begin(),
                   [](char c) { return static_cast<unsigned char>(c); });
    return tokens;
  }
  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    text.reserve(tokens.size());
    for (std::int32_t token : tokens) text += token_bytes(token);
    return text;
  }
  std::string token_bytes(std::int32_t token) const override {
    if (token == end_of_document()) return {};
    if (token < 0 || token > 256) return std::string(replacement_character);
    return std::string(1, static_cast<char>(token));
  }
  std::string serialize() const override { return std::string(bytes_header); }
};

std::unique_ptr<Tokenizer> load_file(const std::string& path) {
  if (std::filesystem::is_directory(path)) {
    const std::string inside = (std::filesystem::path(path) / "tokenizer.json").string();
    if (std::filesystem::exists(inside)) return load_tokenizer_json_file(inside);
    throw ConfigError(fmt::format("tokenizer {}: is a folder without tokenizer.json", path));
  }
  if (path.ends_with(".json")) return load_tokenizer_json_file(path);
  if (!path.ends_with(".tiktoken")) return load_sentencepiece_file(path);
  const auto encoding = bpe::encoding_of_file(path);
  if (!encoding)
    throw ConfigError(
        fmt::format("tokenizer {}: its name tells no encoding; give ENCODING:{}, with one of {}",
                    path, path, bpe::known_encodings()));
  return load_tiktoken_file(*encoding, path);
}

}  // namespace

std::vector<std::int32_t> tokens_before_text(const Tokenizer& tokenizer, bool has_text,
                                             bool document_mask) {
  std::vector<std::int32_t> tokens = tokenizer.begin_of_document();
  const bool stands_alone = has_text && (document_mask || tokenizer.begins_with_text());
  if (tokens.empty() && !stands_alone) tokens.push_back(tokenizer.end_of_document());
  return tokens;
}

std::unique_ptr<Tokenizer> make_byte_tokenizer() {
  return std::make_unique<ByteTokenizer>();
}

std::string serialize_sentencepiece(std::string_view model) {
  return std::string(sentencepiece_header).append(model);
}

std::unique_ptr<Tokenizer> load_tokenizer_blob(std::string_view blob, std::string_view source) {
  if (blob == bytes_header) return make_byte_tokenizer();
  if (blob.starts_with(sentencepiece_header))
    return load_sentencepiece_model(blob.substr(sentencepiece_header.size()), source);
  if (auto tokenizer = bpe_tokenizer_of_blob(blob, source)) return tokenizer;
  throw DataError(fmt::format("{}: holds no tokenizer that this program knows", source));
}

std::unique_ptr<Tokenizer> make_tokenizer(const std::string& what) {
  if (what == "bytes") return make_byte_tokenizer();
  if (what.ends_with(".h5")) return tokenizer_from_file(what);
  const std::size_t colon = what.find(':');
  if (std::filesystem::exists(what)) return load_file(what);
  if (colon != std::string::npos && std::filesystem::exists(what.substr(colon + 1)))
    return load_tiktoken_file(what.substr(0, colon), what.substr(colon + 1));
  throw ConfigError(fmt::format(
      "tokenizer {}: there is no such file; give bytes, a SentencePiece model, a tokenizer.json, a "
      "tiktoken file or a token file (.h5)",
      what));
}

std::unique_ptr<Tokenizer> tokenizer_from_file(const std::string& token_file) {
  const hdf5::File file = hdf5::File::open(token_file);
  return load_tokenizer_blob(hdf5::read_text(file, "tokenizer"), token_file);
}

std::string StreamingDecoder::push(std::int32_t token) {
  pending_ += tokenizer_.token_bytes(token);
  const std::size_t complete = complete_utf8_prefix(pending_);
  std::string text = sanitized_utf8(std::string_view(pending_).substr(0, complete));
  pending_.erase(0, complete);
  return text;
}

std::string StreamingDecoder::finish() {
  std::string text = sanitized_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace switchyard
