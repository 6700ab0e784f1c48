#include "trainer/checkpoint/kept_tokenizer.hpp"

#include <fmt/core.h>

#include <filesystem>

#include "data/atomic_file.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr const char* file_name = "tokenizer.bin";

fs::path kept_beside(const std::string& checkpoint) {
  return fs::path(checkpoint).parent_path().parent_path() / file_name;
}

}  // namespace

void keep_tokenizer(const std::string& run_folder, const Tokenizer& tokenizer) {
  write_file_atomically((fs::path(run_folder) / file_name).string(), tokenizer.serialize());
}

std::unique_ptr<Tokenizer> kept_tokenizer(const std::string& checkpoint) {
  const fs::path kept = kept_beside(checkpoint);
  if (!fs::exists(kept)) return nullptr;
  return load_tokenizer_blob(read_file(kept.string()), kept.string());
}

void require_same_tokenizer(const std::string& checkpoint, const TokenFile& tokens, Group& world) {
  run_together(world, [&] {
    if (world.rank() != 0) return;
    const fs::path kept = kept_beside(checkpoint);
    if (!fs::exists(kept) || read_file(kept.string()) == tokens.tokenizer().serialize()) return;
    throw CheckpointError(fmt::format(
        "{}: was trained with another tokenizer ({}) than that of {}: the same ids mean other "
        "texts there; choose another run.output, or prepare the texts with `--tokenizer` and a "
        "token file of that run",
        checkpoint, kept.string(), tokens.path()));
  });
}

}  // namespace switchyard
