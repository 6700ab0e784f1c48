#include "launch/config/relation_checker.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "tensor/error.hpp"

namespace switchyard {

bool RelationChecker::knows(std::initializer_list<std::string_view> paths) const {
  return std::none_of(paths.begin(), paths.end(), [&](std::string_view path) {
    const Key* key = find_key(path);
    expect(key != nullptr, "a key of the schema");
    return !is_unknown_.empty() && is_unknown_[index_of(*key)];
  });
}

void RelationChecker::blame(const std::vector<std::string_view>& paths, std::string problem) {
  const Key* blamed = find_key(paths.front());
  for (const std::string_view path : paths) {
    const Key* key = find_key(path);
    if (turn_of(*key) > turn_of(*blamed)) blamed = key;
  }
  broken_.push_back({blamed, std::move(problem)});
}

// When a value was set: the default, the file, then the arguments one after the other.
int RelationChecker::turn_of(const Key& key) const {
  const Origin& origin = loaded_.origin(key);
  if (origin.kind == Origin::Kind::default_value) return 0;
  return 1 + origin.number;
}

std::string divisors(std::int64_t number) {
  std::vector<std::int64_t> all;
  for (std::int64_t d = 1; d * d <= number; ++d) {
    if (number % d != 0) continue;
    all.push_back(d);
    if (d != number / d) all.push_back(number / d);
  }
  std::sort(all.begin(), all.end());
  if (all.size() <= 10) return fmt::format("{}", fmt::join(all, ", "));
  return fmt::format("{}, ..., {}", fmt::join(all.begin(), all.begin() + 6, ", "),
                     fmt::join(all.end() - 3, all.end(), ", "));
}

std::string multiples_around(std::int64_t number, std::int64_t step) {
  const std::int64_t below = number / step * step;
  if (below == 0) return fmt::format("{}", step);
  return fmt::format("{} or {}", below, below + step);
}

}  // namespace switchyard
