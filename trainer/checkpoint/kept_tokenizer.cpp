#include "trainer/checkpoint/kept_tokenizer.hpp"

#include <filesystem>

#include "data/files/atomic_file.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "tokenizer.bin";

// A link may lie in the run, or lead to it.
std::optional<fs::path> kept_beside(const std::string& checkpoint) {
  std::error_code error;
  fs::path written = fs::absolute(checkpoint, error).lexically_normal();
  if (!written.has_filename()) written = written.parent_path();
  for (const fs::path& folder : {written, fs::canonical(checkpoint, error)}) {
    const fs::path kept = folder.parent_path().parent_path() / file_name;
    if (!folder.empty() && fs::exists(kept, error)) return kept;
  }
  return std::nullopt;
}

}  // namespace

void keep_tokenizer(const std::string& run_folder, const Tokenizer& tokenizer) {
  write_file_atomically((fs::path(run_folder) / file_name).string(), tokenizer.serialize());
}

std::optional<KeptTokenizer> kept_tokenizer(const std::string& checkpoint) {
  const std::optional<fs::path> kept = kept_beside(checkpoint);
  if (!kept) return std::nullopt;
  return KeptTokenizer{kept->string(),
                       load_tokenizer_blob(read_file(kept->string()), kept->string())};
}

}  // namespace switchyard
