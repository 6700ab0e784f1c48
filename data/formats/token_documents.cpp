#include "data/formats/token_documents.hpp"

#include <fmt/core.h>

#include <cstring>
#include <filesystem>
#include <span>

#include "data/formats/mapped_file.hpp"
#include "data/formats/megatron_index.hpp"
#include "tensor/error.hpp"

namespace switchyard::formats {

namespace {

std::string with_end(const std::string& path, const char* end) {
  return std::filesystem::path(path).replace_extension(end).string();
}

template <class Stored>
void append_as(std::span<const std::byte> bytes, std::vector<std::int64_t>& numbers) {
  for (std::size_t at = 0; at < bytes.size(); at += sizeof(Stored)) {
    Stored number;
    std::memcpy(&number, bytes.data() + at, sizeof number);
    numbers.push_back(static_cast<std::int64_t>(number));
  }
}

void append(TokenCode code, std::span<const std::byte> bytes, std::vector<std::int64_t>& numbers) {
  switch (code) {
    case TokenCode::u8:
      return append_as<std::uint8_t>(bytes, numbers);
    case TokenCode::i8:
      return append_as<std::int8_t>(bytes, numbers);
    case TokenCode::i16:
      return append_as<std::int16_t>(bytes, numbers);
    case TokenCode::i32:
      return append_as<std::int32_t>(bytes, numbers);
    case TokenCode::i64:
      return append_as<std::int64_t>(bytes, numbers);
    case TokenCode::u16:
      return append_as<std::uint16_t>(bytes, numbers);
  }
}

// Of a document that begins at token `first` of the file.
void take_tokens(const std::string& path, std::int64_t first, std::int32_t vocab_size,
                 std::span<const std::int64_t> numbers, std::vector<std::int32_t>& tokens) {
  tokens.clear();
  for (const std::int64_t number : numbers) {
    if (number < 0 || number >= vocab_size)
      throw DataError(fmt::format(
          "{}: token {} is {}, but the tokenizer has {} tokens: another one made this file", path,
          first + static_cast<std::int64_t>(tokens.size()), number, vocab_size));
    tokens.push_back(static_cast<std::int32_t>(number));
  }
}

class MegatronDocuments final : public TokenDocuments {
 public:
  MegatronDocuments(const std::string& idx_path, std::int32_t vocab_size,
                    std::int32_t end_of_document)
      : path_(bin_of_idx(idx_path)),
        bin_(path_),
        index_(idx_path, static_cast<std::int64_t>(bin_.bytes().size())),
        vocab_size_(vocab_size),
        end_of_document_(end_of_document) {}

  bool next(std::vector<std::int32_t>& tokens) override {
    if (document_ == index_.num_documents()) return false;
    const MegatronIndex::Range sequences = index_.sequences_of(document_++);
    const std::int64_t first = bytes_read_ / bytes_of(index_.code());
    numbers_.clear();
    for (std::int64_t i = sequences.begin; i < sequences.end; ++i) {
      const MegatronIndex::Range range = index_.bytes_of_sequence(i);
      append(index_.code(),
             bin_.bytes().subspan(static_cast<std::size_t>(range.begin),
                                  static_cast<std::size_t>(range.end - range.begin)),
             numbers_);
      bytes_read_ = range.end;
    }
    take_tokens(path_, first, vocab_size_, numbers_, tokens);
    if (!tokens.empty() && tokens.back() == end_of_document_) tokens.pop_back();
    return true;
  }
  std::int64_t bytes_read() const override { return bytes_read_; }

 private:
  std::string path_;  // of the .bin
  MappedFile bin_;
  MegatronIndex index_;
  std::int32_t vocab_size_, end_of_document_;
  std::int64_t document_ = 0;
  std::int64_t bytes_read_ = 0;
  std::vector<std::int64_t> numbers_;
};

class NanogptDocuments final : public TokenDocuments {
 public:
  NanogptDocuments(const std::string& path, std::int32_t vocab_size, std::int32_t end_of_document)
      : path_(path), bin_(path), vocab_size_(vocab_size), end_of_document_(end_of_document) {
    if (bin_.bytes().size() % 2 != 0)
      throw DataError(fmt::format("{}: has {} bytes, but tokens of nanoGPT have two each", path,
                                  bin_.bytes().size()));
  }

  bool next(std::vector<std::int32_t>& tokens) override {
    const std::span<const std::byte> rest = bin_.bytes().subspan(at_);
    if (rest.empty()) return false;
    numbers_.clear();
    std::size_t used = 0;
    bool has_ended = false;
    while (used < rest.size() && !has_ended) {
      append_as<std::uint16_t>(rest.subspan(used, 2), numbers_);
      used += 2;
      has_ended = numbers_.back() == end_of_document_;
    }
    if (has_ended) numbers_.pop_back();
    take_tokens(path_, static_cast<std::int64_t>(at_ / 2), vocab_size_, numbers_, tokens);
    at_ += used;
    return true;
  }
  std::int64_t bytes_read() const override { return static_cast<std::int64_t>(at_); }

 private:
  std::string path_;
  MappedFile bin_;
  std::int32_t vocab_size_, end_of_document_;
  std::size_t at_ = 0;  // bytes
  std::vector<std::int64_t> numbers_;
};

}  // namespace

std::unique_ptr<TokenDocuments> open_megatron(const std::string& idx_path, std::int32_t vocab_size,
                                              std::int32_t end_of_document) {
  return std::make_unique<MegatronDocuments>(idx_path, vocab_size, end_of_document);
}

std::unique_ptr<TokenDocuments> open_nanogpt(const std::string& path, std::int32_t vocab_size,
                                             std::int32_t end_of_document) {
  return std::make_unique<NanogptDocuments>(path, vocab_size, end_of_document);
}

std::string bin_of_idx(const std::string& idx_path) {
  return with_end(idx_path, ".bin");
}

std::string idx_of_bin(const std::string& bin_path) {
  return with_end(bin_path, ".idx");
}

}  // namespace switchyard::formats
