#include "trainer/step_report.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>

namespace switchyard {

namespace {

constexpr std::size_t num_sums = sizeof(StepReport::Sums) / sizeof(double);
constexpr std::size_t num_maxima = sizeof(StepReport::Maxima) / sizeof(double);
constexpr std::size_t num_figures = sizeof(StepReport) / sizeof(double);
static_assert(num_figures == num_sums + num_maxima + 1, "a report is nothing but numbers");

using Figures = std::array<double, num_figures>;

std::array<double, num_sums> sums_of(const Figures& figures) {
  std::array<double, num_sums> sums{};
  std::copy_n(figures.begin(), num_sums, sums.begin());
  return sums;
}

std::array<double, num_maxima> maxima_of(const Figures& figures) {
  std::array<double, num_maxima> maxima{};
  std::copy_n(figures.begin() + num_sums, num_maxima, maxima.begin());
  return maxima;
}

}  // namespace

GatheredReport gather(const StepReport& mine, Group& world) {
  // Groups gather whole numbers: the bits of the figures travel as such.
  const auto bits = std::bit_cast<std::array<std::int64_t, num_figures>>(mine);
  const auto num_ranks = static_cast<std::size_t>(world.size());
  std::vector<std::int64_t> all(num_figures * num_ranks);
  world.all_gather_values(bits, all);

  std::array<double, num_sums> sums{};
  std::array<double, num_maxima> maxima{};
  GatheredReport result;
  for (std::size_t rank = 0; rank < num_ranks; ++rank) {
    std::array<std::int64_t, num_figures> theirs{};
    std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(rank * num_figures), num_figures,
                theirs.begin());
    const Figures figures = std::bit_cast<Figures>(theirs);
    const auto their_sums = sums_of(figures);
    const auto their_maxima = maxima_of(figures);
    if (rank == 0) {
      sums = their_sums;
      maxima = their_maxima;
    } else {
      for (std::size_t i = 0; i < num_sums; ++i) sums[i] += their_sums[i];
      for (std::size_t i = 0; i < num_maxima; ++i) maxima[i] = std::max(maxima[i], their_maxima[i]);
    }
    result.computed_seconds.push_back(figures.back());
  }
  result.sums = std::bit_cast<StepReport::Sums>(sums);
  result.maxima = std::bit_cast<StepReport::Maxima>(maxima);
  return result;
}

}  // namespace switchyard
