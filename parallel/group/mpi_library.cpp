#include "parallel/group/mpi_library.hpp"

#include <mpi.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "parallel/group/mpi_call.hpp"
#include "tensor/error.hpp"

namespace switchyard::mpi {

namespace {

constexpr std::int64_t piece_bytes = 1 << 30;

MPI_Op operation_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return MPI_SUM;
    case ReduceOp::max:
      return MPI_MAX;
    case ReduceOp::min:
      return MPI_MIN;
  }
  return MPI_OP_NULL;
}

}  // namespace

struct LibraryExchange::Requests {
  MPI_Request& next() { return list.emplace_back(MPI_REQUEST_NULL); }
  std::vector<MPI_Request> list;
};

LibraryExchange::LibraryExchange(std::unique_ptr<Requests> requests)
    : requests_(std::move(requests)) {}
LibraryExchange::LibraryExchange(LibraryExchange&&) noexcept = default;
LibraryExchange::~LibraryExchange() = default;

LibraryExchange LibraryExchange::broadcast(int communicator, const TensorView& whole, int root) {
  auto requests = std::make_unique<Requests>();
  const std::int64_t bytes = whole.num_bytes();
  for (std::int64_t begin = 0; begin < bytes; begin += piece_bytes)
    check(MPI_Ibcast(whole.host_bytes() + begin,
                     static_cast<int>(std::min(piece_bytes, bytes - begin)), MPI_BYTE, root,
                     MPI_Comm_f2c(communicator), &requests->next()),
          "MPI_Ibcast");
  return LibraryExchange(std::move(requests));
}

LibraryExchange LibraryExchange::all_gather(int communicator, const TensorView& whole,
                                            std::int64_t part_bytes) {
  expect(part_bytes <= std::numeric_limits<int>::max(), "parts of fewer than 2^31 bytes");
  auto requests = std::make_unique<Requests>();
  check(MPI_Iallgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, whole.host_bytes(),
                       static_cast<int>(part_bytes), MPI_BYTE, MPI_Comm_f2c(communicator),
                       &requests->next()),
        "MPI_Iallgather");
  return LibraryExchange(std::move(requests));
}

LibraryExchange LibraryExchange::all_reduce_integers(int communicator, const TensorView& whole,
                                                     ReduceOp op) {
  expect(whole.dtype == DType::i32 || whole.dtype == DType::i64, "whole numbers");
  auto requests = std::make_unique<Requests>();
  const std::int64_t size = size_of(whole.dtype);
  const MPI_Datatype type = whole.dtype == DType::i32 ? MPI_INT32_T : MPI_INT64_T;
  const std::int64_t bytes = whole.num_bytes();
  for (std::int64_t begin = 0; begin < bytes; begin += piece_bytes)
    check(MPI_Iallreduce(MPI_IN_PLACE, whole.host_bytes() + begin,
                         static_cast<int>(std::min(piece_bytes, bytes - begin) / size), type,
                         operation_of(op), MPI_Comm_f2c(communicator), &requests->next()),
          "MPI_Iallreduce");
  return LibraryExchange(std::move(requests));
}

bool LibraryExchange::test() {
  int done = 0;
  std::vector<MPI_Request>& list = requests_->list;
  check(MPI_Testall(static_cast<int>(list.size()), list.data(), &done, MPI_STATUSES_IGNORE),
        "MPI_Testall");
  return done != 0;
}

void LibraryExchange::wait_host() {
  std::vector<MPI_Request>& list = requests_->list;
  check(MPI_Waitall(static_cast<int>(list.size()), list.data(), MPI_STATUSES_IGNORE),
        "MPI_Waitall");
}

void all_reduce_integers(int communicator, std::span<std::int64_t> values, ReduceOp op) {
  expect(std::ssize(values) <= std::numeric_limits<int>::max(), "fewer than 2^31 host values");
  check(MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_INT64_T,
                      operation_of(op), MPI_Comm_f2c(communicator)),
        "MPI_Allreduce");
}

}  // namespace switchyard::mpi
