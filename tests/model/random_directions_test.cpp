#include "model/mixers/random_directions.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace switchyard::test {
namespace {

constexpr std::int64_t width = 16;
using Rows = std::vector<std::vector<double>>;

Rows rows_of(const std::vector<float>& values) {
  Rows rows;
  for (auto row = values.begin(); row != values.end(); row += width)
    rows.emplace_back(row, row + width);
  return rows;
}

double dot(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

// Mean square error of the features' e^{q.k} beside the true ones, relative to these, over pairs of
// vectors of length 1.
double error_of(const std::vector<float>& directions) {
  const Rows w = rows_of(directions);
  Rows x = rows_of(random_directions(80, width, random_key(7, "queries and keys")));
  for (std::vector<double>& each : x) {
    const double length = std::sqrt(dot(each, each));
    for (double& value : each) value /= length;
  }
  double error = 0;
  for (std::size_t i = 0; i + 1 < x.size(); i += 2) {
    double mean = 0;
    for (const std::vector<double>& each : w)
      mean += std::exp(dot(each, x[i]) + dot(each, x[i + 1]) - 1) / static_cast<double>(w.size());
    error += std::pow(mean / std::exp(dot(x[i], x[i + 1])) - 1, 2);
  }
  return error / static_cast<double>(x.size() / 2);
}

double mean_error(std::int64_t num_features, bool is_orthogonal) {
  double sum = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<float> directions;
    if (is_orthogonal) directions = random_directions(num_features, width, random_key(seed, "a"));
    // The first of many sets is as independent of the others as can be.
    for (std::uint64_t i = 0; !is_orthogonal && static_cast<std::int64_t>(i) < num_features; ++i)
      for (const float value : random_directions(1, width, random_key(1000 * seed + i, "b")))
        directions.push_back(value);
    sum += error_of(directions);
  }
  return sum / 20;
}

TEST(RandomDirections, AreOrthogonalInBlocksAndAsLongAsNormalVectors) {
  const Rows rows = rows_of(random_directions(300, width, random_key(1, "test")));
  ASSERT_EQ(rows.size(), 300u);
  double squares = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    squares += dot(rows[i], rows[i]);
    for (std::size_t j = i / width * width; j < i; ++j) EXPECT_NEAR(dot(rows[i], rows[j]), 0, 1e-5);
  }
  // Mean square length: the width, with a deviation of sqrt(2 width / 300).
  EXPECT_NEAR(squares / 300, width, 4 * std::sqrt(2.0 * width / 300));
}

TEST(RandomDirections, DependOnTheKeyAlone) {
  const auto first = random_directions(40, width, random_key(1, "test"));
  EXPECT_EQ(first, random_directions(40, width, random_key(1, "test")));
  EXPECT_NE(first, random_directions(40, width, random_key(2, "test")));
  EXPECT_NE(first, random_directions(40, width, random_key(1, "other")));
}

TEST(RandomDirections, EstimateSoftmaxBetterTheMoreAndTheMoreOrthogonalTheyAre) {
  EXPECT_LT(mean_error(64, true), mean_error(16, true) / 3);
  EXPECT_LT(mean_error(256, true), mean_error(64, true) / 3);
  EXPECT_LT(mean_error(16, true), mean_error(16, false));
  EXPECT_LT(mean_error(64, true), mean_error(64, false));
}

}  // namespace
}  // namespace switchyard::test
