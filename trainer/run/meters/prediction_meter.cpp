#include "trainer/run/meters/prediction_meter.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "tensor/error.hpp"
#include "trainer/trainer.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t num_first_steps = 2;  // a process's first steps also pay for its memory
constexpr std::size_t most_kept = 1000;      // the latest
constexpr double most_apart = 0.15;          // a share of what was foretold
constexpr double least_share = 0.05;         // of a step, for a part to be told by itself

double median_of(std::vector<double> values) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace

PredictionMeter::PredictionMeter(const Plan& plan, const Config& config, const RunMachine& machine,
                                 const RanksOfHost& ranks, Profile& profile)
    : plan_(plan), compute_(compute_dtype(config.run)), machine_(machine), parts_(profile) {
  if (!machine_.profile) return;
  try {
    setting_ = &setting_for(*machine_.profile, plan.num_ranks, ranks, false);
    predict_step(plan, compute_, *machine_.profile, *setting_);  // that it can
  } catch (const ConfigError& error) {
    setting_ = nullptr;
    machine_.why_not = error.what();
  }
}

void PredictionMeter::begin_step() {
  if (is_on()) parts_.begin_step();
}

void PredictionMeter::end_step(double seconds, const ExpertLoad& load) {
  if (!is_on()) return;
  const PartSeconds of_parts = parts_.end_step();
  for (const LayerLoad& layer : load.layers) {
    sum_of_rows_.fullest += layer.of_ranks.fullest;
    sum_of_rows_.first += layer.of_ranks.first;
  }
  num_loads_ += std::ssize(load.layers);
  if (++num_steps_ <= num_first_steps) return;
  if (seconds_.size() == most_kept) {
    seconds_.erase(seconds_.begin());
    part_seconds_.erase(part_seconds_.begin());
  }
  seconds_.push_back(seconds);
  part_seconds_.push_back(of_parts);
}

RowsOfRanks PredictionMeter::rows() const {
  if (num_loads_ == 0) return {};
  const auto count = static_cast<double>(num_loads_);
  return {sum_of_rows_.fullest / count, sum_of_rows_.first / count};
}

PredictedSteps PredictionMeter::result() const {
  PredictedSteps steps;
  if (!is_on()) {
    steps.why_not = machine_.why_not;
    return steps;
  }
  const StepPrediction predicted = predict_step(plan_, compute_, *machine_.profile, *setting_,
                                                {.extrapolate = true, .rows = rows()});
  steps.profile = machine_.profile->path;
  steps.imbalance = predicted.imbalance;
  steps.step = predicted.seconds;
  steps.parts = predicted.times.parts;
  steps.num_measured = std::ssize(seconds_);
  steps.measured_step = median_of(seconds_);
  for (std::size_t part = 0; part < num_parts; ++part) {
    std::vector<double> of_part;
    for (const PartSeconds& each : part_seconds_) of_part.push_back(each[part]);
    steps.measured_parts[part] = median_of(std::move(of_part));
  }
  return steps;
}

std::string parting_text(const PredictedSteps& steps) {
  if (steps.num_measured == 0 || !(steps.step > 0)) return {};
  const double ratio = steps.measured_step / steps.step;
  if (std::abs(ratio - 1) <= most_apart) return {};
  std::vector<std::string> parts;
  for (std::size_t part = 0; part < num_parts; ++part) {
    const double foretold = steps.parts[part], measured = steps.measured_parts[part];
    if (std::max(foretold / steps.step, measured / steps.measured_step) < least_share) continue;
    if (foretold > 0 && std::abs(measured / foretold - 1) > most_apart)
      parts.push_back(
          fmt::format("{} {:.2f}", name_of(static_cast<Part>(part)), measured / foretold));
  }
  return fmt::format("the steps took {:.2f} times the foretold {:.3g} s{}", ratio, steps.step,
                     parts.empty() ? "" : fmt::format(" ({})", fmt::join(parts, ", ")));
}

}  // namespace switchyard
