// manifest.json of a checkpoint: what the folder must hold, and the state that is not a tensor. It
// is written last, so a folder without it is not a checkpoint; it carries a hash of itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "parallel/mesh.hpp"
#include "parallel/parameter.hpp"
#include "tensor/shape.hpp"
#include "trainer/checkpoint/arithmetic_record.hpp"

namespace switchyard {

// Where the training stood.
struct TrainState {
  std::int64_t step = 0;           // steps done
  std::int64_t num_tokens = 0;     // trained on so far
  std::int64_t data_position = 0;  // sequences consumed by all steps
  std::int64_t max_rows = 0;       // most rows that a rank received in a layer so far
  // Updates that the optimizer's moments had before step 1: those of another run that gave them.
  std::int64_t earlier_updates = 0;
  friend bool operator==(const TrainState&, const TrainState&) = default;
};

struct CheckpointFile {
  std::string name;
  std::int64_t bytes = 0;
  std::string hash;  // XXH3, 128 bits, hexadecimal
};

// Elements of a flattened tensor that lie in the file of `rank`: `count` stretches of `numel`
// neighbours, `stride` from one's beginning to the next's (0 if there is one). A rank's dataset of
// a tensor holds its ranges one after another, in the order of the manifest.
struct SavedRange {
  int rank = 0;
  std::int64_t begin = 0;
  std::int64_t numel = 0;
  std::int64_t count = 1;
  std::int64_t stride = 0;

  std::int64_t total() const { return numel * count; }
};

struct SavedTensor {
  std::string name;
  Shape shape;                                  // global
  ParameterKind kind = ParameterKind::trained;  // state has values alone
  std::vector<SavedRange> ranges;               // ascending by their beginnings, every element once
};

// What the run was training on, by which another corpus and another tokenizer are told from it.
// Checksums are 16 hexadecimal digits (data/checksum.hpp); all is empty in manifests of earlier
// versions.
struct MixedCorpus {
  std::string path;
  std::string train;  // checksum of the split's tokens
  friend bool operator==(const MixedCorpus&, const MixedCorpus&) = default;
};

struct CorpusRecord {
  std::string path;   // data.path
  std::string train;  // checksum of the split's tokens
  std::string valid;
  std::string tokenizer;                  // checksum of Tokenizer::serialize()
  std::vector<MixedCorpus> mixture = {};  // of data.mixture
  friend bool operator==(const CorpusRecord&, const CorpusRecord&) = default;
};

// A run that this one began from.
struct Ancestor {
  std::string path;    // of its checkpoint
  std::string course;  // empty: of a version that knew no courses
  std::int64_t step = 0;
  std::int64_t num_tokens = 0;
  std::string taken;  // what was taken of it: "weights", ...
  friend bool operator==(const Ancestor&, const Ancestor&) = default;
};

struct Manifest {
  TrainState state;
  std::vector<Ancestor> lineage;  // the oldest first
  bool has_moments = true;        // or weights and state alone
  CorpusRecord corpus;
  ArithmeticRecord arithmetic;  // empty: not an exact run
  std::string configuration;    // the run's effective YAML
  std::string course;           // that it is a part of; empty: of a version that knew no courses
  int num_ranks = 0;            // that wrote it
  ParallelConfig layout;        // of those ranks
  std::vector<CheckpointFile> files;
  std::vector<SavedTensor> tensors;  // in the model's order

  const SavedTensor* find(std::string_view name) const;  // null if absent
  std::int64_t num_elements(ParameterKind kind) const;
  std::int64_t num_bytes() const;  // of all files
};

inline constexpr const char* manifest_name = "manifest.json";
std::string rank_file_name(int rank);             // "rank-00003.h5"
std::string step_folder_name(std::int64_t step);  // "step-00000100"
// The step that a folder's name tells, -1 if it is not the name of a complete checkpoint.
std::int64_t step_of_folder_name(std::string_view name);
// Steps of the checkpoints in a folder, by name and valid or not, newest first; none if it is none.
std::vector<std::int64_t> checkpoint_steps_in(const std::string& folder);
// The first of them; 0 if there is none.
std::int64_t newest_step_in(const std::string& folder);

std::string to_json(const Manifest& manifest);
// CheckpointError with `path` and the reason if the text is not a sound manifest.
Manifest parse_manifest(const std::string& text, const std::string& path);
// Reads FOLDER/manifest.json. CheckpointError.
Manifest read_manifest(const std::string& folder);

// The course of the checkpoint in FOLDER; empty if its manifest names none or cannot be read.
std::string course_of_checkpoint(const std::string& folder);

// XXH3 (128 bits) of the contents. IoError.
std::string hash_of_file(const std::string& path);

}  // namespace switchyard
