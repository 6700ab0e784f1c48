#include "trainer/checkpoint/kept_tokenizer.hpp"

#include <filesystem>

#include "data/files/atomic_file.hpp"
#include "trainer/checkpoint/place.hpp"

namespace switchyard {

namespace {

constexpr const char* file_name = "tokenizer.bin";

}  // namespace

void keep_tokenizer(const std::string& run_folder, const Tokenizer& tokenizer) {
  write_file_atomically((std::filesystem::path(run_folder) / file_name).string(),
                        tokenizer.serialize());
}

std::optional<KeptTokenizer> kept_tokenizer(const std::string& checkpoint) {
  const std::optional<std::string> kept = kept_in_run_of(checkpoint, file_name);
  if (!kept) return std::nullopt;
  return KeptTokenizer{*kept, load_tokenizer_blob(read_file(*kept), *kept)};
}

}  // namespace switchyard
