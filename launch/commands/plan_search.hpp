// `switchyard plan --search`: all legal layouts of the ranks, micro-batches and policies of the
// activations, those that fit into memory first to last by the seconds of a step.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "launch/config/config_file.hpp"
#include "trainer/pricing/step_prediction.hpp"

namespace switchyard {

struct SearchProblem {
  const LoadedConfig& loaded;  // with the vocabulary's size
  int num_ranks = 1;
  std::int64_t vocab_size = 0;
  std::int64_t memory_bytes = 0;  // of a rank; 0: nobody knows
  const MachineProfile& profile;
  const MachineSetting& setting;
  bool extrapolate = false;
  // How uneven ranks are in a layout (its `expert`); asked once for each degree.
  std::function<RowsOfRanks(const Config&)> rows_of;
};

struct Candidate {
  ParallelConfig parallel;  // resolved
  std::int64_t micro_batch = 0;
  LayerPolicy policy = LayerPolicy::keep;
  std::int64_t peak_bytes = 0;  // of rank 0; of one that does not fit: at least
  bool fits = false;
  StepPrediction prediction{};  // of one that fits
};

struct SearchResult {
  std::vector<Candidate> ranked;  // that fit, the fastest first
  std::vector<Candidate> pruned;  // that do not fit, the smallest first
  std::int64_t num_illegal = 0;
  double seconds = 0;  // that the search took
};

// Memory prunes first: of what does not fit no step is recorded.
SearchResult search_layouts(const SearchProblem& problem);

// The best ones with what makes them slower than the first; if none fits, the smallest.
std::string search_text(const SearchResult& result, std::int64_t most_shown);
std::string search_json(const SearchResult& result, std::int64_t most_shown);

}  // namespace switchyard
