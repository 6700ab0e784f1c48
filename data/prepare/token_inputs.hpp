// Inputs of `prepare` that are tokens already: Megatron's .idx with .bin, nanoGPT's .bin, token
// files (.h5). Their documents are copied. Private to data/prepare.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/prepare/input_file.hpp"
#include "data/prepare/prepare.hpp"
#include "data/prepare/progress_line.hpp"
#include "data/token_file.hpp"

namespace switchyard {

// Whether the named inputs are such files, by their names. ConfigError when some are and some are
// not.
bool are_token_inputs(const std::vector<std::string>& inputs);

// The tokenizer of such inputs: the named one, or that of the token files. ConfigError if there is
// none, or the token files have several.
std::unique_ptr<Tokenizer> tokenizer_of_inputs(const InputList& inputs,
                                               const PrepareOptions& options);

struct CopiedTokens {
  std::vector<std::int64_t> num_documents;  // of each file
  std::int64_t num_empty = 0;               // documents without a token, left out
};
// Copies all documents, those of a token file into their splits, others by lot.
CopiedTokens copy_tokens(const InputList& inputs, const PrepareOptions& options,
                         TokenFileWriter& writer, ProgressLine& progress);

}  // namespace switchyard
