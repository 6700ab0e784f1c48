// Who started this process, and whether its host is crowded: from the environment alone.
#include "launch/launcher.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "parallel/group/collective_error.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST(Launcher, ReadsSlurmsNotationOfTasks) {
  EXPECT_EQ(num_tasks_on_node("4", 0), 4);
  EXPECT_EQ(num_tasks_on_node("4(x2),3", 0), 4);
  EXPECT_EQ(num_tasks_on_node("4(x2),3", 1), 4);
  EXPECT_EQ(num_tasks_on_node("4(x2),3", 2), 3);
  EXPECT_EQ(num_tasks_on_node("12,1(x10),7", 11), 7);
  for (const char* text : {"4(x2),3", "", "x", "4(x", "4(y2)", "4;5"})
    EXPECT_EQ(num_tasks_on_node(text, 3), 0) << text;
}

TEST(Launcher, TellsHowAPersonStartsAsManyRanks) {
  const auto start = [](const std::string& launcher) {
    return start_of_command({.name = launcher, .rank = 0, .num_ranks = 4}, "a b/switchyard",
                            "train");
  };
  ::unsetenv("PMIX_NAMESPACE");
  ::unsetenv("SWITCHYARD_STARTED_BY");
  EXPECT_EQ(start(""), "'a b/switchyard' train");
  EXPECT_EQ(start("mpirun"), "mpirun -n 4 'a b/switchyard' train");
  EXPECT_EQ(start("srun"), "srun -n 4 'a b/switchyard' train");
  ::setenv("PMIX_NAMESPACE", "slurm.pmix.7.0", 1);
  EXPECT_EQ(start("srun"), "srun --mpi=pmix -n 4 'a b/switchyard' train");
  ::setenv("SWITCHYARD_STARTED_BY", "launch/mpirun.sh -n 4", 1);
  EXPECT_EQ(start("mpirun"), "launch/mpirun.sh -n 4");
  EXPECT_EQ(start(""), "'a b/switchyard' train");
  ::unsetenv("PMIX_NAMESPACE");
  ::unsetenv("SWITCHYARD_STARTED_BY");
}

TEST(Launcher, KnowsTheJobOfSlurmAndHowOftenItWasQueuedAgain) {
  for (const char* name : {"SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"})
    ::unsetenv(name);
  EXPECT_EQ(detect_batch_job().id, "");
  ::setenv("SLURM_JOB_ID", "7", 1);
  EXPECT_EQ(detect_batch_job().id, "Slurm 7");
  EXPECT_EQ(detect_batch_job().num_restarts, 0);
  ::setenv("SLURM_CLUSTER_NAME", "c", 1);
  ::setenv("SLURM_RESTART_COUNT", "2", 1);
  EXPECT_EQ(detect_batch_job().id, "Slurm c 7");
  EXPECT_EQ(detect_batch_job().num_restarts, 2);
  for (const char* name : {"SLURM_JOB_ID", "SLURM_CLUSTER_NAME", "SLURM_RESTART_COUNT"})
    ::unsetenv(name);
}

// The variables of a launcher, as environments of several MPIs show them.
class LauncherTest : public testing::Test {
 protected:
  void TearDown() override {
    for (const std::string& name : names_) ::unsetenv(name.c_str());
  }
  void set(const std::string& name, const std::string& value) {
    ::setenv(name.c_str(), value.c_str(), 1);
    names_.push_back(name);
  }
  // The refusal of a world of one, which names the launcher and the remedy.
  void expect_refused(const std::string& name, const std::string& remedy) {
    const Launcher launcher = detect_launcher();
    EXPECT_EQ(launcher.name, name);
    EXPECT_EQ(launcher.num_ranks, 4);
    EXPECT_EQ(launcher.rank, 2);
    EXPECT_NO_THROW(require_same_world(launcher, 4));
    try {
      require_same_world(launcher, 1);
      ADD_FAILURE() << name << " with a world of one was accepted";
    } catch (const ConfigError& error) {
      const std::string text = error.what();
      EXPECT_NE(dynamic_cast<const KnownToAllRanks*>(&error), nullptr);
      EXPECT_NE(text.find(name + " started 4 ranks, but MPI knows of one only"), std::string::npos)
          << text;
      EXPECT_NE(text.find(remedy), std::string::npos) << text;
    }
  }

 private:
  std::vector<std::string> names_;
};

TEST_F(LauncherTest, TasksOfSrunNeedSomePmiBeforeMpiStarts) {
  set("SLURM_STEP_NUM_TASKS", "4");
  set("SLURM_PROCID", "2");
  EXPECT_THROW(require_pmi(detect_launcher()), ConfigError);
  set("PMIX_RANK", "2");
  EXPECT_NO_THROW(require_pmi(detect_launcher()));
  set("SLURM_STEP_NUM_TASKS", "1");
  ::unsetenv("PMIX_RANK");
  EXPECT_NO_THROW(require_pmi(detect_launcher())) << "one task alone";
}

TEST_F(LauncherTest, SlurmWithoutPmix) {
  set("SLURM_STEP_NUM_TASKS", "4");
  set("SLURM_PROCID", "2");
  expect_refused("srun", "srun --mpi=pmix");
}

TEST_F(LauncherTest, SlurmWithAnotherPmi) {
  set("SLURM_STEP_NUM_TASKS", "4");
  set("SLURM_PROCID", "2");
  set("PMI_SIZE", "4");
  set("PMI_RANK", "2");
  expect_refused("srun", "srun --mpi=pmix");
}

TEST_F(LauncherTest, AnotherMpi) {
  set("SLURM_STEP_NUM_TASKS", "2");  // the proxies of Hydra
  set("SLURM_PROCID", "1");
  set("PMI_SIZE", "4");
  set("PMI_RANK", "2");
  expect_refused("mpiexec", "belongs to another MPI");
}

TEST_F(LauncherTest, AnotherMpiOnThisHost) {
  set("MPI_LOCALNRANKS", "4");
  set("MPI_LOCALRANKID", "2");
  expect_refused("mpiexec", "belongs to another MPI");
}

TEST_F(LauncherTest, AnotherOpenMpi) {
  set("OMPI_COMM_WORLD_SIZE", "4");
  set("OMPI_COMM_WORLD_RANK", "2");
  expect_refused("mpirun", "the mpirun of the same installation");
}

TEST_F(LauncherTest, AProcessAloneIsAWorldOfOne) {
  const Launcher launcher = detect_launcher();
  EXPECT_EQ(launcher.num_ranks, 1);
  EXPECT_NO_THROW(require_same_world(launcher, 1));
  set("SLURM_NTASKS", "4");  // of the job: a batch script is one process
  EXPECT_NO_THROW(require_same_world(detect_launcher(), 1));
}

// A process that srun has started as one of `tasks` on its node.
class CrowdTest : public testing::Test {
 protected:
  void SetUp() override {
    ::unsetenv(yields);
    set("SLURM_NODEID", "1");
    set("SLURM_CPUS_ON_NODE", std::to_string(processors_));
  }
  void TearDown() override {
    for (const char* name : names_) ::unsetenv(name);
    ::unsetenv(yields);
  }
  void set(const char* name, const std::string& value) {
    ::setenv(name, value.c_str(), 1);
    names_.push_back(name);
  }
  // What MPI is told: "1", or "" if nothing.
  std::string told(const std::string& launcher, const std::string& tasks) {
    set("SLURM_STEP_TASKS_PER_NODE", tasks);
    yield_where_crowded({.name = launcher, .rank = 0, .num_ranks = 2});
    const char* value = std::getenv(yields);
    return value == nullptr ? "" : value;
  }

  static constexpr const char* yields = "OMPI_MCA_mpi_yield_when_idle";
  long processors_ = ::sysconf(_SC_NPROCESSORS_ONLN);

 private:
  std::vector<const char*> names_;
};

TEST_F(CrowdTest, AsManyTasksAsProcessorsKeepThem) {
  EXPECT_EQ(told("srun", "1," + std::to_string(processors_)), "");
}

TEST_F(CrowdTest, MoreTasksGiveThemAway) {
  EXPECT_EQ(told("srun", "1," + std::to_string(processors_ + 1)), "1");
}

TEST_F(CrowdTest, WhatIsSetStays) {
  set(yields, "0");
  EXPECT_EQ(told("srun", "1," + std::to_string(processors_ + 1)), "0");
}

TEST_F(CrowdTest, MpirunDecidesItself) {
  EXPECT_EQ(told("mpirun", "1," + std::to_string(processors_ + 1)), "");
}

}  // namespace
}  // namespace switchyard
