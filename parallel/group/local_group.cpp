#include <algorithm>

#include "kernels/rows/elementwise.hpp"
#include "parallel/group/group.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

// One rank: every exchange is with oneself, and done at once.
class LocalGroup final : public Group {
 public:
  explicit LocalGroup(std::string name) : Group(std::move(name), 0, 1) {}

  Event start_all_reduce(const TensorView&, ReduceOp) override { return {}; }
  Event start_reduce_scatter(const TensorView&, const TensorView&) override { return {}; }
  Event start_all_gather(const TensorView&) override { return {}; }

  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView& recv,
                           const RankRows& from) override {
    expect(to.num_ranks() == 1 && from.num_ranks() == 1 && std::ranges::equal(to.count, from.count),
           "the runs of rows received that are sent");
    for (std::size_t i = 0; i < to.count.size(); ++i)
      move(send.slice_rows(to.first[i], to.first[i] + to.count[i]),
           recv.slice_rows(from.first[i], from.first[i] + from.count[i]));
    return {};
  }

  Event start_broadcast(const TensorView&, int) override { return {}; }

  Event start_send_receive(const TensorView& send, int, const TensorView& recv, int) override {
    move(send, recv);
    return {};
  }

  void barrier() override {}
  void progress() override {}

  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    expect(all.size() == mine.size(), "room for one rank's values");
    std::copy(mine.begin(), mine.end(), all.begin());
  }
  void all_reduce_values(std::span<double>, ReduceOp) override {}
  void all_reduce_values(std::span<std::int64_t>, ReduceOp) override {}
  void broadcast_text(std::string&, int) override {}

  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    expect(partition.size() == 1 && partition[0] == std::vector<int>{0}, "a partition of one rank");
    return make_local_group(std::move(name));
  }

 private:
  static void move(const TensorView& from, const TensorView& to) {
    if (from.empty()) return;
    expect(from.is_contiguous() && to.is_contiguous() && from.dtype == to.dtype &&
               from.numel() == to.numel(),
           "contiguous operands of equal size");
    kernels::copy(from.flat(), to.flat());
  }
};

}  // namespace

std::unique_ptr<Group> make_local_group(std::string name) {
  return std::make_unique<LocalGroup>(std::move(name));
}

}  // namespace switchyard
