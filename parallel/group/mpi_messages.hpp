// The point-to-point messages of one exchange, all posted at once and completed together. Long
// operands are cut into pieces of at most `piece_bytes`, so that no count reaches MPI's 31 bits and
// a poll is never busy for long. Messages between two ranks under one tag arrive in the order of
// posting; a tag belongs to one exchange of a communicator.
//
// The memory belongs to the caller and stays untouched until the messages are complete.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace switchyard::mpi {

class Messages {
 public:
  static constexpr std::int64_t piece_bytes = 1 << 20;

  // communicator: MPI's integer handle.
  Messages(int communicator, int tag);
  Messages(Messages&&) noexcept;
  Messages& operator=(Messages&&) noexcept;
  ~Messages();  // does not wait

  // Nothing is posted for no bytes; the other side knows the count, too.
  void receive(int from, std::byte* data, std::int64_t bytes);
  void send(int to, const std::byte* data, std::int64_t bytes);

  // Completes what has arrived; true once everything has. IoError, or InternalError if the other
  // side sent another count.
  bool test();
  void wait();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard::mpi
