#include "trainer/run/meters/event_file.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <map>
#include <vector>

#include "tensor/error.hpp"
#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

namespace fs = std::filesystem;

// Written from the format, and not from the writer: a message as its fields, numbers as they lie
// there.
struct Field {
  std::uint64_t number = 0;  // of wire type 0
  std::string bytes;         // of wire types 1, 2 and 5
};
using Message = std::multimap<int, Field>;

std::uint64_t read_varint(const std::string& bytes, std::size_t& at) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes.at(at++));
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte < 0x80) return value;
  }
}

Message parse(const std::string& bytes) {
  Message message;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::uint64_t tag = read_varint(bytes, at);
    Field field;
    std::uint64_t size = 0;
    if (tag % 8 == 0) field.number = read_varint(bytes, at);
    if (tag % 8 == 1) size = 8;
    if (tag % 8 == 2) size = read_varint(bytes, at);
    if (tag % 8 == 5) size = 4;
    field.bytes = bytes.substr(at, size);
    EXPECT_EQ(field.bytes.size(), size);
    at += size;
    message.emplace(static_cast<int>(tag / 8), std::move(field));
  }
  return message;
}

const Field& the(const Message& message, int number) {
  EXPECT_EQ(message.count(number), 1U) << "field " << number;
  return message.find(number)->second;
}

template <class Number>
Number number_in(const std::string& bytes, std::size_t at = 0) {
  Number number{};
  std::memcpy(&number, bytes.substr(at, sizeof number).data(), sizeof number);
  return number;
}

std::uint32_t masked_crc(const std::string& bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xA282EAD8U;
}

std::vector<Message> events_in(const std::string& path) {
  const std::string file = contents_of(path);
  std::vector<Message> events;
  for (std::size_t at = 0; at < file.size();) {
    const std::string length = file.substr(at, 8);
    EXPECT_EQ(number_in<std::uint32_t>(file, at + 8), masked_crc(length));
    const auto size = number_in<std::uint64_t>(length);
    const std::string data = file.substr(at + 12, size);
    EXPECT_EQ(number_in<std::uint32_t>(file, at + 12 + size), masked_crc(data));
    events.push_back(parse(data));
    at += 16 + size;
  }
  return events;
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> paths;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

// RFC 3720, appendix B.4, and the check value of the usual catalogues.
TEST(EventFile, ChecksumsAreCrc32c) {
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAU);
  EXPECT_EQ(crc32c(std::string(32, '\xFF')), 0x62A8AB43U);
  EXPECT_EQ(crc32c("123456789"), 0xE3069283U);
  EXPECT_EQ(crc32c(""), 0U);
}

TEST(EventFile, HoldsWhatWasWritten) {
  const TemporaryFolder folder;
  const std::string events_folder = folder / "events";
  {
    EventFile file(events_folder, 7, false);
    StepMetrics step{.step = 7, .loss = 2.5, .grad_norm = std::numeric_limits<double>::infinity()};
    step.part_seconds.emplace();
    (*step.part_seconds)[static_cast<std::size_t>(Part::head)] = 0.25;
    file.write(step);
    file.write(EvaluationMetrics{
        .step = std::int64_t{1} << 40, .validation_loss = 1.75, .validation_accuracy = 0.5});
  }
  const std::vector<std::string> paths = files_in(events_folder);
  ASSERT_EQ(paths.size(), 1U);
  const std::vector<Message> events = events_in(paths.front());
  ASSERT_EQ(events.size(), 4U);
  EXPECT_EQ(the(events[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(the(events[1], 2).number, 7U);
  EXPECT_EQ(the(parse(the(events[1], 7).bytes), 1).number, 1U);  // a session starts

  std::map<std::string, float> values;
  for (const int index : {2, 3}) {
    const Message summary = parse(the(events[static_cast<std::size_t>(index)], 5).bytes);
    for (const auto& [number, field] : summary) {
      const Message value = parse(field.bytes);
      values[the(value, 1).bytes] = number_in<float>(the(value, 2).bytes);
    }
  }
  EXPECT_EQ(the(events[2], 2).number, 7U);
  EXPECT_GT(number_in<double>(the(events[2], 1).bytes), 1.6e9);
  EXPECT_EQ(the(events[3], 2).number, std::uint64_t{1} << 40);
  EXPECT_EQ(values.at("loss/total"), 2.5F);
  EXPECT_EQ(values.at("loss/validation"), 1.75F);
  EXPECT_EQ(values.at("accuracy/validation"), 0.5F);
  EXPECT_EQ(values.at("part_seconds/head"), 0.25F);
  EXPECT_FALSE(values.contains("part_seconds/spill"));
  EXPECT_TRUE(std::isinf(values.at("optimizer/grad_norm")));
}

TEST(EventFile, AnotherCourseLeavesNoFiles) {
  const TemporaryFolder folder;
  { const EventFile first(folder.path(), 1, false); }
  { const EventFile second(folder.path(), 4, false); }
  EXPECT_EQ(files_in(folder.path()).size(), 2U);
  write_contents(folder / "notes.txt", "mine");
  { const EventFile anew(folder.path(), 1, true); }
  EXPECT_EQ(files_in(folder.path()).size(), 2U);  // its own, and what is none of ours
}

TEST(EventFile, AFolderThatCannotBeMadeIsAnIoError) {
  const TemporaryFolder folder;
  write_contents(folder / "file", "");
  EXPECT_THROW(EventFile(folder / "file/events", 1, false), IoError);
}

}  // namespace
}  // namespace switchyard::test
