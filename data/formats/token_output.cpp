#include "data/formats/token_output.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "data/formats/megatron_index.hpp"
#include "tensor/error.hpp"

namespace switchyard::formats {

namespace {

constexpr std::int32_t megatron_u16_vocab = 65500;
constexpr std::int64_t documents_at_once = 1 << 16;

class BinaryFile {
 public:
  explicit BinaryFile(const std::string& path)
      : path_(path), file_(std::fopen(path.c_str(), "wb")) {
    if (!file_) fail();
  }
  template <class Number>
  void put(std::span<const Number> numbers) {
    if (std::fwrite(numbers.data(), sizeof(Number), numbers.size(), file_.get()) != numbers.size())
      fail();
  }
  template <class Number>
  void put_one(Number number) {
    put(std::span<const Number>(&number, 1));
  }
  void close() {
    if (std::fclose(file_.release()) != 0) fail();
  }

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  [[noreturn]] void fail() const {
    throw IoError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  }
  std::string path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// Calls `take` with begin and end of every document, in tokens.
template <class Take>
void for_each_document(TokenFileWriter& writer, Split split, const Take& take) {
  std::vector<std::int64_t> ends;
  std::int64_t begin = 0;
  for (std::int64_t first = 0; first < writer.num_documents(split); first += documents_at_once) {
    ends.resize(
        static_cast<std::size_t>(std::min(documents_at_once, writer.num_documents(split) - first)));
    writer.read_document_ends(split, first, ends);
    for (const std::int64_t end : ends) {
      take(begin, end);
      begin = end;
    }
  }
}

template <class Stored>
void put_tokens(BinaryFile& file, std::span<const std::int32_t> tokens) {
  std::vector<Stored> stored(tokens.size());
  std::ranges::transform(tokens, stored.begin(),
                         [](std::int32_t token) { return static_cast<Stored>(token); });
  file.put<Stored>(stored);
}

void put_bin(TokenFileWriter& writer, Split split, std::int64_t left_out, bool as_u16,
             const std::string& path) {
  BinaryFile bin(path);
  std::vector<std::int32_t> tokens;
  for_each_document(writer, split, [&](std::int64_t begin, std::int64_t end) {
    tokens.resize(static_cast<std::size_t>(end - begin - left_out));
    writer.read_tokens(split, begin, tokens);
    if (as_u16)
      put_tokens<std::uint16_t>(bin, tokens);
    else
      put_tokens<std::int32_t>(bin, tokens);
  });
  bin.close();
}

}  // namespace

void write_megatron(TokenFileWriter& writer, Split split, bool keeps_ends,
                    const std::string& bin_path, const std::string& idx_path) {
  const bool as_u16 = writer.tokenizer().vocab_size() < megatron_u16_vocab;
  const TokenCode code = as_u16 ? TokenCode::u16 : TokenCode::i32;
  const std::int64_t left_out = keeps_ends ? 0 : 1;
  put_bin(writer, split, left_out, as_u16, bin_path);

  const std::int64_t num_documents = writer.num_documents(split);
  BinaryFile idx(idx_path);
  idx.put(std::span<const char>(megatron_magic));
  idx.put_one<std::uint64_t>(1);
  idx.put_one(static_cast<std::uint8_t>(code));
  idx.put_one(static_cast<std::uint64_t>(num_documents));
  idx.put_one(static_cast<std::uint64_t>(num_documents + 1));
  for_each_document(writer, split, [&](std::int64_t begin, std::int64_t end) {
    if (end - begin > INT32_MAX)
      throw DataError(
          fmt::format("{}: a document of {} tokens is more than a Megatron index can tell",
                      idx_path, end - begin));
    idx.put_one(static_cast<std::int32_t>(end - begin - left_out));
  });
  std::int64_t offset = 0;
  for_each_document(writer, split, [&](std::int64_t begin, std::int64_t end) {
    idx.put_one(offset);
    offset += (end - begin - left_out) * bytes_of(code);
  });
  for (std::int64_t document = 0; document <= num_documents; ++document) idx.put_one(document);
  idx.close();
}

void check_nanogpt_vocab(std::int32_t vocab_size) {
  if (vocab_size > 65536)
    throw DataError(fmt::format(
        "a .bin of nanoGPT has tokens of 16 bits, but the tokenizer has {} tokens; write an .idx "
        "with its .bin instead",
        vocab_size));
}

void write_nanogpt(TokenFileWriter& writer, Split split, const std::string& path) {
  check_nanogpt_vocab(writer.tokenizer().vocab_size());
  put_bin(writer, split, 0, true, path);
}

}  // namespace switchyard::formats
