// Which limit of memory binds: on made-up /proc and /sys/fs/cgroup.
#include "trainer/memory_limit.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "tests/support/temporary_folder.hpp"

namespace switchyard {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t gib = std::int64_t{1} << 30;
constexpr std::int64_t reserve = 128 << 20;  // of a process, for what its libraries map

class MemoryLimitTest : public testing::Test {
 protected:
  void SetUp() override {
    write("/proc/meminfo",
          "MemTotal:       67108864 kB\nMemFree: 1 kB\nMemAvailable: 41943040 kB\n");
    write("/proc/self/limits",
          "Limit                     Soft Limit           Hard Limit           Units\n"
          "Max data size             unlimited            unlimited            bytes\n"
          "Max address space         unlimited            unlimited            bytes\n");
    write("/proc/self/status", "VmPeak:\t 9 kB\nVmSize:\t 1048576 kB\nVmData:\t 524288 kB\n");
  }

  void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(root() + path).parent_path());
    std::ofstream(root() + path) << text;
  }
  void write(const std::string& path, std::int64_t number) { write(path, std::to_string(number)); }

  // The process is in the group /job/step of version 2.
  void make_v2() {
    write("/proc/self/cgroup", "0::/job/step\n");
    write("/proc/self/mountinfo",
          "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n");
    for (const char* group : {"", "/job", "/job/step"}) {
      const std::string folder = std::string("/sys/fs/cgroup") + group;
      if (*group != '\0') write(folder + "/memory.max", "max\n");
      if (*group != '\0') write(folder + "/memory.high", "max\n");
      write(folder + "/memory.current", 12 * gib);
      write(folder + "/memory.stat", "anon 5\nfile 7\ninactive_file " + std::to_string(6 * gib) +
                                         "\nactive_file " + std::to_string(3 * gib) +
                                         "\nslab_reclaimable " + std::to_string(1 * gib) + "\n");
    }
  }

  std::string root() const { return folder_.path(); }
  MemoryLimit limit(int num_ranks = 1) { return available_memory(root()).for_each_of(num_ranks); }
  void expect(const std::string& name, std::int64_t total, std::int64_t available,
              int num_ranks = 1) {
    const MemoryLimit found = limit(num_ranks);
    EXPECT_EQ(found.name, name);
    EXPECT_EQ(found.total, total);
    EXPECT_EQ(found.available, available);
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_F(MemoryLimitTest, OfTheHostIsSharedByItsRanks) {
  expect("the host's memory", 64 * gib, 40 * gib);
  expect("the host's memory", 64 * gib, 10 * gib, 4);
}

TEST_F(MemoryLimitTest, AGroupWithoutLimitsIsNone) {
  make_v2();
  expect("the host's memory", 64 * gib, 40 * gib);
}

// 12 GiB are used, of which 10 are files and caches that the system gives back.
TEST_F(MemoryLimitTest, CachedFilesCountAsAvailable) {
  make_v2();
  write("/sys/fs/cgroup/job/step/memory.max", 16 * gib);
  expect("the control group /job/step (memory.max)", 16 * gib, 14 * gib);
  expect("the control group /job/step (memory.max)", 16 * gib, 7 * gib, 2);
}

TEST_F(MemoryLimitTest, TheTightestGroupAboveBinds) {
  make_v2();
  write("/sys/fs/cgroup/job/step/memory.max", 16 * gib);
  write("/sys/fs/cgroup/job/memory.high", 13 * gib);
  expect("the control group /job (memory.high)", 13 * gib, 11 * gib);
  write("/sys/fs/cgroup/job/memory.current", 30 * gib);  // above its limit: nothing is left
  expect("the control group /job (memory.high)", 13 * gib, 0);
}

TEST_F(MemoryLimitTest, AContainerSeesItsOwnGroupAlone) {
  write("/proc/self/cgroup", "5:cpu,memory:/docker/abc\n3:pids:/docker/abc\n0::/\n");
  write("/proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "36 31 0:33 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n");
  const std::string folder = "/sys/fs/cgroup/memory";
  write(folder + "/memory.limit_in_bytes", "9223372036854771712\n");
  write(folder + "/memory.usage_in_bytes", 3 * gib);
  write(folder + "/memory.stat",
        "inactive_file 1\ntotal_inactive_file " + std::to_string(gib) + "\ntotal_active_file 0\n");
  expect("the host's memory", 64 * gib, 40 * gib);
  write(folder + "/memory.limit_in_bytes", 8 * gib);
  expect("the control group / (memory.limit_in_bytes)", 8 * gib, 6 * gib);
}

TEST_F(MemoryLimitTest, AGroupOutsideOfTheContainerHasNoFolderHere) {
  make_v2();
  write("/proc/self/cgroup", "0::/../other\n");
  write("/sys/fs/cgroup/memory.max", 20 * gib);
  expect("the control group / (memory.max)", 20 * gib, 18 * gib);
}

TEST_F(MemoryLimitTest, UlimitIsOfEachProcess) {
  write("/proc/self/limits",
        "Max data size             unlimited            unlimited            bytes\n"
        "Max address space         8589934592           unlimited            bytes\n");
  expect("ulimit -v", 8 * gib, 7 * gib - reserve);
  expect("ulimit -v", 8 * gib, 7 * gib - reserve, 4);  // 10 GiB of the host each
  expect("the host's memory", 64 * gib, 4 * gib, 10);
  write("/proc/self/limits",
        "Max data size             3221225472           unlimited            bytes\n"
        "Max address space         8589934592           unlimited            bytes\n");
  expect("ulimit -d", 3 * gib, 5 * gib / 2 - reserve);
}

TEST_F(MemoryLimitTest, NothingKnownIsNoLimit) {
  fs::remove_all(root() + "/proc");
  expect("", 0, 0);
}

TEST(MemoryLimit, OfThisMachineIsKnown) {
  const MemoryLimit here = available_memory().for_each_of(1);
  EXPECT_FALSE(here.name.empty());
  EXPECT_GT(here.available, 0);
  EXPECT_LE(here.available, here.total);
}

}  // namespace
}  // namespace switchyard
