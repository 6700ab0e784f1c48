// Files of token ids that other programs made, as documents. Two kinds:
//
// Megatron's indexed datasets, NAME.idx with NAME.bin (source: megatron/core/datasets/
// indexed_dataset.py): a document is one sequence or several, which are joined. All numbers of the
// index are checked when it is opened, and read with memcpy, as its arrays are not aligned.
//
// nanoGPT's NAME.bin: u16 tokens and nothing else; a document goes up to a token that ends it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace switchyard::formats {

class TokenDocuments {
 public:
  virtual ~TokenDocuments() = default;
  // The next document, without a token at its end that ends documents. False: that was all.
  virtual bool next(std::vector<std::int32_t>& tokens) = 0;
  virtual std::int64_t bytes_read() const = 0;  // of the .bin
};

// Both: DataError with the path, the place and what is wrong, also for a token that is not below
// vocab_size.
std::unique_ptr<TokenDocuments> open_megatron(const std::string& idx_path, std::int32_t vocab_size,
                                              std::int32_t end_of_document);
std::unique_ptr<TokenDocuments> open_nanogpt(const std::string& path, std::int32_t vocab_size,
                                             std::int32_t end_of_document);

// NAME.bin of NAME.idx, and back.
std::string bin_of_idx(const std::string& idx_path);
std::string idx_of_bin(const std::string& bin_path);

}  // namespace switchyard::formats
