// A token file for evaluations: its validation split has so many sequences of made-up tokens, and a
// rest that is none.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/token_file.hpp"
#include "data/tokenizer.hpp"

namespace switchyard::test {

// In `folder`, which may hold such a file already; returns its path. Tokens are below 61.
inline std::string write_evaluation_file(const std::string& folder, std::int64_t num_sequences,
                                         std::int64_t sequence_length) {
  std::filesystem::create_directories(folder);
  const auto tokenizer = make_byte_tokenizer();
  TokenFileWriter writer(folder, *tokenizer);
  for (const Split split : {Split::train, Split::valid}) {
    std::vector<std::int32_t> tokens;
    for (std::int32_t i = 0; i < num_sequences * sequence_length + 5; ++i)
      tokens.push_back((i * 17 + i * i / 7) % 61);
    writer.add_document(split, tokens);
  }
  std::string file = folder + "/tokens.h5";
  std::filesystem::remove(file);
  writer.write(file, "[]");
  return file;
}

}  // namespace switchyard::test
