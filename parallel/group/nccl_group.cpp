#include "parallel/group/nccl_group.hpp"

#include <algorithm>
#include <optional>
#include <utility>

#include "kernels/cuda/sums/rank_order.hpp"
#include "parallel/group/nccl_communicator.hpp"
#include "parallel/group/rank_runs.hpp"
#include "parallel/group/wire_bytes.hpp"
#include "tensor/cuda/runtime.hpp"
#include "tensor/error.hpp"

namespace switchyard::nccl {

namespace {

// As the MPI group's, whose bits and buffers these are (parallel/group/mpi_exchanges.hpp).
constexpr std::int64_t short_bytes = 16 << 10;
constexpr std::int64_t segment_bytes = 4 << 20;

kernels::cuda::RankReduction reduction_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum:
      return kernels::cuda::RankReduction::sum;
    case ReduceOp::max:
      return kernels::cuda::RankReduction::max;
    case ReduceOp::min:
      return kernels::cuda::RankReduction::min;
  }
  return kernels::cuda::RankReduction::sum;
}

ncclRedOp_t library_op(ReduceOp op) {
  return op == ReduceOp::sum ? ncclSum : op == ReduceOp::max ? ncclMax : ncclMin;
}

// Others' operands of an all-reduce, on the card. One for all groups of a device: their exchanges
// follow each other on its communication stream. Outside the ledger, like NCCL's own buffers.
class Received {
 public:
  explicit Received(int num_ranks)
      : bytes_(std::max(segment_bytes, short_bytes * (num_ranks - 1))) {
    cuda::check(cudaMalloc(&memory_, static_cast<std::size_t>(bytes_)));
  }
  ~Received() { cudaFree(memory_); }
  Received(const Received&) = delete;
  Received& operator=(const Received&) = delete;

  std::byte* data(std::int64_t bytes) const {
    expect(bytes <= bytes_, "room for the others' operands");
    return static_cast<std::byte*>(memory_);
  }

 private:
  std::int64_t bytes_;
  void* memory_ = nullptr;
};

class NcclGroup final : public Group {
 public:
  NcclGroup(Group& below, std::unique_ptr<Group> owned, Device& device, CollectiveLog& log,
            int world_rank, std::shared_ptr<const Received> received)
      : Group(below.name(), below.rank(), below.size(), below.topology()),
        owned_below_(std::move(owned)),
        below_(below),
        device_(device),
        log_(log),
        world_rank_(world_rank),
        received_(std::move(received)) {
    if (size() == 1) return;
    std::vector<std::int64_t> members(static_cast<std::size_t>(size()));
    const std::int64_t mine = world_rank;
    below.all_gather_values({&mine, 1}, members);
    number_in_log_ = log.add_group(name(), static_cast<int>(members.front()), size());
    communicator_.emplace(below, device, log);
  }

  Event start_all_reduce(const TensorView& whole, ReduceOp op) override;
  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override;
  Event start_all_gather(const TensorView& whole) override;
  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView& recv,
                           const RankRows& from) override;
  Event start_broadcast(const TensorView& whole, int root) override;
  Event start_send_receive(const TensorView& send, int to, const TensorView& recv,
                           int from) override;
  void barrier() override { below_.barrier(); }
  void progress() override {
    below_.progress();
    if (communicator_) communicator_->poll();
  }
  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    below_.all_gather_values(mine, all);
  }
  void all_reduce_values(std::span<double> values, ReduceOp op) override {
    below_.all_reduce_values(values, op);
  }
  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override {
    below_.all_reduce_values(values, op);
  }
  void broadcast_text(std::string& text, int root) override { below_.broadcast_text(text, root); }
  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    std::unique_ptr<Group> part = below_.subgroup(std::move(name), partition);
    Group& of_part = *part;
    return std::make_unique<NcclGroup>(of_part, std::move(part), device_, log_, world_rank_,
                                       received_);
  }

 private:
  // Whether the tensors of an exchange lie on the card; one rank has nobody to send to.
  bool is_on_card(const TensorView& view) const {
    return !view.empty() && view.device == &device_ && size() > 1;
  }
  // A rank without rows has tensors without a device, and takes part where the others' rows are: on
  // the card, as the rows of a run all are.
  bool is_of_host(const TensorView& view) const { return !view.empty() && view.device != &device_; }
  void send(const std::byte* data, std::int64_t bytes, int to) {
    if (bytes == 0) return;
    const Library& library = communicator_->library();
    communicator_->check(library.send(data, static_cast<std::size_t>(bytes), ncclInt8, to,
                                      communicator_->handle(), communicator_->stream()),
                         "ncclSend");
  }
  void receive(std::byte* data, std::int64_t bytes, int from) {
    if (bytes == 0) return;
    const Library& library = communicator_->library();
    communicator_->check(library.receive(data, static_cast<std::size_t>(bytes), ncclInt8, from,
                                         communicator_->handle(), communicator_->stream()),
                         "ncclRecv");
  }
  void copy(std::byte* to, const std::byte* from, std::int64_t bytes) {
    cuda::check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                                communicator_->stream()));
  }
  CollectiveRecord enter(Operation operation, std::int64_t sent, std::int64_t received) {
    return log_.enter(number_in_log_, operation, sent, received);
  }
  // The elements [begin(p), begin(p + 1)) of `segment` belong to rank p.
  void all_reduce_segment(std::byte* segment, std::int64_t numel, DType dtype, ReduceOp op);
  void all_reduce_short(std::byte* data, std::int64_t numel, DType dtype, ReduceOp op);
  void reduce(std::byte* own, const std::byte* others, std::int64_t numel, DType dtype,
              ReduceOp op) {
    kernels::cuda::reduce_in_rank_order(device_.communication_stream(),
                                        {.own = own,
                                         .others = others,
                                         .numel = numel,
                                         .dtype = dtype,
                                         .rank = rank(),
                                         .size = size()},
                                        reduction_of(op));
  }
  // Rank p's place among the others.
  std::int64_t place_of(int p) const { return p < rank() ? p : p - 1; }

  std::unique_ptr<Group> owned_below_;  // of a subgroup
  Group& below_;
  Device& device_;
  CollectiveLog& log_;
  int world_rank_;
  std::shared_ptr<const Received> received_;
  std::uint8_t number_in_log_ = 0;
  std::optional<Communicator> communicator_;  // of more than one rank
};

void NcclGroup::all_reduce_short(std::byte* data, std::int64_t numel, DType dtype, ReduceOp op) {
  const std::int64_t bytes = numel * size_of(dtype);
  std::byte* others = received_->data(bytes * (size() - 1));
  communicator_->enqueue([&] {
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      send(data, bytes, p);
      receive(others + place_of(p) * bytes, bytes, p);
    }
  });
  reduce(data, others, numel, dtype, op);
}

void NcclGroup::all_reduce_segment(std::byte* segment, std::int64_t numel, DType dtype,
                                   ReduceOp op) {
  const std::int64_t element = size_of(dtype);
  const auto begin = [&](int p) { return numel * p / size(); };
  const auto bytes = [&](int p) { return (begin(p + 1) - begin(p)) * element; };
  std::byte* own = segment + begin(rank()) * element;
  std::byte* others = received_->data(bytes(rank()) * (size() - 1));
  communicator_->enqueue([&] {
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      send(segment + begin(p) * element, bytes(p), p);
      receive(others + place_of(p) * bytes(rank()), bytes(rank()), p);
    }
  });
  reduce(own, others, begin(rank() + 1) - begin(rank()), dtype, op);
  communicator_->enqueue([&] {
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      send(own, bytes(rank()), p);
      receive(segment + begin(p) * element, bytes(p), p);
    }
  });
}

Event NcclGroup::start_all_reduce(const TensorView& whole, ReduceOp op) {
  if (!is_on_card(whole)) return below_.start_all_reduce(whole, op);
  expect(whole.is_contiguous(), "a contiguous tensor to exchange");
  wire::record(device_, wire::all_reduce(whole.num_bytes(), size()),
               wire::reduce_counts(whole.num_bytes(), size()));
  const CollectiveRecord record =
      enter(Operation::all_reduce, whole.num_bytes(), whole.num_bytes());
  std::byte* data = whole.kernel_bytes();
  if (whole.dtype == DType::i32 || whole.dtype == DType::i64) {
    communicator_->enqueue([&] {
      communicator_->check(communicator_->library().all_reduce(
                               data, data, static_cast<std::size_t>(whole.numel()),
                               whole.dtype == DType::i32 ? ncclInt32 : ncclInt64, library_op(op),
                               communicator_->handle(), communicator_->stream()),
                           "ncclAllReduce");
    });
    return communicator_->under_way(record);
  }
  expect(whole.dtype == DType::f32 || whole.dtype == DType::f64,
         "a reduction of f32, f64, i32 or i64");
  if (whole.num_bytes() <= short_bytes) {
    all_reduce_short(data, whole.numel(), whole.dtype, op);
    return communicator_->under_way(record);
  }
  const std::int64_t element = size_of(whole.dtype);
  const std::int64_t longest = segment_bytes / element;
  for (std::int64_t begin = 0; begin < whole.numel(); begin += longest)
    all_reduce_segment(data + begin * element, std::min(longest, whole.numel() - begin),
                       whole.dtype, op);
  return communicator_->under_way(record);
}

Event NcclGroup::start_reduce_scatter(const TensorView& whole, const TensorView& staging) {
  if (!is_on_card(whole)) return below_.start_reduce_scatter(whole, staging);
  expect(whole.is_contiguous() && staging.is_contiguous(), "contiguous tensors to exchange");
  expect((whole.dtype == DType::f32 || whole.dtype == DType::i64) && staging.dtype == whole.dtype,
         "a reduce-scatter of f32 or i64");
  expect(whole.numel() % size() == 0, "as many equal parts as ranks");
  const std::int64_t part = whole.numel() / size();
  expect(staging.numel() >= part * (size() - 1), "staging for the parts of all other ranks");
  wire::record(device_, wire::reduce_scatter(whole.num_bytes(), size()));
  const CollectiveRecord record =
      enter(Operation::reduce_scatter, whole.num_bytes(), whole.num_bytes());
  const std::int64_t bytes = part * size_of(whole.dtype);
  communicator_->enqueue([&] {
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      send(whole.kernel_bytes() + p * bytes, bytes, p);
      receive(staging.kernel_bytes() + place_of(p) * bytes, bytes, p);
    }
  });
  reduce(whole.kernel_bytes() + rank() * bytes, staging.kernel_bytes(), part, whole.dtype,
         ReduceOp::sum);
  return communicator_->under_way(record);
}

Event NcclGroup::start_all_gather(const TensorView& whole) {
  if (!is_on_card(whole)) return below_.start_all_gather(whole);
  expect(whole.is_contiguous(), "a contiguous tensor to exchange");
  expect(whole.numel() % size() == 0, "as many equal parts as ranks");
  const std::int64_t part = whole.num_bytes() / size();
  wire::record(device_, wire::all_gather(whole.num_bytes(), size()),
               wire::gather_values(part, size()));
  const CollectiveRecord record =
      enter(Operation::all_gather, whole.num_bytes(), whole.num_bytes());
  std::byte* data = whole.kernel_bytes();
  communicator_->enqueue([&] {
    communicator_->check(communicator_->library().all_gather(
                             data + rank() * part, data, static_cast<std::size_t>(part), ncclInt8,
                             communicator_->handle(), communicator_->stream()),
                         "ncclAllGather");
  });
  return communicator_->under_way(record);
}

Event NcclGroup::start_all_to_all_v(const TensorView& send_rows, const RankRows& to,
                                    const TensorView& recv_rows, const RankRows& from) {
  if (is_of_host(send_rows) || is_of_host(recv_rows) || size() == 1)
    return below_.start_all_to_all_v(send_rows, to, recv_rows, from);
  expect_runs_fit(send_rows, to, recv_rows, from, rank(), size());
  expect(send_rows.is_contiguous() && recv_rows.is_contiguous(), "contiguous tensors to exchange");
  const double bytes_sent = wire::all_to_all_v(send_rows, to, rank());
  wire::record(device_, bytes_sent, wire::told_counts(bytes_sent, size()));
  const CollectiveRecord record =
      enter(Operation::all_to_all, rows_in(to) * send_rows.cols() * size_of(send_rows.dtype),
            rows_in(from) * recv_rows.cols() * size_of(recv_rows.dtype));
  communicator_->enqueue([&] {
    for (int p = 0; p < size(); ++p) {
      if (p == rank()) continue;
      for_each_run(send_rows, to, p, [&](std::int64_t offset, std::int64_t bytes) {
        send(send_rows.kernel_bytes() + offset, bytes, p);
      });
      for_each_run(recv_rows, from, p, [&](std::int64_t offset, std::int64_t bytes) {
        receive(recv_rows.kernel_bytes() + offset, bytes, p);
      });
    }
  });
  for_each_own_run(send_rows, to, recv_rows, from, rank(),
                   [&](std::int64_t there, std::int64_t here, std::int64_t bytes) {
                     copy(recv_rows.kernel_bytes() + there, send_rows.kernel_bytes() + here, bytes);
                   });
  return communicator_->under_way(record);
}

Event NcclGroup::start_broadcast(const TensorView& whole, int root) {
  if (!is_on_card(whole)) return below_.start_broadcast(whole, root);
  expect(0 <= root && root < size(), "a root in the group");
  expect(whole.is_contiguous(), "a contiguous tensor to exchange");
  wire::record(device_, wire::broadcast(whole.num_bytes(), size()));
  const CollectiveRecord record = enter(Operation::broadcast, whole.num_bytes(), whole.num_bytes());
  std::byte* data = whole.kernel_bytes();
  communicator_->enqueue([&] {
    communicator_->check(communicator_->library().broadcast(
                             data, data, static_cast<std::size_t>(whole.num_bytes()), ncclInt8,
                             root, communicator_->handle(), communicator_->stream()),
                         "ncclBroadcast");
  });
  return communicator_->under_way(record);
}

Event NcclGroup::start_send_receive(const TensorView& sent, int to, const TensorView& received,
                                    int from) {
  if (is_of_host(sent) || is_of_host(received) || size() == 1)
    return below_.start_send_receive(sent, to, received, from);
  expect(0 <= to && to < size() && 0 <= from && from < size(), "neighbours in the group");
  expect(sent.is_contiguous() && received.is_contiguous(), "contiguous tensors to exchange");
  const CollectiveRecord record =
      enter(Operation::send_receive, sent.num_bytes(), received.num_bytes());
  communicator_->enqueue([&] {
    if (!received.empty() && from != rank())
      receive(received.kernel_bytes(), received.num_bytes(), from);
    if (!sent.empty() && to != rank()) {
      wire::record(device_, static_cast<double>(sent.num_bytes()));
      send(sent.kernel_bytes(), sent.num_bytes(), to);
    }
  });
  if (!sent.empty() && to == rank()) {
    expect(from == rank() && sent.num_bytes() == received.num_bytes(),
           "a rank that sends to itself to receive from itself");
    copy(received.kernel_bytes(), sent.kernel_bytes(), sent.num_bytes());
  }
  return communicator_->under_way(record);
}

}  // namespace

std::unique_ptr<Group> make_group(Group& below, Device& device, CollectiveLog& log,
                                  int world_rank) {
  auto received = below.size() > 1 ? std::make_shared<const Received>(below.size()) : nullptr;
  return std::make_unique<NcclGroup>(below, nullptr, device, log, world_rank, std::move(received));
}

}  // namespace switchyard::nccl
