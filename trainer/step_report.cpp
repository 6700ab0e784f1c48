#include "trainer/step_report.hpp"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/host_copy.hpp"
#include "kernels/rows/elementwise.hpp"
#include "model/transformer.hpp"

namespace switchyard {

namespace {

// A rank's numbers as they lie in its row, and what all rows come to.
struct Row {
  GatheredReport::Sums sums;
  StepMaxima maxima;
  double computed_seconds = 0;
};
// Those of the host follow those that kernels write.
constexpr std::int64_t num_written_by_kernels = kernels::num_update_figures;
constexpr std::int64_t num_sums = sizeof(GatheredReport::Sums) / sizeof(double);
constexpr std::int64_t num_figures = sizeof(Row) / sizeof(double);
static_assert(num_written_by_kernels + 1 == num_sums &&
                  sizeof(HostFigures) == sizeof(double) * (num_figures - num_written_by_kernels),
              "a report is nothing but numbers, of which the host's are the last");
constexpr std::int64_t num_outcomes = 2;  // loss and norm

Row row_at(std::span<const double> figures, std::int64_t begin) {
  std::array<double, num_figures> numbers{};
  std::copy_n(figures.begin() + begin, num_figures, numbers.begin());
  return std::bit_cast<Row>(numbers);
}

}  // namespace

StepReport::StepReport(Device& device, Group& world)
    : world_(world),
      own_(world.rank() * num_figures),
      totals_(world.size() * num_figures),
      figures_(device, Purpose::communication, DType::f64, {totals_ + num_figures + num_outcomes}),
      decision_(device, Purpose::communication, DType::f32, {2}) {}

void StepReport::begin() {
  kernels::fill_zero(figures_->slice_rows(own_, own_ + num_written_by_kernels));
}

void StepReport::exchange(const HostFigures& mine, const kernels::UpdateRule& rule) {
  const auto of_host =
      std::bit_cast<std::array<double, num_figures - num_written_by_kernels>>(mine);
  kernels::write_figures(of_host,
                         figures_->slice_rows(own_ + num_written_by_kernels, own_ + num_figures));
  loss_scale_ = rule.loss_scale;
  const TensorView by_rank = figures_->slice_rows(0, totals_);
  {
    const Profile::ControlScope control(figures_->device->profile());
    world_.all_gather(by_rank);
  }
  const TensorView totals = figures_->slice_rows(totals_, totals_ + num_figures);
  kernels::combine_figures(by_rank.reshape({world_.size(), num_figures}), num_sums, totals);
  kernels::decide_update(
      totals.slice_rows(0, num_written_by_kernels), rule,
      figures_->slice_rows(totals_ + num_figures, totals_ + num_figures + num_outcomes), decision_);
}

GatheredReport StepReport::read() const {
  std::vector<double> figures(static_cast<std::size_t>(figures_->numel()));
  kernels::copy_to_host<double>(figures_, figures);
  const Row totals = row_at(figures, totals_);
  GatheredReport report;
  report.sums = totals.sums;
  report.sums.cross_entropy *= loss_scale_[0];
  report.sums.balance *= loss_scale_[1];
  report.sums.z *= loss_scale_[2];
  report.maxima = totals.maxima;
  const auto outcome = figures.end() - num_outcomes;
  report.loss = outcome[0];
  report.gradient_norm = outcome[1];
  for (std::int64_t begin = 0; begin < totals_; begin += num_figures)
    report.computed_seconds.push_back(row_at(figures, begin).computed_seconds);
  return report;
}

}  // namespace switchyard
