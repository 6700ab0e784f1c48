#include "parallel/group/mpi_call.hpp"

#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <array>
#include <string>

#include "tensor/error.hpp"

namespace switchyard::mpi {

namespace {

std::string text_of(int code) {
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  if (MPI_Error_string(code, text.data(), &length) != MPI_SUCCESS)
    return fmt::format("code {}", code);
  return {text.data(), static_cast<std::size_t>(length)};
}

std::string host_name() {
  std::array<char, MPI_MAX_PROCESSOR_NAME> name{};
  int length = 0;
  if (MPI_Get_processor_name(name.data(), &length) != MPI_SUCCESS) return "unknown host";
  return {name.data(), static_cast<std::size_t>(length)};
}

// Classes that say that the call was wrong, whatever the state of the network.
bool is_wrong_call(int code) {
  int error_class = MPI_ERR_OTHER;
  MPI_Error_class(code, &error_class);
  constexpr std::array wrong = {MPI_ERR_ARG,  MPI_ERR_BUFFER, MPI_ERR_COMM,    MPI_ERR_COUNT,
                                MPI_ERR_OP,   MPI_ERR_RANK,   MPI_ERR_ROOT,    MPI_ERR_TAG,
                                MPI_ERR_TYPE, MPI_ERR_GROUP,  MPI_ERR_TRUNCATE};
  return std::find(wrong.begin(), wrong.end(), error_class) != wrong.end();
}

}  // namespace

void check(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  int rank = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  const std::string message =
      fmt::format("{} failed on rank {} ({}): {}", call, rank, host_name(), text_of(code));
  if (is_wrong_call(code)) throw InternalError(message);
  throw IoError(message);
}

bool threads_may_take_turns() {
  int running = 0;
  check(MPI_Initialized(&running), "MPI_Initialized");
  if (running == 0) return true;
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Query_thread(&provided), "MPI_Query_thread");
  return provided >= MPI_THREAD_SERIALIZED;
}

}  // namespace switchyard::mpi
