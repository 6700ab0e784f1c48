// Random numbers of a token on the CPU; the counters are those of dropout_counter.hpp.
#pragma once

#include <array>

#include "kernels/rows/dropout_counter.hpp"
#include "kernels/rows/elementwise.hpp"

namespace switchyard::kernels::cpu {

// Who the rows of a tensor are: row r is copy r % copies of token r / copies.
class TokenCounters {
 public:
  // rows: those of the tensor, `cols` numbers each. InternalError unless every identity fits.
  TokenCounters(const DropoutSite& site, const TensorView& sequence_ids, std::int64_t cols);

  // The numbers 4 group ... 4 group + 3 of a row.
  std::array<std::uint32_t, 4> words(std::int64_t row, std::int64_t group) const;

 private:
  DropoutSite site_;
  const std::int64_t* ids_;
  const std::int32_t* positions_;
};

}  // namespace switchyard::kernels::cpu
