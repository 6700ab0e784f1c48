// Safetensors: what is written is read back, each kind of damage is told by its name, numbers of
// all types are converted exactly, and mutated headers are refused or sound.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "data/safetensors/folder.hpp"
#include "data/safetensors/numbers.hpp"
#include "scratch_folder.hpp"
#include "tensor/dtype.hpp"
#include "tensor/error.hpp"

namespace switchyard::safetensors {
namespace {

class Safetensors : public ScratchFolder {
 protected:
  // A file of these bytes of JSON and so many of data.
  std::string write_raw(std::string_view json, std::size_t data_bytes) const {
    std::string content;
    for (std::uint64_t rest = json.size(); content.size() < 8; rest >>= 8)
      content.push_back(static_cast<char>(rest & 0xff));
    return write("a.safetensors", content + std::string(json) + std::string(data_bytes, '\0'));
  }
  std::string refusal(std::string_view json, std::size_t data_bytes) const {
    const std::string file = write_raw(json, data_bytes);
    return message_of<DataError>([&] { File opened(file); });
  }
  std::string write_tensors(const std::string& name, std::vector<TensorInfo> tensors) const {
    Writer writer(path(name), tensors, {{"format", "pt"}});
    for (auto tensor = writer.tensors().rbegin(); tensor != writer.tensors().rend(); ++tensor)
      for (std::int64_t i = 0; i < tensor->num_bytes(); ++i) {
        const auto byte = static_cast<std::byte>(i & 0xff);
        writer.write(*tensor, i, {&byte, 1});
      }
    writer.finish();
    return path(name);
  }
};

TensorInfo tensor(std::string name, ElementType type, std::vector<std::int64_t> shape) {
  return {.name = std::move(name), .type = type, .shape = std::move(shape)};
}

TEST_F(Safetensors, WhatIsWrittenIsReadBack) {
  write_tensors(
      "a.safetensors",
      {tensor("b", ElementType::bf16, {2, 3}), tensor("a\"\xc3\xa9", ElementType::f32, {}),
       tensor("none", ElementType::i64, {0, 4}), tensor("five", ElementType::u8, {1, 1, 2, 1, 1})});
  const File file(path("a.safetensors"));
  ASSERT_EQ(file.tensors().size(), 4u);
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.tensors()[1].name, "a\"\xc3\xa9");
  EXPECT_EQ(file.tensors()[1].numel(), 1);
  EXPECT_EQ(file.tensors()[2].numel(), 0);
  std::vector<std::byte> bytes(4);
  file.read_bytes(file.tensors()[0], 8, bytes);
  EXPECT_EQ(bytes[0], std::byte{8});
  EXPECT_EQ(bytes[3], std::byte{11});
  std::vector<float> numbers(2);
  file.read(file.tensors()[0], 4, numbers);
  EXPECT_EQ(numbers[1], to_float(BFloat16{0x0b0a}));
  EXPECT_TRUE(contains(
      message_of<DataError>([&] { file.read(file.tensors()[3], 0, std::span(numbers)); }), "U8"));
}

TEST_F(Safetensors, DamageIsNamed) {
  const std::string one = R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const File sound(write_raw(one, 8));
  struct Case {
    const char* error;
    std::string json;
    std::size_t data_bytes;
  };
  const Case cases[] = {
      {"MetadataIncompleteBuffer", one, 7},
      {"MetadataIncompleteBuffer", one, 9},
      {"MetadataIncompleteBuffer", "{}", 1},
      {"InvalidHeaderStart", " {}", 0},
      {"InvalidHeaderStart", "", 0},
      {"InvalidHeaderDeserialization", "{", 0},
      {"InvalidHeaderDeserialization", one + "x", 8},
      {"InvalidHeaderDeserialization", R"({"x":1})", 0},
      {"InvalidHeaderDeserialization", R"({"x":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}})",
       8},
      {"InvalidHeaderDeserialization", R"({"x":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})",
       8},
      {"InvalidHeaderDeserialization",
       R"({"x":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8},
      {"InvalidHeaderDeserialization",
       R"({"x":{"dtype":"F32","shape":[[2]],"data_offsets":[0,8]}})", 8},
      {"InvalidHeaderDeserialization", R"({"x":{"dtype":"F32","shape":[2]}})", 8},
      {"InvalidHeaderDeserialization",
       R"({"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8},
      {"InvalidHeaderDeserialization",
       R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"x":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}})",
       16},
      {"InvalidHeaderDeserialization", R"({"__metadata__":{"a":1}})", 0},
      {"TensorInvalidInfo", R"({"x":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8},
      {"InvalidOffset", R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8},
      {"InvalidOffset", R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8},
      {"InvalidOffset", R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12},
      {"InvalidOffset",
       R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
       12},
      {"InvalidOffset",
       R"({"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"y":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})",
       20},
      {"ValidationOverflow",
       R"({"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8},
      {"ValidationOverflow",
       R"({"x":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,8]}})", 8},
  };
  for (const Case& c : cases)
    EXPECT_TRUE(contains(refusal(c.json, c.data_bytes), c.error)) << c.json;
  const auto of_bytes = [&](std::string_view bytes) {
    const std::string file = write("b.safetensors", bytes);
    return message_of<DataError>([&] { File opened(file); });
  };
  EXPECT_TRUE(contains(of_bytes("1234567"), "HeaderTooSmall"));
  EXPECT_TRUE(contains(of_bytes({"\xff\xff\xff\xff\xff\xff\xff\xff", 8}), "HeaderTooLarge"));
  EXPECT_TRUE(contains(of_bytes({"\x01\x00\x00\x00\x00\x00\x00\x00", 8}), "InvalidHeaderLength"));
}

TEST_F(Safetensors, FoldersWithAnIndexAndWithout) {
  const std::vector<TensorInfo> tensors = {tensor("a", ElementType::f32, {2}),
                                           tensor("b", ElementType::f32, {2}),
                                           tensor("c", ElementType::f32, {4})};
  const std::vector<Shard> shards = plan_shards(tensors, 16);
  ASSERT_EQ(shards.size(), 2u);
  EXPECT_EQ(shards[1].file, "model-00002-of-00002.safetensors");
  for (const Shard& shard : shards) write_tensors(shard.file, shard.tensors);
  write(index_name, index_text(shards));
  const Folder folder(temporary_.path());
  EXPECT_EQ(folder.tensors().size(), 3u);
  EXPECT_EQ(folder.num_bytes(), 32);
  EXPECT_EQ(plan_shards(tensors, 1 << 20).front().file, "model.safetensors");

  const auto refusal_of_index = [&](std::string_view map) {
    write(index_name, "{\"weight_map\": {" + std::string(map) + "}}");
    return message_of<DataError>([&] { Folder opened(temporary_.path()); });
  };
  const std::string first = R"("a": "model-00001-of-00002.safetensors")";
  EXPECT_TRUE(contains(refusal_of_index(first), "tensor b"));
  EXPECT_TRUE(contains(refusal_of_index(first + R"(, "z": "model-00001-of-00002.safetensors")"),
                       "tensor z"));
  EXPECT_TRUE(contains(refusal_of_index(R"("a": "model-00003-of-00002.safetensors")"), "missing"));
  EXPECT_TRUE(
      contains(refusal_of_index(R"("a": "../model-00001-of-00002.safetensors")"), "same folder"));
  std::filesystem::remove(path(index_name));
  EXPECT_EQ(Folder(temporary_.path()).tensors().size(), 3u);
  write_tensors("again.safetensors", {tensors[0]});
  EXPECT_TRUE(
      contains(message_of<DataError>([&] { Folder opened(temporary_.path()); }), "tensor a is in"));
}

TEST(SafetensorsNumbers, EveryHalfComesBack) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const float value = float_of_f16(static_cast<std::uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(f16_of_float(value), bits);
    if (bits + 1 >= 0x7c00 || bits == 0x7bff) continue;
    // Halfway between two neighbours: to the even one.
    const float next = float_of_f16(static_cast<std::uint16_t>(bits + 1));
    ASSERT_EQ(f16_of_float((value + next) / 2), bits % 2 == 0 ? bits : bits + 1);
  }
  EXPECT_EQ(f16_of_float(65520.0f), 0x7c00);
  EXPECT_EQ(f16_of_float(65519.0f), 0x7bff);
  EXPECT_EQ(float_of_f16(0x3555), 0.333251953125f);
  EXPECT_TRUE(std::isnan(float_of_f16(f16_of_float(std::numeric_limits<float>::quiet_NaN()))));
}

TEST(SafetensorsNumbers, EightAndFourBits) {
  EXPECT_EQ(float_of_f8_e4m3(0x7e), 448.0f);
  EXPECT_EQ(float_of_f8_e4m3(0x01), 0x1p-9f);
  EXPECT_EQ(float_of_f8_e4m3(0xb8), -1.0f);
  EXPECT_TRUE(std::isnan(float_of_f8_e4m3(0xff)));
  EXPECT_EQ(float_of_f8_e5m2(0x7b), 57344.0f);
  EXPECT_EQ(float_of_f8_e5m2(0x01), 0x1p-16f);
  EXPECT_TRUE(std::isinf(float_of_f8_e5m2(0x7c)));
  std::vector<std::uint8_t> blocks(32);
  blocks[0] = 0x72;   // 1, 6
  blocks[16] = 0xf9;  // -0.5, -6, of the second scale
  std::vector<float> numbers(64);
  mxfp4_to_floats(blocks, std::vector<std::uint8_t>{127, 130}, numbers);
  EXPECT_EQ(numbers[0], 1.0f);
  EXPECT_EQ(numbers[1], 6.0f);
  EXPECT_EQ(numbers[32], -4.0f);
  EXPECT_EQ(numbers[33], -48.0f);
}

// What the fuzzer does at length (safetensors_fuzz.cpp), here with a fixed seed.
TEST(SafetensorsMutations, AreRefusedOrSound) {
  std::vector<TensorInfo> tensors = {tensor("model.embed", ElementType::bf16, {3, 2}),
                                     tensor("model.norm", ElementType::f32, {2}),
                                     tensor("empty", ElementType::u8, {0})};
  const std::string text = write_header(tensors, {{"format", "pt"}});
  const std::string sound = text + std::string(20, '\0');
  std::mt19937 random(7);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  constexpr std::string_view bytes = "{}[]\",:0129-.eE\\u \xff\x80";
  int num_sound = 0, num_refused = 0;
  for (int i = 0; i < 100'000; ++i) {
    std::string file = sound;
    for (std::size_t edits = 1 + below(3); edits > 0; --edits) {
      const std::size_t at = below(file.size());
      switch (below(4)) {
        case 0:
          file[at] = bytes[below(bytes.size())];
          break;
        case 1:
          file[at] = static_cast<char>(file[at] ^ (1 << below(8)));
          break;
        case 2:
          file.erase(at, 1 + below(8));
          break;
        default:
          file.insert(at, file.substr(below(file.size()), below(24)));
      }
      if (file.empty()) break;
    }
    const auto size = std::ssize(file);
    try {
      const std::int64_t length = header_bytes(file, size, "mutated");
      ASSERT_LE(length, size - 8);
      const Header header =
          parse_header(std::string_view(file).substr(8, static_cast<std::size_t>(length)),
                       size - 8 - length, "mutated");
      std::int64_t end = 0;
      for (const TensorInfo& info : header.tensors) {
        ASSERT_EQ(info.begin, end);
        end = info.end;
      }
      ASSERT_EQ(end, size - 8 - length);
      ++num_sound;
    } catch (const DataError&) {
      ++num_refused;
    }
  }
  EXPECT_GT(num_sound, 100);
  EXPECT_GT(num_refused, 50'000);
}

}  // namespace
}  // namespace switchyard::safetensors
