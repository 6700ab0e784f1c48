// Fixed point on the CPU (kernels/gradient_sum.hpp).
#pragma once

#include "kernels/gradient_sum.hpp"

namespace switchyard::kernels::cpu {

// How terms become whole numbers: times `scale`, rounded to nearest, ties to even. Larger ones than
// `most`, after scaling, and those that are not finite add nothing.
struct FixedScale {
  // num_terms: in which a unit is added.
  FixedScale(const ExactSum& exact, std::int64_t num_terms);
  double scale;
  double most;
};

// sums[i] += terms[i] as a whole number; whether all terms could be added.
[[nodiscard]] bool add_fixed(const float* terms, std::int64_t n, const FixedScale& rule,
                             std::int64_t* sums);
[[nodiscard]] bool add_fixed(const BFloat16* terms, std::int64_t n, const FixedScale& rule,
                             std::int64_t* sums);
// The same for one term in double.
[[nodiscard]] bool add_fixed(double term, const FixedScale& rule, std::int64_t& sum);
// sums[i] += terms[i]
void add_whole(const std::int64_t* terms, std::int64_t n, std::int64_t* sums);

// values[i] = the f32 next to sums[i] 2^-fraction_bits.
void from_fixed(const std::int64_t* sums, std::int64_t n, int fraction_bits, float* values);

// By any thread.
void tell_overflow(const ExactSum& exact);

}  // namespace switchyard::kernels::cpu
