// What follows from L(N, D): the compute-optimal frontier, the efficiency leverage of experts over
// dense models, and the best learning rates and batches of groups of runs.
#pragma once

#include <string>
#include <vector>

#include "launch/fit/law_fit.hpp"

namespace switchyard {

// The size and tokens of least loss at each compute C = 6 N D:
//     N = G (C/6)^(beta / (alpha+beta)),  D = (C/6) / N,  G = (alpha A / (beta B))^(1/(alpha+beta))
//     L = E + F (C/6)^(-alpha beta / (alpha+beta)),  F = A G^-alpha + B G^beta
// (Hoffmann et al. 2022, equation 4).
class Frontier {
 public:
  // fit: of size_and_tokens_law().
  explicit Frontier(const LawParameters& fit);

  double size(double compute) const;
  double tokens(double compute) const { return compute / 6 / size(compute); }
  double loss(double compute) const;
  // The compute at which the frontier reaches a loss; infinity if it never does.
  double compute(double loss) const;
  double size_exponent() const { return beta_ / (alpha_ + beta_); }  // N ~ C^a

 private:
  double irreducible_, alpha_, beta_, balance_, factor_;
};

// For each run with experts: EL, the compute at which dense models on their frontier reach its
// loss, over its own (Tian et al. 2025). A point's `loss` is the EL. Runs at or below the dense
// law's irreducible loss are left out: no dense compute reaches them.
std::vector<FitPoint> leverages(const Frontier& dense, const std::vector<FitPoint>& runs);

enum class Tuned : std::uint8_t { learning_rate, batch };

// The best value in each group of runs that differ in it alone (for the batch: and in the learning
// rate, of which the best counts): the lowest point of the parabola in ln value through the best
// run and its neighbours. A point's `loss` is that value. Groups of which the best is the first or
// the last are told in `notes`.
std::vector<FitPoint> best_values(Tuned tuned, const std::vector<FitPoint>& runs,
                                  std::vector<std::string>& notes);

}  // namespace switchyard
