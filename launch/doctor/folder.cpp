// What a run asks of the folder that it writes to: seen by all hosts, fast enough, locks that hold,
// renames that all see. The first rank of each host works; a failure is a finding, no exception.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/file.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "data/files/atomic_file.hpp"
#include "launch/doctor/doctor.hpp"
#include "tensor/error.hpp"

namespace switchyard::doctor {

namespace {

constexpr std::size_t block_bytes = 8 << 20;
constexpr std::int64_t most_bytes = 256 << 20;
constexpr double seconds_to_write = 1.0;
constexpr double slow_disk = 100e6;  // bytes a second

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

[[noreturn]] void throw_errno(const std::string& call, const std::string& path) {
  throw IoError(fmt::format("{} {}: {}", call, path, std::strerror(errno)));
}

// A scratch file with a descriptor; goes with the object.
class Scratch {
 public:
  Scratch(std::string path, int flags) : path_(std::move(path)) {
    file_ = ::open(path_.c_str(), flags | O_CLOEXEC, 0600);
    if (file_ < 0) throw_errno("open", path_);
    is_ours_ = (flags & O_CREAT) != 0;
  }
  ~Scratch() {
    ::close(file_);
    if (is_ours_) ::unlink(path_.c_str());
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  int file() const { return file_; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
  int file_ = -1;
  bool is_ours_ = false;
};

// "" or what went wrong.
std::string attempt(const std::function<void()>& action) {
  try {
    action();
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

std::string file_system_of(const std::string& folder) {
  struct statfs info {};
  if (statfs(folder.c_str(), &info) != 0) return "unknown file system";
  switch (static_cast<std::uint32_t>(info.f_type)) {
    case 0xEF53:
      return "ext4";
    case 0x58465342:
      return "xfs";
    case 0x9123683E:
      return "btrfs";
    case 0x01021994:
      return "tmpfs";
    case 0x794C7630:
      return "overlay";
    case 0x6969:
      return "nfs";
    case 0x0BD00BD0:
      return "lustre";
    case 0x47504653:
      return "gpfs";
    case 0x19830326:
      return "beegfs";
    case 0x00C36400:
      return "ceph";
    case 0xFF534D42:
      return "cifs";
    case 0x65735546:
      return "fuse";
    case 0x01021997:
      return "9p";
    default:
      return fmt::format("file system {:#x}", static_cast<std::uint32_t>(info.f_type));
  }
}

std::int64_t free_bytes(const std::string& folder) {
  struct statvfs info {};
  return statvfs(folder.c_str(), &info) == 0
             ? static_cast<std::int64_t>(info.f_bavail) * static_cast<std::int64_t>(info.f_frsize)
             : 0;
}

// What a host's first rank found; `problem` is empty when all went well.
struct Speed {
  double write = 0;
  double read = 0;
};

Speed measure_speed(const std::string& path, std::int64_t room) {
  const Scratch scratch(path, O_RDWR | O_CREAT | O_TRUNC);
  // Bytes that no file system compresses away.
  std::vector<std::uint64_t> block(block_bytes / sizeof(std::uint64_t));
  std::uint64_t state = 0x9E3779B97F4A7C15ull;
  for (std::uint64_t& word : block)
    word = state = state * 6364136223846793005ull + 1442695040888963407ull;

  const std::int64_t limit = std::min(most_bytes, room / 4);
  std::int64_t bytes = 0;
  const double start = now();
  do {
    const ssize_t count = ::write(scratch.file(), block.data(), block_bytes);
    if (count <= 0) throw_errno("write", path);
    bytes += count;
  } while (bytes < limit && now() - start < seconds_to_write);
  if (::fsync(scratch.file()) != 0) throw_errno("fsync", path);
  Speed speed{.write = static_cast<double>(bytes) / (now() - start)};

  // What is on the disk need not stay in memory; then reading it costs what it costs.
  ::posix_fadvise(scratch.file(), 0, 0, POSIX_FADV_DONTNEED);
  if (::lseek(scratch.file(), 0, SEEK_SET) != 0) throw_errno("lseek", path);
  const double read_start = now();
  std::int64_t bytes_read = 0;
  for (;;) {
    const ssize_t count = ::read(scratch.file(), block.data(), block_bytes);
    if (count < 0) throw_errno("read", path);
    if (count == 0) break;
    bytes_read += count;
  }
  if (bytes_read != bytes)
    throw IoError(fmt::format("{}: wrote {} bytes, read {}", path, bytes, bytes_read));
  speed.read = static_cast<double>(bytes_read) / (now() - read_start);
  return speed;
}

enum class Lock : std::uint8_t { taken, held, unsupported };

// The two kinds that are in use: the run folder's and HDF5's.
Lock try_record_lock(int file) {
  struct flock request {};
  request.l_type = F_WRLCK;
  request.l_whence = SEEK_SET;
  if (::fcntl(file, F_OFD_SETLK, &request) == 0) return Lock::taken;
  return errno == EAGAIN || errno == EACCES ? Lock::held : Lock::unsupported;
}
Lock try_file_lock(int file) {
  if (::flock(file, LOCK_EX | LOCK_NB) == 0) return Lock::taken;
  return errno == EWOULDBLOCK ? Lock::held : Lock::unsupported;
}

class FolderCheck {
 public:
  FolderCheck(Group& world, const std::string& folder, Diagnosis& diagnosis)
      : world_(world),
        folder_(folder),
        diagnosis_(diagnosis),
        leaders_(first_ranks(world.topology())),
        is_leader_(world.topology().local_rank() == 0) {
    stem_ = fmt::format("{}/.switchyard-doctor-{}", folder, ::getpid());
    world.broadcast_text(stem_, 0);
  }

  void run() {
    if (!check_writable()) return;
    const bool is_shared = world_.topology().num_hosts() == 1 || check_shared();
    check_speed();
    check_locks(is_shared);
    check_rename(is_shared);
  }

 private:
  // A text of each host's first rank, from an action that returns one.
  std::vector<std::string> on_each_host(const std::function<std::string()>& action) {
    std::string text;
    if (is_leader_) {
      const std::string problem = attempt([&] { text = action(); });
      if (!problem.empty()) text = problem;
    }
    return texts_of(world_, leaders_, text);
  }
  const std::string& host(std::size_t index) const { return diagnosis_.hosts[index].name; }
  std::string own_path(const std::string& use) const {
    return fmt::format("{}-{}-{}", stem_, use, world_.topology().host());
  }

  bool check_writable() {
    const std::vector<std::string> problems = on_each_host([&] {
      const Scratch scratch(own_path("write"), O_RDWR | O_CREAT);
      return std::string();
    });
    bool all = true;
    for (std::size_t i = 0; i < problems.size(); ++i) {
      if (problems[i].empty()) continue;
      all = false;
      diagnosis_.add(Grade::fail, "folder", fmt::format("{}: {}", host(i), problems[i]),
                     "name a folder that exists on all hosts and can be written: --folder");
    }
    return all;
  }

  bool check_shared() {
    std::unique_ptr<Scratch> token;
    if (world_.rank() == 0)
      attempt([&] { token = std::make_unique<Scratch>(stem_ + "-shared", O_RDWR | O_CREAT); });
    world_.barrier();
    const std::vector<std::string> seen = on_each_host([&] {
      return std::string(::access((stem_ + "-shared").c_str(), F_OK) == 0 ? "yes" : "no");
    });
    world_.barrier();
    std::vector<std::string> blind;
    for (std::size_t i = 0; i < seen.size(); ++i)
      if (seen[i] != "yes") blind.push_back(host(i));
    if (blind.empty()) {
      diagnosis_.add(Grade::ok, "folder", folder_ + " is the same on all hosts");
      return true;
    }
    diagnosis_.add(Grade::fail, "folder",
                   fmt::format("{} of {} is another one on {}", folder_, host(0), list_of(blind)),
                   "checkpoints need a folder that all hosts share (NFS, Lustre, ...): run.output");
    return false;
  }

  void check_speed() {
    Speed speed;
    world_.barrier();
    const std::vector<std::string> problems = on_each_host([&] {
      speed = measure_speed(own_path("speed"), free_bytes(folder_));
      return std::string();
    });
    double mine[2] = {speed.write, speed.read};
    const std::vector<std::string> names = on_each_host([&] {
      return fmt::format("{} on {}, {} free", folder_, file_system_of(folder_),
                         size_text(free_bytes(folder_)));
    });
    for (std::size_t i = 0; i < leaders_.size(); ++i) {
      double both[2] = {0, 0};
      if (world_.rank() == leaders_[i]) std::copy(mine, mine + 2, both);
      world_.all_reduce_values(both, ReduceOp::sum);
      judge_speed(i, problems[i], names[i], {both[0], both[1]});
    }
  }

  void judge_speed(std::size_t index, const std::string& problem, const std::string& name,
                   Speed speed) {
    if (!problem.empty()) {
      diagnosis_.add(Grade::fail, "disk", fmt::format("{}: {}", host(index), problem),
                     "make room, or name another folder: --folder");
      return;
    }
    diagnosis_.disks.push_back({host(index), speed.write, speed.read});
    const std::string text = fmt::format("{}: {}: write with fsync {}, read {}{}", host(index),
                                         name, rate_text(speed.write), rate_text(speed.read),
                                         leaders_.size() > 1 ? " (all hosts at once)" : "");
    if (name.find(" on tmpfs") != std::string::npos)
      diagnosis_.add(Grade::warn, "disk", text + "; it is gone after a restart of the host",
                     "write checkpoints to a disk: run.output");
    else if (speed.write < slow_disk)
      diagnosis_.add(Grade::warn, "disk", text,
                     "save less often (checkpoint.every) or to a faster disk (run.output)");
    else
      diagnosis_.add(Grade::ok, "disk", text);
  }

  // The first rank holds both locks while every host, this one with a second descriptor, tries.
  void check_locks(bool is_shared) {
    std::unique_ptr<Scratch> held;
    Lock record = Lock::unsupported;
    Lock file = Lock::unsupported;
    if (world_.rank() == 0)
      attempt([&] {
        held = std::make_unique<Scratch>(stem_ + "-lock", O_RDWR | O_CREAT);
        record = try_record_lock(held->file());
        file = try_file_lock(held->file());
      });
    std::int64_t holder[] = {static_cast<std::int64_t>(record), static_cast<std::int64_t>(file)};
    std::vector<std::int64_t> all(static_cast<std::size_t>(world_.size()) * 2);
    world_.all_gather_values(holder, all);
    const bool is_held = all[0] == static_cast<std::int64_t>(Lock::taken) &&
                         all[1] == static_cast<std::int64_t>(Lock::taken);
    const std::vector<std::string> tries = on_each_host([&]() -> std::string {
      if (!is_held || (!is_shared && world_.rank() != 0)) return "";
      const Scratch again(stem_ + "-lock", O_RDWR);
      std::string open;
      if (try_record_lock(again.file()) != Lock::held) open = "fcntl";
      if (try_file_lock(again.file()) != Lock::held) open += open.empty() ? "flock" : " and flock";
      return open;
    });
    world_.barrier();
    if (!is_held) {
      diagnosis_.add(
          Grade::warn, "locks", folder_ + ": the file system has no file locks",
          "HDF5_USE_FILE_LOCKING=FALSE, and take care that no two jobs share a run.output");
      return;
    }
    std::vector<std::string> broken;
    for (std::size_t i = 0; i < tries.size(); ++i)
      if (!tries[i].empty()) broken.push_back(fmt::format("{} ({})", host(i), tries[i]));
    if (broken.empty())
      diagnosis_.add(
          Grade::ok, "locks",
          fmt::format("file locks hold{}", tries.size() > 1 && is_shared ? " across hosts" : ""));
    else
      diagnosis_.add(Grade::warn, "locks",
                     "a lock of the first rank is not seen on " + list_of(broken),
                     "mount with locks across hosts (Lustre: flock), or take care that no two jobs "
                     "share a run.output");
  }

  // What ends every checkpoint: a synced file takes the place of another.
  void check_rename(bool is_shared) {
    const std::string path = stem_ + "-rename";
    std::string problem;
    double seconds = 0;
    if (world_.rank() == 0)
      problem = attempt([&] {
        write_file_atomically(path, "old");
        const double start = now();
        write_file_atomically(path, "new");
        seconds = now() - start;
      });
    world_.broadcast_text(problem, 0);
    const std::vector<std::string> seen = on_each_host([&] {
      if (!problem.empty() || (!is_shared && world_.rank() != 0)) return std::string("new");
      return read_file(path);
    });
    world_.all_reduce_values({&seconds, 1}, ReduceOp::max);
    if (world_.rank() == 0) ::unlink(path.c_str());
    std::vector<std::string> stale;
    for (std::size_t i = 0; i < seen.size(); ++i)
      if (seen[i] != "new") stale.push_back(host(i));
    if (!problem.empty())
      diagnosis_.add(Grade::fail, "rename", problem, "name another folder: --folder");
    else if (!stale.empty())
      diagnosis_.add(Grade::warn, "rename",
                     "the new file of a rename is not seen at once on " + list_of(stale),
                     "mount without caching of names (NFS: lookupcache=none)");
    else
      diagnosis_.add(Grade::ok, "rename",
                     fmt::format("write, fsync, rename and fsync of the folder take {:.1f} ms",
                                 seconds * 1e3));
  }

  Group& world_;
  const std::string& folder_;
  Diagnosis& diagnosis_;
  std::vector<int> leaders_;
  bool is_leader_ = false;
  std::string stem_;
};

}  // namespace

void check_folder(Group& world, const std::string& folder, Diagnosis& diagnosis) {
  FolderCheck(world, folder, diagnosis).run();
}

}  // namespace switchyard::doctor
