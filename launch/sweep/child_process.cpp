#include "launch/sweep/child_process.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr int stop_request = SIGUSR1;  // mpirun hands it on to the ranks, which save and end

// In the child: becomes the program. Only calls that are safe after fork().
[[noreturn]] void become(char* const* words, int output, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, stop_request);
  if (::getppid() != parent) ::_exit(127);  // it died before the line above
  const int input = ::open("/dev/null", O_RDONLY);
  ::dup2(input, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  ::signal(SIGPIPE, SIG_DFL);
  ::signal(SIGXFSZ, SIG_DFL);
  ::execvp(words[0], words);
  ::_exit(127);
}

pid_t start(const std::vector<std::string>& words, int output) {
  std::vector<std::string> copies = words;
  std::vector<char*> pointers;
  for (std::string& word : copies) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  const pid_t parent = ::getpid();
  const pid_t child = ::fork();
  if (child == 0) become(pointers.data(), output, parent);
  ::close(output);
  if (child < 0)
    throw IoError(fmt::format("{} cannot be started: {}", words.front(), std::strerror(errno)));
  return child;
}

int code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

int run_child(const std::vector<std::string>& words, const std::string& log,
              const std::function<bool()>& is_stopped) {
  const int output = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (output < 0)
    throw IoError(fmt::format("{}: cannot be written: {}", log, std::strerror(errno)));
  const pid_t child = start(words, output);
  bool is_told = false;
  int status = 0;
  while (::waitpid(child, &status, WNOHANG) == 0) {
    if (!is_told && is_stopped()) {
      ::kill(child, stop_request);
      is_told = true;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return code_of(status);
}

int run_child_for_text(const std::vector<std::string>& words, std::string& text) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0)
    throw IoError(fmt::format("{} cannot be started: {}", words.front(), std::strerror(errno)));
  const pid_t child = start(words, ends[1]);
  std::array<char, 4096> buffer{};
  for (;;) {
    const ssize_t count = ::read(ends[0], buffer.data(), buffer.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return code_of(status);
}

}  // namespace switchyard
