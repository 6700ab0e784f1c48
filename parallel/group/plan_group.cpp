#include <algorithm>
#include <vector>

#include "parallel/group/group.hpp"
#include "parallel/group/wire_bytes.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

class PlanGroup final : public Group {
 public:
  PlanGroup(std::string name, int rank, int size, Device& device)
      : Group(std::move(name), rank, size), device_(device) {
    expect(0 <= rank && rank < size, "a rank inside the planned group");
  }

  Event start_all_reduce(const TensorView& whole, ReduceOp) override {
    if (device_.profile().in_control())
      device_.profile().record(wire::reduce_counts(whole.num_bytes(), size()));
    return record(wire::all_reduce(whole.num_bytes(), size()));
  }

  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override {
    expect(whole.numel() % size() == 0, "as many equal parts as ranks");
    expect(size() == 1 || staging.numel() >= whole.numel() / size() * (size() - 1),
           "staging for the parts of all other ranks");
    return record(wire::reduce_scatter(whole.num_bytes(), size()));
  }

  Event start_all_gather(const TensorView& whole) override {
    expect(whole.numel() % size() == 0, "as many equal parts as ranks");
    if (device_.profile().in_control())
      record_values(static_cast<std::size_t>(whole.num_bytes() / size()));
    return record(wire::all_gather(whole.num_bytes(), size()));
  }

  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView&,
                           const RankRows& from) override {
    const std::size_t num_ranks = static_cast<std::size_t>(size());
    expect(to.count.size() == num_ranks && from.count.size() == num_ranks,
           "one row count for each rank");
    const double bytes = wire::all_to_all_v(send, to.count, rank());
    if (device_.profile().in_control())
      device_.profile().record(
          {.control_bytes = bytes, .control_messages = static_cast<double>(size() - 1)});
    return record(bytes);
  }

  Event start_broadcast(const TensorView& whole, int) override {
    return record(wire::broadcast(whole.num_bytes(), size()));
  }

  Event start_send_receive(const TensorView& send, int to, const TensorView&, int) override {
    return record(to == rank() || send.empty() ? 0.0 : static_cast<double>(send.num_bytes()));
  }

  void barrier() override {}
  void progress() override {}

  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    expect(all.size() == mine.size() * static_cast<std::size_t>(size()),
           "room for all ranks' values");
    record_values(mine.size_bytes());
    for (std::size_t begin = 0; begin < all.size(); begin += mine.size())
      std::copy(mine.begin(), mine.end(), all.begin() + static_cast<std::ptrdiff_t>(begin));
  }

  void all_reduce_values(std::span<double> values, ReduceOp op) override {
    record_values(values.size_bytes());
    if (op != ReduceOp::sum) return;
    for (double& value : values) value *= size();
  }

  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override {
    device_.profile().record(
        wire::reduce_counts(static_cast<std::int64_t>(values.size_bytes()), size()));
    if (op != ReduceOp::sum) return;
    for (std::int64_t& value : values) value *= size();
  }

  void broadcast_text(std::string&, int) override {}

  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    const Place place = place_in(partition);
    return std::make_unique<PlanGroup>(std::move(name), place.index, place.size, device_);
  }

 private:
  // A rank that adds up values in rank order gathers them first.
  void record_values(std::size_t bytes) {
    device_.profile().record(wire::gather_values(static_cast<std::int64_t>(bytes), size()));
  }
  // On the communication stream, behind what the compute stream holds.
  Event record(double wire_bytes) {
    Stream& wires = device_.communication_stream();
    device_.compute_stream().record().wait(wires);
    wire::record(device_, wire_bytes);
    return wires.record();
  }

  Device& device_;
};

}  // namespace

std::unique_ptr<Group> make_plan_group(std::string name, int rank, int size, Device& device) {
  return std::make_unique<PlanGroup>(std::move(name), rank, size, device);
}

}  // namespace switchyard
