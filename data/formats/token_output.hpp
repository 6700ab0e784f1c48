// Writes collected tokens as other programs read them: Megatron's NAME.bin with NAME.idx
// (megatron_index.hpp has the format; a document is one sequence), and nanoGPT's NAME.bin. Tokens
// are u16 where Megatron writes them so (vocabularies below 65500), else i32.
#pragma once

#include <string>

#include "data/token_file.hpp"

namespace switchyard::formats {

// keeps_ends: whether documents keep the token that ends them, as with --append-eod in Megatron.
void write_megatron(TokenFileWriter& writer, Split split, bool keeps_ends,
                    const std::string& bin_path, const std::string& idx_path);

// DataError, before anything is written, for a vocabulary that u16 does not hold.
void check_nanogpt_vocab(std::int32_t vocab_size);
void write_nanogpt(TokenFileWriter& writer, Split split, const std::string& path);

}  // namespace switchyard::formats
