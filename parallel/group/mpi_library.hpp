// Exchanges that the MPI library does by itself: those whose result does not depend on how it does
// them. Communicators are MPI's integer handles. Private to parallel/.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/group/group.hpp"

namespace switchyard::mpi {

class LibraryExchange final : public Event::Pending {
 public:
  static LibraryExchange broadcast(int communicator, const TensorView& whole, int root);
  // whole: a part of `part_bytes` from each rank; each at most 2^31 - 1 bytes.
  static LibraryExchange all_gather(int communicator, const TensorView& whole,
                                    std::int64_t part_bytes);
  // whole: i32 or i64; in place.
  static LibraryExchange all_reduce_integers(int communicator, const TensorView& whole,
                                             ReduceOp op);
  LibraryExchange(LibraryExchange&&) noexcept;
  ~LibraryExchange() override;

  bool test() override;
  void wait_host() override;

 private:
  struct Requests;  // of pieces, if the operand is long
  explicit LibraryExchange(std::unique_ptr<Requests> requests);

  std::unique_ptr<Requests> requests_;
};

// Blocking, on the host: whole numbers, in place.
void all_reduce_integers(int communicator, std::span<std::int64_t> values, ReduceOp op);

}  // namespace switchyard::mpi
