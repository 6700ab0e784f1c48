// The exchange between ranks: sizes that do not divide, and the check of what arrived.
#include <gtest/gtest.h>

#include "bench/all_to_all.hpp"
#include "tensor/error.hpp"
#include "tests/bench/printed.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {
namespace {

using Json = nlohmann::json;

const RunBenchmark all_to_all = [](const bench::Repeats& repeats, const bench::Output& output) {
  run_all_to_all(world(), {.sizes = {1, 4096, 300'000}}, repeats, output);
};

TEST(AllToAll, EverythingArrives) {
  const std::string text = printed(all_to_all, true);
  if (world().rank() != 0) {
    EXPECT_EQ(text, "");
    return;
  }
  const Json json = Json::parse(text);
  EXPECT_EQ(json.at("benchmark"), "all_to_all");
  ASSERT_EQ(json.at("rows").size(), 3u);
  const int row_bytes = 16 * world().size();
  const int wanted[] = {row_bytes, 4096 / row_bytes * row_bytes, 300'000 / row_bytes * row_bytes};
  for (std::size_t i = 0; i < 3; ++i) {
    const Json& row = json.at("rows")[i];
    EXPECT_EQ(row.at("bytes_per_rank"), wanted[i]);
    EXPECT_EQ(row.at("num_wrong"), 0);
    EXPECT_GT(row.at("ceiling_share"), 0);
    EXPECT_GT(row.at("copy_bytes_per_second"), 0);
    EXPECT_NEAR(row.at("bytes_per_second").get<double>() * row.at("median_seconds").get<double>(),
                wanted[i], 1e-6 * wanted[i]);
  }
}

TEST(AllToAll, TableStatesTheCeilingAndTheCheck) {
  const std::string text = printed(all_to_all, false);
  if (world().rank() != 0) return;
  EXPECT_EQ(count_lines(text, "# copy GB/s: the ceiling"), 1);
  EXPECT_EQ(count_lines(text, "# wrong: "), 1);
  EXPECT_EQ(lines_of(text).back().back(), '0');
}

// A group that delivers one element of every exchange wrong on one rank.
class FaultyGroup final : public Group {
 public:
  explicit FaultyGroup(Group& sound)
      : Group(sound.name(), sound.rank(), sound.size()), sound_(sound) {}
  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView& recv,
                           const RankRows& from) override {
    sound_.start_all_to_all_v(send, to, recv, from).wait_host();
    if (rank() == size() - 1) recv.as<std::int32_t>()[recv.numel() - 1] += 1;
    return {};
  }
  Event start_all_reduce(const TensorView& whole, ReduceOp op) override {
    return sound_.start_all_reduce(whole, op);
  }
  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override {
    return sound_.start_reduce_scatter(whole, staging);
  }
  Event start_all_gather(const TensorView& whole) override {
    return sound_.start_all_gather(whole);
  }
  Event start_broadcast(const TensorView& whole, int root) override {
    return sound_.start_broadcast(whole, root);
  }
  Event start_send_receive(const TensorView& send, int to, const TensorView& recv,
                           int from) override {
    return sound_.start_send_receive(send, to, recv, from);
  }
  void barrier() override { sound_.barrier(); }
  void progress() override { sound_.progress(); }
  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    sound_.all_gather_values(mine, all);
  }
  void all_reduce_values(std::span<double> values, ReduceOp op) override {
    sound_.all_reduce_values(values, op);
  }
  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override {
    sound_.all_reduce_values(values, op);
  }
  void broadcast_text(std::string& text, int root) override { sound_.broadcast_text(text, root); }
  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    return sound_.subgroup(std::move(name), partition);
  }

 private:
  Group& sound_;
};

TEST(AllToAll, WrongElementsAreCountedAndFailTheRun) {
  FaultyGroup faulty(world());
  std::ostringstream stream;
  EXPECT_THROW(run_all_to_all(faulty, {.sizes = {4096, 8192}}, few,
                              {.stream = stream, .json = true, .versions = versions}),
               InternalError);
  if (world().rank() != 0) return;
  for (const Json& row : Json::parse(stream.str()).at("rows")) EXPECT_EQ(row.at("num_wrong"), 1);
}

}  // namespace
}  // namespace switchyard::test
