#include "bench/machine_rates.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <vector>

#include "bench/machine.hpp"
#include "kernels/threads.hpp"
#include "tensor/error.hpp"
#include "trainer/agreement.hpp"

namespace switchyard::bench {

namespace {

// A file that goes when it is closed.
class ScratchFile {
 public:
  ScratchFile(const std::string& folder, int rank)
      : path_(fmt::format("{}/.switchyard-disk-{}-{}", folder, getpid(), rank)),
        file_(open(path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
    if (file_ < 0) fail("cannot be made");
  }
  ~ScratchFile() {
    if (file_ < 0) return;
    close(file_);
    unlink(path_.c_str());
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  void write_synced(const std::vector<char>& block, int count) {
    for (int i = 0; i < count; ++i)
      for (std::size_t done = 0; done < block.size();) {
        const ssize_t written = write(file_, block.data() + done, block.size() - done);
        if (written < 0) fail("cannot be written");
        done += static_cast<std::size_t>(written);
      }
    if (fsync(file_) != 0) fail("cannot be synced");
  }
  // From the disk, as far as the system forgets what it has in memory when asked to.
  void read_back(std::vector<char>& block) {
    posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
    if (lseek(file_, 0, SEEK_SET) != 0) fail("cannot be read");
    ssize_t got = 0;
    do got = read(file_, block.data(), block.size());
    while (got > 0);
    if (got < 0) fail("cannot be read");
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw IoError(fmt::format("{}: {}: {}", path_, what, std::strerror(errno)));
  }

  std::string path_;
  int file_;
};

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

void measure_disk(Group& world, const MachineOptions& options, MachineProfile& profile) {
  options.note("disk");
  constexpr std::size_t block_bytes = 4 << 20;
  const int count = options.quick ? 4 : 64;
  std::vector<char> block(block_bytes, 'x');
  std::array<double, 2> seconds{};
  run_together(world, [&] {
    ScratchFile file(options.folder, world.rank());
    auto begin = std::chrono::steady_clock::now();
    file.write_synced(block, count);
    seconds[0] = seconds_since(begin);
    begin = std::chrono::steady_clock::now();
    file.read_back(block);
    seconds[1] = seconds_since(begin);
  });
  world.all_reduce_values(seconds, ReduceOp::max);
  const double bytes_of_host =
      static_cast<double>(block_bytes) * count * world.topology().num_local_ranks();
  profile.disk_write_bytes_per_second = bytes_of_host / seconds[0];
  profile.disk_read_bytes_per_second = bytes_of_host / seconds[1];
}

MachineProfile measure_machine(Group& world, const MachineOptions& options) {
  MachineProfile profile;
  profile.processor = processor_name();
  profile.device = DeviceKind::cpu;
  MachineSetting& setting = profile.settings.emplace_back();
  setting.ranks_per_host = world.topology().num_local_ranks();
  setting.threads = kernels::num_threads();
  measure_kernels(world, options, setting);
  measure_links(world, options, profile);
  measure_disk(world, options, profile);
  profile.not_measured.emplace_back("cards: this program measures processors");
  profile.not_measured.emplace_back(
      "power and failures: give watts_of_rank and hours_between_failures");
  return profile;
}

}  // namespace switchyard::bench
