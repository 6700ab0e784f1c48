// One term of an exact sum in double (kernels/sums/sums.hpp).
#pragma once

#include <cmath>
#include <limits>

#include "kernels/sums/sums.hpp"

namespace switchyard::kernels::cpu {

// Rounded to a multiple of the quantum, by adding 1.5 * 2^52 of them and taking them away again;
// NaN if it is too large or not finite.
inline double exact_term(double term, const ExactTerms& rule) {
  const double magic = 0x1.8p52 * rule.quantum;
  return std::abs(term) <= rule.most ? (term + magic) - magic
                                     : std::numeric_limits<double>::quiet_NaN();
}

}  // namespace switchyard::kernels::cpu
