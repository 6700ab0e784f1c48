#include "kernels/rows/rope.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/check.hpp"
#include "kernels/cpu/rows/rope.hpp"
#include "kernels/cuda/rows/rope.hpp"
#include "kernels/dispatch.hpp"
#include "kernels/host_copy.hpp"
#include "kernels/plan/loops.hpp"

namespace switchyard::kernels {

namespace {

double fraction(std::int64_t a, std::int64_t b) {
  return static_cast<double>(a) / static_cast<double>(b);
}

// The index i, as a real number, whose pair turns `turns` times over original_length positions.
double index_of_turns(const RopeSpec& spec, std::int64_t head_dim, double turns) {
  const double wavelength = static_cast<double>(spec.original_length) / turns;
  return static_cast<double>(head_dim) * std::log(wavelength / (2 * std::numbers::pi)) /
         (2 * std::log(spec.base));
}

// 1 where a frequency stays, 0 where it is divided by the factor, for each i.
std::vector<double> kept_shares(const RopeSpec& spec, std::int64_t head_dim) {
  const double last = static_cast<double>(head_dim - 1);
  double low = index_of_turns(spec, head_dim, spec.beta_fast);
  double high = index_of_turns(spec, head_dim, spec.beta_slow);
  if (spec.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(0.0, low);
  high = std::min(last, high);
  const double width = high > low ? high - low : 0.001;  // a step rather than a division by 0
  std::vector<double> shares;
  for (std::int64_t i = 0; i < head_dim / 2; ++i)
    shares.push_back(1 - std::clamp((static_cast<double>(i) - low) / width, 0.0, 1.0));
  return shares;
}

// The same of llama3.
std::vector<double> kept_shares_by_turns(const RopeSpec& spec, const std::vector<double>& plain) {
  expect(spec.beta_fast > spec.beta_slow, "beta_fast above beta_slow");
  std::vector<double> shares;
  for (const double frequency : plain) {
    const double turns =
        static_cast<double>(spec.original_length) * frequency / (2 * std::numbers::pi);
    shares.push_back(
        std::clamp((turns - spec.beta_slow) / (spec.beta_fast - spec.beta_slow), 0.0, 1.0));
  }
  return shares;
}

double base_of(const RopeSpec& spec, std::int64_t head_dim) {
  if (spec.scaling != RopeScaling::ntk) return spec.base;
  expect(head_dim > 2, "a head_dim above 2 for ntk");
  return spec.base * std::pow(spec.factor, fraction(head_dim, head_dim - 2));
}

// turns: [n, 2, D / 2]; row p: magnitude * cos, then sin, of p * step * frequencies[i].
void fill_turns(std::span<float> turns, const std::vector<double>& frequencies, double step,
                double magnitude) {
  const std::size_t half = frequencies.size();
  for (std::size_t row = 0; row < turns.size() / (2 * half); ++row)
    for (std::size_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(row) * step * frequencies[i];
      turns[row * 2 * half + i] = static_cast<float>(magnitude * std::cos(angle));
      turns[row * 2 * half + half + i] = static_cast<float>(magnitude * std::sin(angle));
    }
}

}  // namespace

std::vector<double> rope_frequencies(const RopeSpec& spec, std::int64_t head_dim) {
  expect(spec.base > 0 && spec.factor >= 1, "a positive base and a factor of at least 1");
  std::vector<double> frequencies;
  for (std::int64_t i = 0; i < head_dim / 2; ++i)
    frequencies.push_back(std::pow(base_of(spec, head_dim), -2 * fraction(i, head_dim)));
  if (spec.scaling == RopeScaling::linear)
    for (double& frequency : frequencies) frequency /= spec.factor;
  if (spec.scaling == RopeScaling::yarn || spec.scaling == RopeScaling::llama3) {
    expect(spec.original_length > 0, "the original length for yarn and llama3");
    const std::vector<double> kept = spec.scaling == RopeScaling::yarn
                                         ? kept_shares(spec, head_dim)
                                         : kept_shares_by_turns(spec, frequencies);
    for (std::size_t i = 0; i < kept.size(); ++i)
      frequencies[i] *= kept[i] + (1 - kept[i]) / spec.factor;
  }
  return frequencies;
}

double yarn_magnitude(double factor, double mscale) {
  return 0.1 * mscale * std::log(factor) + 1;
}

double rope_magnitude(const RopeSpec& spec) {
  if (spec.scaling != RopeScaling::yarn) return 1;
  if (spec.mscale == 0 || spec.mscale_all_dim == 0) return yarn_magnitude(spec.factor, 1);
  return yarn_magnitude(spec.factor, spec.mscale) /
         yarn_magnitude(spec.factor, spec.mscale_all_dim);
}

RopeTable::RopeTable(Device& device, std::int64_t positions, std::int64_t head_dim,
                     const RopeSpec& spec)
    : num_positions(positions),
      coarse(device, Purpose::workspace, DType::f32,
             {(positions + fine_positions - 1) / fine_positions, 2, head_dim / 2}),
      fine(device, Purpose::workspace, DType::f32, {fine_positions, 2, head_dim / 2}) {
  expect(head_dim > 0 && head_dim % 2 == 0, "an even head_dim");
  const std::vector<double> frequencies = rope_frequencies(spec, head_dim);
  write_from_host<float>(coarse, [&](std::span<float> turns) {
    fill_turns(turns, frequencies, static_cast<double>(fine_positions), 1);
  });
  write_from_host<float>(fine, [&](std::span<float> turns) {
    fill_turns(turns, frequencies, 1, rope_magnitude(spec));
  });
}

void rope(const TensorView& x, const RopeTable& table, const TensorView& positions,
          std::int64_t head_dim, Rotation rotation) {
  if (x.empty()) return;
  expect(is_float(x.dtype), "x of type f32 or bf16");
  expect(head_dim > 0 && head_dim % 2 == 0 && x.cols() % head_dim == 0, "whole heads of even size");
  expect(table.fine->cols() == head_dim, "a rope table for this head_dim");
  expect_vector(positions, DType::i32, x.rows(), "positions: i32 [rows]");
  dispatch(
      *x.device, [&] { cpu::rope(x, table, positions, head_dim, rotation); },
      [&] { plan::rope(x); }, [&] { cuda::rope(x, table, positions, head_dim, rotation); });
}

}  // namespace switchyard::kernels
