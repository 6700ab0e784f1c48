// Checksums of chunks, and chunks that go to a file past HDF5: against HDF5's own.
#include "data/hdf5/chunk_stream.hpp"

#include <algorithm>
#include <random>

#include "data/files/open_file.hpp"
#include "scratch_folder.hpp"

namespace switchyard::hdf5 {
namespace {

using Bytes = std::vector<std::byte>;

// kind 0: any bytes; 1: zeros; 2: ones in every bit, a word that is 0 modulo 65535.
Bytes bytes_of(std::size_t size, int kind, std::mt19937& random) {
  Bytes bytes(size, kind == 2 ? std::byte{255} : std::byte{0});
  if (kind == 0)
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255);
  return bytes;
}

// Word after word, as the formula has it.
std::uint32_t reference(const Bytes& bytes) {
  std::uint64_t first = 0, second = 0;
  const auto modulo = [](std::uint64_t sum) { return sum > 65535 ? sum - 65535 : sum; };
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    first = modulo(first + std::to_integer<std::uint32_t>(bytes[i]) * 256 +
                   std::to_integer<std::uint32_t>(bytes[i + 1]));
    second = modulo(second + first);
  }
  return static_cast<std::uint32_t>(second << 16 | first);
}

TEST(Fletcher32, AnyCutGivesTheChecksumOfTheWhole) {
  std::mt19937 random(3);
  for (const std::size_t size : {0, 2, 62, 64, 66, 1000, 23040, 23042, 100002, 131070 + 64})
    for (const int kind : {0, 1, 2}) {
      const Bytes bytes = bytes_of(size, kind, random);
      const std::size_t cut = size == 0 ? 0 : random() % size / 2 * 2;
      Fletcher32 whole, first, rest, empty;
      whole.add(bytes);
      first.add(std::span(bytes).first(cut));
      rest.add(std::span(bytes).subspan(cut));
      first.add(rest);
      first.add(empty);
      EXPECT_EQ(whole.value(), reference(bytes)) << size << " bytes of kind " << kind;
      EXPECT_EQ(first.value(), reference(bytes)) << size << " bytes of kind " << kind;
    }
}

class ChunkStreamTest : public ScratchFolder {
 protected:
  Dataset dataset_in(File& file, std::int64_t numel, std::int64_t chunk_numel) {
    return file.create_dataset("group/numbers", {numel}, ElementType::f32,
                               {.chunk_bytes = chunk_numel * 4});
  }
};

TEST_F(ChunkStreamTest, WritesTheFileThatHdf5Writes) {
  std::mt19937 random(5);
  for (const std::int64_t numel : {1, 99, 100, 101, 1000, 4321})
    for (const int kind : {0, 1, 2}) {
      Bytes bytes = bytes_of(static_cast<std::size_t>(4 * numel), kind, random);
      const Bytes before = bytes;
      const std::int64_t chunk_numel = std::min<std::int64_t>(numel, 100);
      {
        File plain = File::create(path("plain.h5"));
        dataset_in(plain, numel, chunk_numel).write(bytes.data());
        plain.close();
        File streamed = File::create(path("streamed.h5"));
        ChunkStream stream(dataset_in(streamed, numel, chunk_numel));
        for (std::int64_t at = 0; at < 4 * numel;) {
          const auto length = std::min<std::int64_t>(
              4 * numel - at, 4 * (1 + static_cast<std::int64_t>(random() % 350)));
          const auto piece = std::span(bytes).subspan(static_cast<std::size_t>(at),
                                                      static_cast<std::size_t>(length));
          EXPECT_FALSE(stream.is_whole());
          stream.write(piece, chunk_checksums(at, piece, 4 * chunk_numel));
          at += length;
        }
        EXPECT_TRUE(stream.is_whole());
        stream = {};
        streamed.close();
      }
      EXPECT_EQ(bytes, before);
      EXPECT_EQ(read("plain.h5"), read("streamed.h5")) << numel << " elements of kind " << kind;
      const File file = File::open(path("streamed.h5"));
      const Dataset dataset = file.open_dataset("group/numbers");
      Bytes again(bytes.size());
      dataset.read(again.data());
      EXPECT_EQ(again, bytes);
    }
}

TEST_F(ChunkStreamTest, StoredRunsHoldTheElements) {
  std::vector<float> numbers(350);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<float>(i);
  {
    File file = File::create(path("runs.h5"));
    dataset_in(file, 350, 100).write(numbers.data());
    file.create_dataset("contiguous", {350}, ElementType::f32, {.layout = Layout::contiguous})
        .write(numbers.data());
    file.create_dataset("deflated", {350}, ElementType::f32, {.deflate = 4}).write(numbers.data());
    file.close();
  }
  const File file = File::open(path("runs.h5"));
  const OpenFile raw(path("runs.h5"), OpenFile::Access::read);
  for (const auto& [name, chunk] : {std::pair("group/numbers", 100), std::pair("contiguous", 350)})
    for (const std::int64_t at : {0, 1, 99, 100, 250, 349}) {
      const Dataset::StoredRun run = file.open_dataset(name).stored_run(at);
      EXPECT_EQ(run.numel, std::min<std::int64_t>(chunk - at % chunk, 350 - at)) << name << at;
      std::vector<float> stored(static_cast<std::size_t>(run.numel));
      raw.read_at(run.offset, stored.data(), 4 * run.numel);
      EXPECT_TRUE(std::ranges::equal(
          stored, std::span(numbers).subspan(static_cast<std::size_t>(at), stored.size())))
          << name << at;
    }
  EXPECT_TRUE(contains(message_of<DataError>([&] { file.open_dataset("deflated").stored_run(0); }),
                       "it is not stored as its elements and their checksum"));
}

}  // namespace
}  // namespace switchyard::hdf5
