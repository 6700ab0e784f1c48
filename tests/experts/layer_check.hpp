// A layer's run against the dense oracle: outputs, losses, counts and every gradient, on every
// expert degree that divides the ranks.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/experts/layer_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {

// Relative, by the norm of a whole tensor (layer_check.cpp derives bf16's).
double tolerance(DType dtype);

std::vector<std::int64_t> expert_degrees();
ParallelConfig layout(std::int64_t expert_degree);

// `values` of this rank against its rows of the oracle's [rows, cols].
double error_of(const TensorView& values, const Doubles& whole, std::int64_t first_row);
void expect_losses(const LayerRun& run, const ReferenceMoe::Forward& expected);
void expect_as_oracle(LayerRun& run, const LayerRun::Batch& batch, const LayerCase& c,
                      const Problem& problem);
// Runs a case on all layouts; what the tokens get back must not even differ in a bit.
void check_case(const LayerCase& c);

inline constexpr Routing routings[] = {Routing::natural, Routing::all_to_last_expert,
                                       Routing::none_to_first_expert};

}  // namespace switchyard::test
