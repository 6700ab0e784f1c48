// The HDF5 token file: what `prepare` writes and training reads.
//
//   /                        attributes format = "switchyard tokens", version = 1 (2 with a
//                            loss mask, lest a program that knows none pass it over), vocab_size,
//                            end_of_document, tokenizer (its name)
//   /tokenizer               u8: Tokenizer::serialize()
//   /sources                 u8: JSON, one object a source file: path, documents, bytes
//   /train/tokens            u16 (vocabularies up to 65536) or i32, contiguous, [num_tokens];
//                            attribute xxh3: of the whole split, 16 hexadecimal digits
//   /train/loss_mask         u8 [num_tokens], only where some tokens are not to be learned: 1, or 0
//   for
//                            a token that is read and never a target; xxh3 as above
//   /train/mask_checksums    u64: as block_checksums
//   /train/block_checksums   u64: XXH3 of each 1 MiB block of tokens, the last one shorter
//   /train/document_offsets  i64 [num_documents + 1]: where documents begin; last = num_tokens
//   /valid/...               the same
//
// Tokens are stored in one run of bytes so that they can be memory-mapped: ranks on a node share
// the pages, and reading needs neither HDF5 nor its one thread. In exchange this file checks them
// itself: a block is compared with its checksum when it is first touched.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.hpp"

namespace switchyard {

enum class Split : std::uint8_t { train, valid };
inline constexpr int num_splits = 2;
std::string_view name_of(Split split);

class TokenFile {
 public:
  // Checks format, version, sizes, offsets (monotone, from 0 to the number of tokens) and that the
  // data lies inside the file. DataError names the file, what is wrong and the remedy. Uses HDF5
  // here and in no other function but documents().
  explicit TokenFile(const std::string& path);
  ~TokenFile();
  TokenFile(TokenFile&&) noexcept;
  TokenFile& operator=(TokenFile&&) noexcept;

  const std::string& path() const;
  const Tokenizer& tokenizer() const;
  std::int32_t vocab_size() const;
  std::int32_t end_of_document() const;
  const std::string& sources() const;  // JSON

  std::int64_t num_tokens(Split split) const;
  std::int64_t num_documents(Split split) const;
  const std::string& checksum(Split split) const;  // of its tokens, 16 hexadecimal digits
  std::int64_t bytes_per_token() const;            // 2 or 4
  std::vector<std::int64_t> document_offsets(Split split) const;  // [num_documents + 1]; HDF5

  // Tokens [begin, begin + out.size()) of a split. Any thread, several at once. DataError when a
  // block is not what was written, a token is not in the vocabulary, or the file was cut short
  // since it was opened.
  void read(Split split, std::int64_t begin, std::span<std::int32_t> out) const;

  // Whether some tokens are not to be learned, in any split.
  bool has_loss_mask() const;
  // For tokens as in read() 1, or 0 where one is never a target; all 1 without a mask.
  void read_mask(Split split, std::int64_t begin, std::span<std::uint8_t> out) const;

  // Recomputes the checksums of all blocks and of the whole splits.
  void verify() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Collects the tokens of both splits (in an unnamed file beside the output, so any amount fits in
// little memory), then writes the token file in one go.
class TokenFileWriter {
 public:
  // `folder` holds the spools: the folder of the output.
  TokenFileWriter(const std::string& folder, const Tokenizer& tokenizer);
  ~TokenFileWriter();
  TokenFileWriter(const TokenFileWriter&) = delete;
  TokenFileWriter& operator=(const TokenFileWriter&) = delete;

  // A document's tokens; end of document is added here. mask: 1, or 0 for a token that is never a
  // target; empty: all are. End of document is one, unless the mask has one entry more, for it.
  void add_document(Split split, std::span<const std::int32_t> tokens,
                    std::span<const std::uint8_t> mask = {});
  bool has_loss_mask() const;
  // Tokens [begin, begin + out.size()) of a split, as added so far.
  void read_tokens(Split split, std::int64_t begin, std::span<std::int32_t> out);
  // Where documents [first, first + out.size()) of a split end, in tokens.
  void read_document_ends(Split split, std::int64_t first, std::span<std::int64_t> out);
  // Moves everything from token `begin` on, at least one token, to the end of the other split. A
  // document that `begin` lies inside of becomes two: its head gets an end of document.
  void move_tail(Split from, Split to, std::int64_t begin);

  const Tokenizer& tokenizer() const;
  std::int64_t num_tokens(Split split) const;
  std::int64_t num_documents(Split split) const;

  // Writes the file at `path` (a temporary name; see atomic_file.hpp), complete and synced.
  void write(const std::string& path, std::string_view sources_json);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
