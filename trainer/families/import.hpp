// A published model becomes a run's folder: a checkpoint of weights alone, at step 0, and a
// configuration. Weights stream from file to file, a few megabytes at a time. The folder appears
// when it is complete.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/families/family.hpp"

namespace switchyard {

// The nearest of some words, if one is near.
using Nearest =
    std::function<std::optional<std::string>(std::string_view, std::span<const std::string_view>)>;

struct PublishedModel {
  const Family* family = nullptr;
  Config config;                         // its keys model and experts are set
  std::vector<std::string> unread_keys;  // of config.json
};
// Reads FOLDER/config.json. DataError, IoError.
PublishedModel read_published_model(const std::string& folder);

struct ImportOptions {
  std::string source;         // folder with config.json and the weights
  std::string output;         // the run's folder, which does not exist or is empty
  std::string configuration;  // its config.yaml
};
struct Imported {
  std::string checkpoint;
  std::int64_t num_tensors = 0;  // read
  std::int64_t num_bytes = 0;
};
// DataError: a tensor is missing, unknown (with the nearest name), or has another shape; all are
// told at once. ConfigError: the folder is in use. IoError.
Imported import_model(const Family& family, const Config& config, const ImportOptions& options,
                      const Nearest& nearest, const Report& report);

}  // namespace switchyard
