// Tables of a study: HDF5, CSV, and what is not known.
#include "launch/study/table.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard {
namespace {

Table small_table() {
  Table table;
  table.add_row();
  table.set("point", std::string("a,\"b\""));
  table.set("steps", std::int64_t{3});
  table.add_row();
  table.set("loss", 2.5);
  table.set("point", std::string("ä\nb"));
  table.set("steps", 4.25);  // the column becomes one of numbers
  table.add_row();
  table.set("restarts", std::int64_t{0});
  return table;
}

void expect_small_table(const Table& table) {
  ASSERT_EQ(table.num_rows(), 3u);
  EXPECT_EQ(table.texts("point"), (std::vector<std::string>{"a,\"b\"", "ä\nb", ""}));
  EXPECT_EQ(table.numbers("steps")[0], 3);
  EXPECT_EQ(table.numbers("steps")[1], 4.25);
  EXPECT_TRUE(std::isnan(table.numbers("steps")[2]));
  EXPECT_TRUE(std::isnan(table.numbers("loss")[0]));
  EXPECT_EQ(table.numbers("loss")[1], 2.5);
  EXPECT_TRUE(std::isnan(table.numbers("restarts")[1]));
  EXPECT_EQ(table.numbers("restarts")[2], 0);
}

TEST(StudyTable, ComesBackFromHdf5) {
  const test::TemporaryFolder folder;
  const std::string path = folder.path() + "/study.h5";
  {
    hdf5::File file = hdf5::File::create(path);
    write_table(file, "points", small_table());
    write_table(file, "empty", Table());
    file.close_synced();
  }
  const hdf5::File file = hdf5::File::open(path);
  expect_small_table(read_table(file, "points"));
  EXPECT_EQ(read_table(file, "empty").num_rows(), 0u);
  EXPECT_THROW(file.read_texts("points/loss"), DataError);
}

TEST(StudyTable, ComesBackFromCsv) {
  expect_small_table(table_of_csv(csv_of(small_table()), "study.csv"));
}

TEST(StudyTable, RefusesBrokenCsvWithItsLine) {
  const auto message = [](std::string_view text) {
    try {
      table_of_csv(text, "a.csv");
    } catch (const DataError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(message("a,b\n1,2\n3\n"), "a.csv:3: 1 fields, and the header has 2 names");
  EXPECT_NE(message("a,b\n1,\"2\n").find("a.csv:2: a quote is not closed"), std::string::npos);
  EXPECT_NE(message("a,a\n1,2\n").find("appears twice"), std::string::npos);
}

}  // namespace
}  // namespace switchyard
