#include "parallel/group/mpi_messages.hpp"

#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <vector>

#include "parallel/group/mpi_call.hpp"
#include "tensor/error.hpp"

namespace switchyard::mpi {

struct Messages::State {
  MPI_Comm communicator = MPI_COMM_NULL;
  int tag = 0;
  std::vector<MPI_Request> requests;
  std::vector<int> expected;  // bytes of a receive; -1 for a send
  std::vector<MPI_Status> statuses;

  void check_completed(int code, std::string_view call) const;
};

// MPI checks that a message is not longer than its receive; that it is not shorter is up to us.
void Messages::State::check_completed(int code, std::string_view call) const {
  if (code == MPI_ERR_IN_STATUS) {
    for (const MPI_Status& status : statuses)
      if (status.MPI_ERROR != MPI_SUCCESS && status.MPI_ERROR != MPI_ERR_PENDING)
        check(status.MPI_ERROR, call);
  }
  check(code, call);
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (expected[i] < 0) continue;
    int received = 0;
    check(MPI_Get_count(&statuses[i], MPI_BYTE, &received), "MPI_Get_count");
    if (received != expected[i])
      throw InternalError(fmt::format("rank {} of the group sent {} bytes where {} were expected",
                                      statuses[i].MPI_SOURCE, received, expected[i]));
  }
}

Messages::Messages(int communicator, int tag) : state_(std::make_unique<State>()) {
  state_->communicator = MPI_Comm_f2c(communicator);
  state_->tag = tag;
}
Messages::Messages(Messages&&) noexcept = default;
Messages& Messages::operator=(Messages&&) noexcept = default;
Messages::~Messages() = default;

void Messages::receive(int from, std::byte* data, std::int64_t bytes) {
  for (std::int64_t begin = 0; begin < bytes; begin += piece_bytes) {
    const int count = static_cast<int>(std::min(piece_bytes, bytes - begin));
    MPI_Request request = MPI_REQUEST_NULL;
    check(
        MPI_Irecv(data + begin, count, MPI_BYTE, from, state_->tag, state_->communicator, &request),
        "MPI_Irecv");
    state_->requests.push_back(request);
    state_->expected.push_back(count);
  }
}

void Messages::send(int to, const std::byte* data, std::int64_t bytes) {
  for (std::int64_t begin = 0; begin < bytes; begin += piece_bytes) {
    const int count = static_cast<int>(std::min(piece_bytes, bytes - begin));
    MPI_Request request = MPI_REQUEST_NULL;
    check(MPI_Isend(data + begin, count, MPI_BYTE, to, state_->tag, state_->communicator, &request),
          "MPI_Isend");
    state_->requests.push_back(request);
    state_->expected.push_back(-1);
  }
}

bool Messages::test() {
  State& state = *state_;
  if (state.requests.empty()) return true;
  state.statuses.resize(state.requests.size());
  int done = 0;
  const int code = MPI_Testall(static_cast<int>(state.requests.size()), state.requests.data(),
                               &done, state.statuses.data());
  if (code == MPI_SUCCESS && done == 0) return false;
  state.check_completed(code, "MPI_Testall");
  state.requests.clear();
  state.expected.clear();
  return true;
}

void Messages::wait() {
  State& state = *state_;
  if (state.requests.empty()) return;
  state.statuses.resize(state.requests.size());
  const int code = MPI_Waitall(static_cast<int>(state.requests.size()), state.requests.data(),
                               state.statuses.data());
  state.check_completed(code, "MPI_Waitall");
  state.requests.clear();
  state.expected.clear();
}

}  // namespace switchyard::mpi
