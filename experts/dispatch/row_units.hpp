// The units of exact mode (kernels/gradient_sum.hpp) among the rows that reach a rank's experts. A
// unit is a run of tokens of one rank. An expert's rows lie in the order of token identity, so
// those of a unit are neighbours: how many each rank sends of each unit, and the order of the
// units, say where they begin.
#pragma once

#include <cstdint>
#include <vector>

#include "experts/dispatch/dispatcher.hpp"
#include "parallel/context/sequence_split.hpp"

namespace switchyard {

// Of a micro-batch of num_sequences a rank, on the ranks that share experts. unit_rows: tokens of a
// unit; 0 gives no units.
RowUnits row_units_of(const Mesh& mesh, const SequenceSplit& split, std::int64_t num_sequences,
                      std::int64_t unit_rows);

}  // namespace switchyard
