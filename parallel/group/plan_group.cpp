#include <algorithm>
#include <vector>

#include "parallel/group/group.hpp"
#include "parallel/group/wire_bytes.hpp"
#include "tensor/error.hpp"
#include "tensor/work_record.hpp"

namespace switchyard {

namespace {

// An exchange of a record that is kept (tensor/work_record.hpp): who waits for it is noted. On the
// CPU the host waits, whatever stream is to go on; on a card the exchanges of the communication
// stream follow each other by themselves.
class NotedExchange final : public Event::Pending {
 public:
  NotedExchange(Device& device, std::int64_t number) : device_(device), number_(number) {}
  bool test() override { return false; }  // nobody knows when
  void wait_host() override { device_.profile().note_wait(number_); }
  void wait(Stream& stream) override {
    if (device_.target().device == DeviceKind::cuda && &stream == &device_.communication_stream())
      return;
    wait_host();
  }

 private:
  Device& device_;
  std::int64_t number_;
};

class PlanGroup final : public Group {
 public:
  PlanGroup(std::string name, const ExchangeRanks& ranks, int rank, Device& device)
      : Group(std::move(name), rank, ranks.size), ranks_(ranks), device_(device) {
    expect(0 <= rank && rank < ranks.size, "a rank inside the planned group");
  }

  Event start_all_reduce(const TensorView& whole, ReduceOp) override {
    return record("all_reduce", wire::all_reduce(whole.num_bytes(), size()),
                  wire::reduce_counts(whole.num_bytes(), size()));
  }

  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override {
    expect(whole.numel() % size() == 0, "as many equal parts as ranks");
    expect(size() == 1 || staging.numel() >= whole.numel() / size() * (size() - 1),
           "staging for the parts of all other ranks");
    return record("reduce_scatter", wire::reduce_scatter(whole.num_bytes(), size()));
  }

  Event start_all_gather(const TensorView& whole) override {
    expect(whole.numel() % size() == 0, "as many equal parts as ranks");
    return record("all_gather", wire::all_gather(whole.num_bytes(), size()),
                  wire::gather_values(whole.num_bytes() / size(), size()));
  }

  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView&,
                           const RankRows& from) override {
    const std::size_t num_ranks = static_cast<std::size_t>(size());
    expect(to.num_ranks() == num_ranks && from.num_ranks() == num_ranks,
           "row counts for each rank");
    const double bytes = wire::all_to_all_v(send, to, rank());
    return record("all_to_all", bytes, wire::told_counts(bytes, size()));
  }

  Event start_broadcast(const TensorView& whole, int) override {
    return record("broadcast", wire::broadcast(whole.num_bytes(), size()));
  }

  Event start_send_receive(const TensorView& send, int to, const TensorView&, int) override {
    return record("send_receive",
                  to == rank() || send.empty() ? 0.0 : static_cast<double>(send.num_bytes()));
  }

  void barrier() override {}
  void progress() override {}

  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    expect(all.size() == mine.size() * static_cast<std::size_t>(size()),
           "room for all ranks' values");
    record_values(wire::gather_values(static_cast<std::int64_t>(mine.size_bytes()), size()));
    for (std::size_t begin = 0; begin < all.size(); begin += mine.size())
      std::copy(mine.begin(), mine.end(), all.begin() + static_cast<std::ptrdiff_t>(begin));
  }

  void all_reduce_values(std::span<double> values, ReduceOp op) override {
    record_values(wire::gather_values(static_cast<std::int64_t>(values.size_bytes()), size()));
    if (op != ReduceOp::sum) return;
    for (double& value : values) value *= size();
  }

  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override {
    record_values(wire::reduce_counts(static_cast<std::int64_t>(values.size_bytes()), size()));
    if (op != ReduceOp::sum) return;
    for (std::int64_t& value : values) value *= size();
  }

  void broadcast_text(std::string&, int) override {}

  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    const Place place = place_in(partition);
    return std::make_unique<PlanGroup>(std::move(name),
                                       members(partition[static_cast<std::size_t>(place.list)]),
                                       place.index, device_);
  }

 private:
  // Ranks of the job, of members of this group at even distances.
  ExchangeRanks members(const std::vector<int>& of) const {
    const int step = of.size() > 1 ? of[1] - of[0] : 1;
    return {.size = static_cast<int>(of.size()),
            .first = ranks_.first + of.front() * ranks_.stride,
            .stride = step * ranks_.stride,
            .rank = ranks_.rank};
  }

  // Small values of the host, which waits. Those that are summed in rank order are gathered first.
  void record_values(const Work& work) {
    device_.profile().record(work);
    if (!is_noted()) return;
    NotedExchange(device_, note("values", work.control_bytes)).wait_host();
  }

  bool is_noted() const { return size() > 1 && device_.profile().keeps_work(); }
  std::int64_t note(std::string_view kind, double wire_bytes) {
    return device_.profile().note(
        {.kind = kind, .is_exchange = true, .wire_bytes = wire_bytes, .ranks = ranks_});
  }
  // On the communication stream, behind what the compute stream holds.
  Event record(std::string_view kind, double wire_bytes, const Work& control = {}) {
    Stream& wires = device_.communication_stream();
    device_.compute_stream().record().wait(wires);
    wire::record(device_, wire_bytes, control);
    if (is_noted()) return Event(std::make_unique<NotedExchange>(device_, note(kind, wire_bytes)));
    return wires.record();
  }

  ExchangeRanks ranks_;
  Device& device_;
};

}  // namespace

std::unique_ptr<Group> make_plan_group(std::string name, int rank, int size, Device& device) {
  return std::make_unique<PlanGroup>(std::move(name), ExchangeRanks{.size = size, .rank = rank},
                                     rank, device);
}

}  // namespace switchyard
