// Which course a start belongs to, from marker, checkpoints, checkpoint.resume and job.
#include "trainer/run/course.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"
#include "trainer/checkpoint/manifest.hpp"

namespace switchyard::test {
namespace {

class CourseTest : public ::testing::Test {
 protected:
  // A checkpoint of the course; "": of a version without courses.
  std::string checkpoint(std::int64_t step, const std::string& course) {
    const std::string path = folder_ / ("checkpoints/" + step_folder_name(step));
    std::filesystem::create_directories(path);
    Manifest manifest;
    manifest.state.step = step;
    manifest.num_ranks = 1;
    manifest.course = course;
    write_contents(path + "/manifest.json", to_json(manifest));
    return path;
  }
  Course choose(const std::string& resume, const RunMarker& marker = {}, const BatchJob& job = {}) {
    return choose_course(folder_.path(), marker, {.resume = resume}, job);
  }
  std::string refusal(const std::string& resume, const RunMarker& marker = {},
                      const BatchJob& job = {}) {
    try {
      choose(resume, marker, job);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  }

  TemporaryFolder folder_;
};

TEST_F(CourseTest, AnEmptyFolderGetsANewIdEachTime) {
  const Course first = choose("auto");
  const Course second = choose("never");
  EXPECT_EQ(first.id.size(), 32U);
  EXPECT_NE(first.id, second.id);
  EXPECT_FALSE(
      first.is_new);  // restarts and metrics of starts that came to no checkpoint are its own
  EXPECT_TRUE(second.is_new);
  EXPECT_EQ(choose("auto", {.course = "a", .begun_by = {}}).id, "a");
}

TEST_F(CourseTest, TheFoldersCourseGoesOn) {
  checkpoint(10, "a");
  const std::string newest = checkpoint(20, "a");
  for (const RunMarker& marker : {RunMarker{}, RunMarker{.course = "a", .begun_by = {}}})
    for (const std::string& resume : {std::string("auto"), newest, newest + "/", newest + "/."}) {
      const Course course = choose(resume, marker);
      EXPECT_EQ(course.id, "a");
      EXPECT_FALSE(course.is_new);
      EXPECT_EQ(course.resume, resume);
    }
}

TEST_F(CourseTest, AnotherStartOverCheckpointsIsRefusedWithTheChoices) {
  const std::string older = checkpoint(10, "a");
  checkpoint(20, "a");
  for (const std::string& resume : {std::string("never"), older, older + "/"})
    for (const char* part :
         {"step-00000020", "another run.output", "checkpoint.resume=auto", "remove"})
      EXPECT_NE(refusal(resume).find(part), std::string::npos) << refusal(resume);
}

// Of earlier versions: no marker, no id. They belong to the course that goes on with them.
TEST_F(CourseTest, CheckpointsWithoutAnIdBelongToTheFoldersCourse) {
  checkpoint(10, "");
  const std::string newest = checkpoint(20, "");
  const Course adopted = choose("auto");
  EXPECT_EQ(adopted.id.size(), 32U);
  EXPECT_FALSE(adopted.is_new);
  EXPECT_FALSE(choose(newest).is_new);
  EXPECT_NE(refusal("never"), "");
  checkpoint(30, "a");
  EXPECT_EQ(choose("auto").id, "a");
  EXPECT_EQ(choose("auto", {.course = "a", .begun_by = {}}).id, "a");
}

TEST_F(CourseTest, ADamagedCheckpointIsNoReasonToBeginOver) {
  write_contents(checkpoint(10, "a") + "/manifest.json", "{");
  EXPECT_NE(refusal("never"), "");
  EXPECT_EQ(refusal("auto"), "");
}

TEST_F(CourseTest, CheckpointsOfSeveralCoursesAreRefused) {
  checkpoint(10, "a");
  checkpoint(20, "b");
  EXPECT_NE(refusal("auto").find("step-00000010"), std::string::npos) << refusal("auto");
  const RunMarker marker{.course = "a", .begun_by = {}};
  EXPECT_NE(refusal("auto", marker).find("step-00000020"), std::string::npos);
  EXPECT_NE(refusal("never", marker), "");
}

TEST_F(CourseTest, AJobThatIsQueuedAgainGoesOnWithWhatItBegan) {
  const RunMarker marker{.course = "a", .begun_by = {.id = "Slurm 7", .num_restarts = 1}};
  const auto job = [](const std::string& id, std::int64_t num_restarts) {
    return BatchJob{.id = id, .num_restarts = num_restarts};
  };
  // Before its first checkpoint: once more from where the course began.
  EXPECT_EQ(choose("never", marker, job("Slurm 7", 2)).id, "a");
  EXPECT_EQ(choose("never", marker, job("Slurm 7", 2)).resume, "never");
  EXPECT_FALSE(choose("never", marker, job("Slurm 7", 2)).is_new);
  EXPECT_TRUE(choose("never", marker, job("Slurm 7", 1)).is_new);
  EXPECT_TRUE(choose("never", marker, job("Slurm 8", 2)).is_new);

  checkpoint(10, "a");
  EXPECT_EQ(choose("never", marker, job("Slurm 7", 2)).resume, "auto");
  EXPECT_NE(choose("elsewhere", marker, job("Slurm 7", 3)).note, "");
  EXPECT_NE(refusal("never", marker, job("Slurm 7", 1)), "");  // the same start of the job again
  EXPECT_NE(refusal("never", marker, job("Slurm 8", 2)), "");
  EXPECT_NE(refusal("never", {.course = "a", .begun_by = {}}, job("", 2)), "");
}

TEST_F(CourseTest, TheMarkerReadsBack) {
  EXPECT_FALSE(read_run_marker(folder_.path()));
  write_run_marker(folder_.path(), {});
  EXPECT_EQ(read_run_marker(folder_.path())->course, "");
  write_run_marker(folder_.path(),
                   {.course = "a", .begun_by = {.id = "Slurm c 7", .num_restarts = 3}});
  const auto marker = read_run_marker(folder_.path());
  EXPECT_EQ(marker->course, "a");
  EXPECT_EQ(marker->begun_by.id, "Slurm c 7");
  EXPECT_EQ(marker->begun_by.num_restarts, 3);
  for (const char* text : {"", "{", "[]", "{\"format\": \"other\"}",
                           "{\"format\": \"switchyard run\", \"course\": 3}"}) {
    write_contents(folder_ / "run.json", text);
    EXPECT_FALSE(read_run_marker(folder_.path())) << text;
  }
}

}  // namespace
}  // namespace switchyard::test
