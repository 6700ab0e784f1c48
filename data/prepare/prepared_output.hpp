// What `prepare` writes, by the name of its output: a token file; NAME.idx with NAME.bin,
// Megatron's; NAME.bin, nanoGPT's. The last two hold the training split; a validation split goes to
// NAME_valid.* beside them. Private to data/prepare.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/files/atomic_file.hpp"
#include "data/prepare/prepare.hpp"
#include "data/token_file.hpp"

namespace switchyard {

class PreparedOutput {
 public:
  // IoError if a file of one of the names exists and is not to be replaced.
  explicit PreparedOutput(const PrepareOptions& options);
  // What the output cannot hold, before any work: DataError.
  void check(const Tokenizer& tokenizer) const;
  // Everything, under the final names. Returns the bytes.
  std::int64_t write(TokenFileWriter& writer, const std::string& sources_json);

 private:
  enum class Kind : std::uint8_t { token_file, megatron, nanogpt };

  Kind kind_;
  bool keeps_ends_;
  std::vector<std::unique_ptr<OutputFile>> files_;  // in the order of their commits
};

}  // namespace switchyard
