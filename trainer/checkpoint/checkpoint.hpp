// Checkpoints: a folder step-NNNNNNNN with one HDF5 file a rank (only what the rank owns),
// checkpoint.h5 (virtual datasets that show every tensor whole) and manifest.json. A folder of that
// name is complete and on the disk: it is written as step-NNNNNNNN.tmp and renamed at the end. Any
// layout loads what any other wrote.
//
// All functions that take a world are collective over it; a failure on one rank is thrown on all
// (run_together), and leaves no half-written folder behind.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "parallel/parameter.hpp"
#include "trainer/adamw_optimizer.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard {

// Called on rank 0 with one line of text: what was skipped and why, what takes long.
using Report = std::function<void(const std::string&)>;

struct SaveRequest {
  std::string folder;  // of all checkpoints of the run: ".../checkpoints"
  TrainState state{};
  std::string configuration{};  // the run's effective YAML
  std::string course{};         // of the run; a folder holds the checkpoints of one
  std::vector<Ancestor> lineage{};
  CorpusRecord corpus{};          // that the run trains on
  ArithmeticRecord arithmetic{};  // of an exact run
  std::int64_t keep = 2;  // newest ones that stay, this one included, step 0 not; at least 1
  std::int64_t leave_free_bytes = std::int64_t{16} << 20;  // room to leave for logs
};

struct SaveResult {
  std::string path;            // of the new folder
  std::int64_t num_bytes = 0;  // of all its files
  double seconds = 0;
};

// Writes a checkpoint. The values must be the same on all replicas. Afterwards older ones beyond
// `keep` are removed (not that of step 0, the untrained model), and so are those of later steps,
// which this run has left (none of them was valid when it started). Those that name another course
// were put there by somebody: they are not counted and stay. IoError when the space does not
// suffice, a write fails, or the step's name is taken by another course: then the older checkpoints
// are as they were.
SaveResult save_checkpoint(const SaveRequest& request, const ParameterStore& store,
                           const AdamW& optimizer, Group& world, const Report& report);

// The same without moments: a run may begin with it, and go on from it only at step 0.
SaveResult save_weights(const SaveRequest& request, const ParameterStore& store, Group& world,
                        const Report& report);

// Verifies one checkpoint: manifest, and presence, size and hash of every file (the files are
// shared out over the ranks). Returns what is wrong, one line; empty if nothing is. The same on all
// ranks.
std::string find_damage(const std::string& path, Group& world, const Report& report);

// The newest checkpoint in `folder` that verifies; none if there is none. Reports every newer one
// that was skipped, and why.
std::optional<std::string> find_newest_valid(const std::string& folder, Group& world,
                                             const Report& report);

// The same, and calls `read` with it, on all ranks. A run that saves often may remove a checkpoint
// while it is verified or read: if so, the folder is looked through again, for there is a newer
// one. `read` may then be called again; what else it throws on all ranks is thrown on.
std::optional<std::string> read_newest_valid(
    const std::string& folder, Group& world, const Report& report,
    const std::function<void(const std::string& path)>& read);

// Reads a checkpoint or says what is wrong with it. Called on all ranks, the answer is the same.
using TryCheckpoint = std::function<std::string(const std::string& path)>;
// The same with another way to verify and to read.
std::optional<std::string> try_newest(const std::string& folder, Group& world, const Report& report,
                                      const TryCheckpoint& try_one);

// Fills the values of all parameters of this rank, and the moments of what it owns (not if
// `optimizer` is null: to evaluate or generate). Of weights alone, written before step 1, the
// moments are zeros; of weights alone after it there is no going on: CheckpointError.
// CheckpointError when names or shapes differ from the model's, naming the tensor, both shapes and
// the configuration keys to look at. Verify first.
TrainState load_checkpoint(const std::string& path, ParameterStore& store, AdamW* optimizer,
                           Group& world);

}  // namespace switchyard
