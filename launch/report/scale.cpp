#include "launch/report/scale.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>

namespace switchyard::report {
namespace {

constexpr double most_marks = 6;

std::vector<double> even_marks(double least, double most) {
  const double rough = (most - least) / most_marks;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  std::vector<double> marks;
  for (const double factor : {1.0, 2.0, 5.0, 10.0, 20.0}) {
    const double step = power * factor;
    marks.clear();
    const auto first = static_cast<std::int64_t>(std::ceil(least / step - 1e-9));
    const auto last = static_cast<std::int64_t>(std::floor(most / step + 1e-9));
    for (std::int64_t number = first; number <= last && number - first <= most_marks; ++number)
      marks.push_back(static_cast<double>(number) * step);
    if (static_cast<double>(marks.size()) <= most_marks) break;
  }
  return marks;
}

// Powers of ten, with their doubles and halves where there is room; in a range that is too narrow
// for two of these, even marks.
std::vector<double> logarithmic_marks(double least, double most) {
  const auto first = static_cast<int>(std::floor(std::log10(least)));
  const auto last = static_cast<int>(std::ceil(std::log10(most)));
  std::vector<double> powers, all;
  for (int power = first; power <= last; ++power)
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double mark = factor * std::pow(10.0, power);
      if (mark < least || mark > most) continue;
      all.push_back(mark);
      if (factor == 1) powers.push_back(mark);
    }
  if (all.size() < 2) return even_marks(least, most);
  if (static_cast<double>(all.size()) <= most_marks) return all;
  const auto stride =
      static_cast<std::size_t>(std::ceil(static_cast<double>(powers.size()) / most_marks));
  std::vector<double> marks;
  for (std::size_t i = 0; i < powers.size(); i += stride) marks.push_back(powers[i]);
  return marks;
}

}  // namespace

Scale::Scale(const std::vector<double>& values, bool logarithmic, bool from_zero, double first,
             double last)
    : logarithmic_(logarithmic), first_(first), last_(last) {
  least_ = std::numeric_limits<double>::infinity();
  most_ = -least_;
  for (const double value : values) {
    if (!takes(value)) continue;
    least_ = std::min(least_, value);
    most_ = std::max(most_, value);
  }
  if (least_ > most_) {
    least_ = logarithmic ? 1 : 0;
    most_ = logarithmic ? 10 : 1;
  }
  if (from_zero && !logarithmic) {
    least_ = std::min(least_, 0.0);
    most_ = std::max(most_, 0.0);
  }
  if (logarithmic) {
    const double room = std::max(std::pow(most_ / least_, 0.03), 1.02);
    least_ /= room;
    most_ *= room;
    marks_ = logarithmic_marks(least_, most_);
    return;
  }
  if (!(most_ - least_ > 1e-9 * std::max(std::abs(most_), std::abs(least_)))) {
    const double room = most_ == 0 ? 1 : std::abs(most_) * 0.1;
    least_ -= from_zero && least_ >= 0 ? 0 : room;
    most_ += room;
  }
  const double room = 0.03 * (most_ - least_);
  if (!from_zero || least_ < 0) least_ -= room;
  most_ += room;
  marks_ = even_marks(least_, most_);
}

void Scale::keep_whole_marks() {
  std::erase_if(marks_, [](double mark) { return std::abs(mark - std::round(mark)) > 1e-9; });
}

bool Scale::takes(double value) const {
  return std::isfinite(value) && (!logarithmic_ || value > 0);
}

double Scale::mapped(double value) const {
  return logarithmic_ ? std::log(value / least_) / std::log(most_ / least_)
                      : (value - least_) / (most_ - least_);
}

double Scale::place(double value) const {
  return first_ + (last_ - first_) * mapped(value);
}

std::string mark_text(double value) {
  const double size = std::abs(value);
  if (size == 0) return "0";
  if (size < 1e-3 || size >= 1e21) return fmt::format("{:.3g}", value);
  if (size < 1e4) return fmt::format("{:.5g}", value);
  constexpr std::array<std::string_view, 7> letters = {"", "k", "M", "G", "T", "P", "E"};
  const auto thousands = static_cast<std::size_t>(std::log10(size * (1 + 1e-9)) / 3);
  return fmt::format("{:.4g}{}", value / std::pow(1000.0, static_cast<double>(thousands)),
                     letters[thousands]);
}

}  // namespace switchyard::report
