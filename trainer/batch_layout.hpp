// How a configuration lies on the ranks: the mesh with its choices made, what each rank holds of a
// sequence, and which sequences it takes.
#pragma once

#include "data/loader.hpp"
#include "parallel/context/context_choice.hpp"
#include "parallel/context/sequence_split.hpp"
#include "trainer/config.hpp"

namespace switchyard {

// What the mesh, the heads, the length or the numbers of tokens and rows have against this number
// of ranks, with the equations.
std::vector<ConfigMistake> layout_mistakes(const Config& config, std::int64_t num_ranks);

// config.parallel with what follows for it from numerics.exact.
ParallelConfig exact_parallel(const Config& config);

// That with every 0 and "auto" replaced for this number of ranks. ConfigError with the
// layout_mistakes() if there are any.
ParallelConfig resolved_parallel(const Config& config, std::int64_t num_ranks);

// The attention of a micro-batch, for the choice of how context ranks share it.
ContextProblem context_problem(const Config& config, const ParallelConfig& parallel);

// Which positions of a sequence the context ranks hold. parallel: resolved.
SequenceSplit sequence_split_of(const Config& config, const ParallelConfig& parallel);

// The batch layout of a rank; train.micro_batch 0 is taken as all sequences of a rank. ConfigError
// if a micro-batch has more tokens, or routing may send more rows to a rank, than 32 bits number.
BatchLayout batch_layout_of(const Config& config, const Mesh& mesh);

}  // namespace switchyard
