#include "model/mixers/random_directions.hpp"

#include <cmath>
#include <numeric>

namespace switchyard {

namespace {

using Direction = std::vector<double>;

double dot(const Direction& a, const Direction& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}

// purpose: of several vectors of one row.
Direction normal_vector(std::int64_t width, RandomKey key, std::int64_t row,
                        std::uint32_t purpose) {
  Direction x;
  for (std::uint32_t part = 0; static_cast<std::int64_t>(x.size()) < width; ++part)
    for (const float value :
         normals(random_words(key, {static_cast<std::uint32_t>(row), part, purpose, 0})))
      if (static_cast<std::int64_t>(x.size()) < width) x.push_back(static_cast<double>(value));
  return x;
}

// Of length 1, orthogonal to the others, which are likewise.
Direction orthogonal_to(const std::vector<Direction>& others, Direction x) {
  for (int pass = 0; pass < 2; ++pass)  // the second removes what rounding left
    for (const Direction& other : others) {
      const double share = dot(x, other);
      for (std::size_t i = 0; i < x.size(); ++i) x[i] -= share * other[i];
    }
  const double length = std::sqrt(dot(x, x));
  for (double& value : x) value /= length;
  return x;
}

}  // namespace

std::vector<float> random_directions(std::int64_t num, std::int64_t width, RandomKey key) {
  std::vector<float> directions;
  std::vector<Direction> block;
  for (std::int64_t row = 0; row < num; ++row) {
    if (static_cast<std::int64_t>(block.size()) == width) block.clear();
    block.push_back(orthogonal_to(block, normal_vector(width, key, row, 0)));
    const Direction other = normal_vector(width, key, row, 1);
    const double length = std::sqrt(dot(other, other));
    for (const double value : block.back())
      directions.push_back(static_cast<float>(length * value));
  }
  return directions;
}

}  // namespace switchyard
