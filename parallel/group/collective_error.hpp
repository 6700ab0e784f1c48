// Errors that every rank of the job throws at the same point, with the same message: a bad
// configuration that rank 0 read for all, a phase whose outcome the ranks have exchanged. Such an
// error needs one report (rank 0's), and the ranks leave in order. Any other error is of one rank
// alone, and that rank has to end the job.
#pragma once

#include "tensor/error.hpp"

namespace switchyard {

// What main() looks for, whatever the class of the error.
class KnownToAllRanks {
 public:
  virtual ~KnownToAllRanks() = default;
};

// throw Collective<ConfigError>(message), on all ranks; catch (const ConfigError&) works as ever.
template <class SomeError>
class Collective final : public SomeError, public KnownToAllRanks {
 public:
  using SomeError::SomeError;
};

}  // namespace switchyard
