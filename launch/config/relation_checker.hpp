// Gathers the relations between keys that do not hold, each at the key to blame (relations.hpp).
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "launch/config/relations.hpp"

namespace switchyard {

class RelationChecker {
 public:
  // Both must outlive the checker; is_unknown as in broken_relations, or empty: all are known.
  RelationChecker(const LoadedConfig& loaded, const std::vector<bool>& is_unknown)
      : loaded_(loaded), is_unknown_(is_unknown) {}

  // True when every key has a valid value, so that a relation between them can be checked.
  bool knows(std::initializer_list<std::string_view> paths) const;

  // The fault is at that of `paths` (at least one) which was set last.
  void blame(const std::vector<std::string_view>& paths, std::string problem);

  std::vector<BrokenRelation> take() { return std::move(broken_); }

 private:
  int turn_of(const Key& key) const;

  const LoadedConfig& loaded_;
  const std::vector<bool>& is_unknown_;
  std::vector<BrokenRelation> broken_;
};

// "1, 2, 4, 8"; of many only the first and the last few.
std::string divisors(std::int64_t number);
// "16 or 20": the multiples of `step` around `number`.
std::string multiples_around(std::int64_t number, std::int64_t step);

}  // namespace switchyard
