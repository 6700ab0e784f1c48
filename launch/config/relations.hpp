// Relations between keys: what no single value can violate. Each that does not hold is told with
// its equation and numbers, at the place of that of its keys which was set last: an argument of the
// command line, the later of two, or else the first that the file sets.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "launch/config/config_file.hpp"

namespace switchyard {

struct BrokenRelation {
  const Key* key;       // whose value to blame: set in the file or on the command line if any is
  std::string problem;  // "what is wrong, what would be right"
};

// `is_unknown[i]`: key i of schema() has no valid value, so relations with it are not checked.
std::vector<BrokenRelation> broken_relations(const LoadedConfig& loaded,
                                             const std::vector<bool>& is_unknown);
std::vector<BrokenRelation> broken_relations_for_ranks(const LoadedConfig& loaded,
                                                       std::int64_t num_ranks);

// num_tokens: what the tokenizer of data.path knows.
std::vector<BrokenRelation> broken_relations_for_vocabulary(const LoadedConfig& loaded,
                                                            std::int64_t num_tokens);

// What is legal and seldom meant.
std::vector<BrokenRelation> doubtful_relations(const LoadedConfig& loaded);

}  // namespace switchyard
