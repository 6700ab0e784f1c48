#include "data/hdf5/hdf5.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <numeric>
#include <random>

#include "scratch_folder.hpp"

namespace switchyard::hdf5 {
namespace {

class Hdf5 : public ScratchFolder {};

Shape random_shape(std::mt19937& random) {
  const auto dim = [&] { return static_cast<std::int64_t>(random() % 9 + 1); };
  switch (random() % 4) {
    case 0:
      return {dim() * 40};
    case 1:
      return {dim() * 5, dim()};
    case 2:
      return {dim(), dim(), dim()};
    default:
      return {dim(), dim(), dim(), dim()};
  }
}

Box random_box(const Shape& shape, std::mt19937& random) {
  Box box = Box::whole(shape);
  for (int d = 0; d < shape.num_dims(); ++d) {
    const auto i = static_cast<std::size_t>(d);
    box.begin[i] = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(shape[d]));
    box.count[i] = static_cast<std::int64_t>(
        random() % static_cast<std::uint32_t>(shape[d] - box.begin[i] + 1));
  }
  return box;
}

// Visits the row-major offset in `shape` of every element of a box, in the box's own order.
template <class Visit>
void for_each_offset(const Shape& shape, const Box& box, const Visit& visit) {
  for (std::int64_t i = 0; i < box.numel(); ++i) {
    std::int64_t rest = i, offset = 0, stride = 1;
    for (int d = shape.num_dims() - 1; d >= 0; --d) {
      const auto at = static_cast<std::size_t>(d);
      offset += (box.begin[at] + rest % box.count[at]) * stride;
      rest /= box.count[at];
      stride *= shape[d];
    }
    visit(i, static_cast<std::size_t>(offset));
  }
}

TEST_F(Hdf5, BoxesOfAnyShapeComeBackAsWritten) {
  std::mt19937 random(7);
  File file = File::create(path("boxes.h5"));
  for (int round = 0; round < 60; ++round) {
    const Shape shape = random_shape(random);
    std::vector<std::int32_t> oracle(static_cast<std::size_t>(shape.numel()), -1);
    Dataset dataset =
        file.create_dataset("group/round" + std::to_string(round), shape, ElementType::i32,
                            {.layout = round % 3 == 0 ? Layout::contiguous : Layout::chunked,
                             .chunk_bytes = 1 + static_cast<std::int64_t>(random() % 600),
                             .deflate = round % 3 == 1 ? 4 : 0});
    dataset.write_all<std::int32_t>(oracle);
    for (int write = 0; write < 4; ++write) {
      const Box box = random_box(shape, random);
      std::vector<std::int32_t> values(static_cast<std::size_t>(box.numel()));
      std::iota(values.begin(), values.end(), round * 1000 + write * 100);
      dataset.write(box, values.data());
      for_each_offset(shape, box, [&](std::int64_t i, std::size_t offset) {
        oracle[offset] = values[static_cast<std::size_t>(i)];
      });
    }
    EXPECT_EQ(dataset.read_all<std::int32_t>(), oracle) << shape.to_string();

    const Box box = random_box(shape, random);
    std::vector<std::int32_t> part(static_cast<std::size_t>(box.numel()));
    dataset.read(box, part.data());
    for_each_offset(shape, box, [&](std::int64_t i, std::size_t offset) {
      EXPECT_EQ(part[static_cast<std::size_t>(i)], oracle[offset]) << shape.to_string();
    });
  }
}

TEST_F(Hdf5, EveryElementTypeSurvivesReopening) {
  {
    File file = File::create(path("types.h5"));
    const std::vector<float> f32{1.5f, -0.0f, 3e-39f};
    const std::vector<double> f64{1e-300, 2, 3};
    const std::vector<std::int64_t> i64{-1, std::int64_t{1} << 62};
    const std::vector<std::uint16_t> u16{0, 65535};
    const std::vector<std::uint8_t> u8{0, 255};
    const std::vector<std::uint64_t> u64{~std::uint64_t{0}};
    file.create_dataset("f32", {3}, ElementType::f32).write_all<float>(f32);
    file.create_dataset("f64", {3}, ElementType::f64).write_all<double>(f64);
    file.create_dataset("i64", {2}, ElementType::i64).write_all<std::int64_t>(i64);
    file.create_dataset("a/b/u16", {2}, ElementType::u16).write_all<std::uint16_t>(u16);
    file.create_dataset("a/u8", {2}, ElementType::u8).write_all<std::uint8_t>(u8);
    file.create_dataset("u64", {1}, ElementType::u64).write_all<std::uint64_t>(u64);
    file.create_dataset("empty", {0, 4}, ElementType::f32);
    const double scalar = 0.25;
    file.create_dataset("scalar", {}, ElementType::f64).write(&scalar);
    file.close_synced();
  }
  const File file = File::open(path("types.h5"));
  EXPECT_EQ(file.open_dataset("f32").read_all<float>()[2], 3e-39f);
  EXPECT_EQ(file.open_dataset("f64").read_all<double>()[0], 1e-300);
  EXPECT_EQ(file.open_dataset("i64").read_all<std::int64_t>()[1], std::int64_t{1} << 62);
  EXPECT_EQ(file.open_dataset("/a/b/u16").read_all<std::uint16_t>()[1], 65535);
  EXPECT_EQ(file.open_dataset("a/u8").read_all<std::uint8_t>()[1], 255);
  EXPECT_EQ(file.open_dataset("u64").read_all<std::uint64_t>()[0], ~std::uint64_t{0});
  EXPECT_EQ(file.open_dataset("scalar").read_all<double>(), std::vector<double>{0.25});
  EXPECT_EQ(file.open_dataset("empty").shape(), (Shape{0, 4}));
  EXPECT_EQ(file.list(),
            (std::vector<std::string>{"a", "empty", "f32", "f64", "i64", "scalar", "u64"}));
  EXPECT_EQ(file.list_datasets(), (std::vector<std::string>{"/a/b/u16", "/a/u8", "/empty", "/f32",
                                                            "/f64", "/i64", "/scalar", "/u64"}));
  EXPECT_EQ(file.kind("a/b"), ObjectKind::group);
  EXPECT_EQ(file.kind("a/nothing/deeper"), ObjectKind::none);
  EXPECT_TRUE(contains(message_of<DataError>([&] { file.open_dataset("f32").read_all<double>(); }),
                       "stores f32"));
}

TEST_F(Hdf5, AttributesOfFilesAndDatasets) {
  {
    File file = File::create(path("attributes.h5"));
    file.set_attribute("/", "version", std::int64_t{7});
    file.set_attribute("/", "version", std::int64_t{8});  // replaced
    Dataset dataset = file.create_dataset("x", {1}, ElementType::u8);
    dataset.write_all<std::uint8_t>(std::vector<std::uint8_t>{1});
    dataset.set_attribute("dtype", "bf16");
    dataset.set_attribute("nothing", "");
  }
  const File file = File::open(path("attributes.h5"));
  EXPECT_EQ(file.integer_attribute("/", "version"), 8);
  const Dataset dataset = file.open_dataset("x");
  EXPECT_EQ(dataset.string_attribute("dtype"), "bf16");
  EXPECT_EQ(dataset.string_attribute("nothing"), "");
  EXPECT_FALSE(dataset.has_attribute("absent"));
  EXPECT_TRUE(
      contains(message_of<DataError>([&] { dataset.integer_attribute("absent"); }), "x@absent"));
  EXPECT_TRUE(contains(message_of<DataError>([&] { dataset.integer_attribute("dtype"); }),
                       "not an integer"));
}

// A [rows, 6] tensor cut by columns into two files, seen as one.
TEST_F(Hdf5, VirtualDatasetJoinsTwoFiles) {
  const Shape global{5, 6}, left{5, 2}, right{3, 5, 4};
  std::vector<float> whole(30);
  std::iota(whole.begin(), whole.end(), 0.0f);
  {
    File file = File::create(path("left.h5"));
    std::vector<float> values;
    for (std::size_t r = 0; r < 5; ++r)
      for (std::size_t c = 0; c < 2; ++c) values.push_back(whole[r * 6 + c]);
    file.create_dataset("part/w", left, ElementType::f32).write_all<float>(values);
    file.close_synced();
  }
  {
    // The second part is a slice of a dataset with a dim more.
    File file = File::create(path("right.h5"));
    std::vector<float> values(60, -1.0f);
    for (std::size_t r = 0; r < 5; ++r)
      for (std::size_t c = 0; c < 4; ++c) values[20 + r * 4 + c] = whole[r * 6 + 2 + c];
    file.create_dataset("w", right, ElementType::f32).write_all<float>(values);
    file.close_synced();
  }
  {
    VirtualDataset recipe(global, ElementType::f32);
    Box destination = Box::whole(global);
    destination.count[1] = 2;
    recipe.map("left.h5", "/part/w", left, Box::whole(left), destination);
    destination.begin[1] = 2;
    destination.count[1] = 4;
    recipe.map("right.h5", "/w", right, Box::rows(right, 1, 1), destination);
    File file = File::create(path("whole.h5"));
    file.create_dataset("model/w", recipe);
    file.close_synced();
  }
  const File file = File::open(path("whole.h5"));
  const Dataset dataset = file.open_dataset("model/w");
  EXPECT_TRUE(dataset.is_virtual());
  EXPECT_EQ(dataset.read_all<float>(), whole);
  Box box = Box::whole(global);
  box.begin = {1, 1};
  box.count = {3, 3};
  std::vector<float> part(9);
  dataset.read(box, part.data());
  EXPECT_EQ(part, (std::vector<float>{7, 8, 9, 13, 14, 15, 19, 20, 21}));
}

TEST_F(Hdf5, FlippedBitsAndCutFilesAreFound) {
  std::vector<std::int32_t> values(20000);
  std::iota(values.begin(), values.end(), 0);
  {
    File file = File::create(path("good.h5"));
    file.create_dataset("x", {20000}, ElementType::i32, {.chunk_bytes = 8192})
        .write_all<std::int32_t>(values);
    file.close_synced();
  }
  const std::string good = read("good.h5");
  std::mt19937 random(3);
  int num_silent = 0, num_detected = 0;
  for (int trial = 0; trial < 150; ++trial) {
    write("bad.h5", good);
    flip_bit("bad.h5", random() % good.size(), static_cast<int>(random() % 8));
    try {
      const bool is_same =
          File::open(path("bad.h5")).open_dataset("x").read_all<std::int32_t>() == values;
      num_silent += is_same ? 0 : 1;  // equal: the bit was in padding
    } catch (const Error&) {
      ++num_detected;
    }
  }
  EXPECT_EQ(num_silent, 0);
  EXPECT_GT(num_detected, 120);
  write("cut.h5", std::string_view(good).substr(0, good.size() / 2));
  EXPECT_TRUE(
      contains(message_of<DataError>([&] { File::open(path("cut.h5")); }), "cut.h5: cannot open"));
}

TEST_F(Hdf5, ErrorsNameFileAndObjectAndPrintNothing) {
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(contains(message_of<IoError>([&] { File::open(path("absent.h5")); }), "absent.h5"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { File::open(folder_); }), "is not a file"));
  EXPECT_TRUE(contains(message_of<IoError>([&] { File::create(path("no/such/folder.h5")); }),
                       "No such file or directory"));
  write("text.h5", "this is no HDF5 file");
  EXPECT_THROW(File::open(path("text.h5")), DataError);
  {
    File file = File::create(path("file.h5"));
    EXPECT_TRUE(contains(message_of<DataError>([&] { file.open_dataset("a/b"); }), "a/b"));
    file.create_dataset("x", {1}, ElementType::u8);
    EXPECT_TRUE(contains(
        message_of<IoError>([&] { file.create_dataset("x", {1}, ElementType::u8); }), " x: "));
    const Dataset open = file.open_dataset("x");
    EXPECT_THROW(open.read(Box::rows(open.shape(), 1, 1), nullptr), InternalError);
    EXPECT_THROW(file.close_synced(), InternalError);  // a dataset is open
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST_F(Hdf5, ClaimedSizesAreCheckedBeforeMemoryIsAsked) {
  {
    File file = File::create(path("huge.h5"));
    file.create_dataset("x", {std::int64_t{1} << 40}, ElementType::f64);  // never written
  }
  const File file = File::open(path("huge.h5"));
  EXPECT_TRUE(contains(message_of<DataError>([&] { file.open_dataset("x"); }), "it claims"));
}

// Writes 4 MiB with room for 2 and ends in the ordinary way: HDF5's own clean-up runs too.
[[noreturn]] void write_beyond_the_limit(const std::string& path, Layout layout) {
  std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit limit { 2 << 20, 2 << 20 };
  ::setrlimit(RLIMIT_FSIZE, &limit);
  try {
    File file = File::create(path);
    Dataset dataset = file.create_dataset("x", {4 << 20}, ElementType::u8, {.layout = layout});
    const std::vector<std::uint8_t> values(4 << 20, 1);
    dataset.write_all<std::uint8_t>(values);
    dataset = {};
    file.close_synced();
  } catch (const IoError&) {
    std::exit(6);
  }
  std::exit(0);
}

// As on a full disk, where HDF5's own tools crash.
TEST_F(Hdf5, AFailedWriteIsAnErrorAndNoCrash) {
  for (const Layout layout : {Layout::chunked, Layout::contiguous}) {
    const pid_t child = ::fork();
    if (child == 0) write_beyond_the_limit(path("full.h5"), layout);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 6);
  }
}

TEST_F(Hdf5, TextsInDatasets) {
  File file = File::create(path("text.h5"));
  write_text(file, "config", "a: 1\n\xC3\xA4");
  write_text(file, "none", "");
  EXPECT_EQ(read_text(file, "config"), "a: 1\n\xC3\xA4");
  EXPECT_EQ(read_text(file, "none"), "");
}

}  // namespace
}  // namespace switchyard::hdf5
