#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "bench/machine_rates.hpp"
#include "kernels/products/linear.hpp"
#include "tensor/work_record.hpp"
#include "trainer/pricing/exchange_price.hpp"

namespace switchyard::bench {

namespace {

// An operand of `bytes` and what a collective of it needs.
class Exchange {
 public:
  Exchange(Group& group, Device& device, std::int64_t bytes)
      : group_(group),
        part_(std::max<std::int64_t>(1, bytes / group.size() / 4)),
        whole_(device, Purpose::communication, DType::f32, {part_ * group.size(), 1}),
        other_(device, Purpose::communication, DType::f32, {part_ * group.size(), 1}),
        rows_(static_cast<std::size_t>(group.size()), part_) {}

  double bytes() const { return static_cast<double>(whole_->num_bytes()); }
  void all_reduce() { group_.all_reduce(whole_->flat(), ReduceOp::sum); }
  void reduce_scatter() { group_.reduce_scatter(whole_->flat(), other_->flat()); }
  Event start_reduce_scatter() {
    return group_.start_reduce_scatter(whole_->flat(), other_->flat());
  }
  void all_gather() { group_.all_gather(whole_->flat()); }
  void all_to_all() { group_.all_to_all_v(whole_, rows_, other_, rows_); }
  void send_receive() {
    const int p = group_.size();
    group_.send_receive(whole_->flat(), (group_.rank() + 1) % p, other_->flat(),
                        (group_.rank() + p - 1) % p);
  }
  void values() {
    std::vector<double> values(static_cast<std::size_t>(std::max<std::int64_t>(1, part_ / 2)));
    group_.all_reduce_values(values, ReduceOp::sum);
  }

 private:
  Group& group_;
  std::int64_t part_;
  Tensor whole_, other_;
  std::vector<std::int64_t> rows_;
};

struct Collective {
  const char* name;  // as records have it
  void (Exchange::*run)();
  double share_sent = 1;  // of the bytes, times (P - 1) / P
  bool is_step = false;   // sends all bytes to one rank
  bool is_small = false;  // of a few numbers
};
constexpr std::array<Collective, 6> collectives{{{"all_reduce", &Exchange::all_reduce, 2},
                                                 {"reduce_scatter", &Exchange::reduce_scatter},
                                                 {"all_gather", &Exchange::all_gather},
                                                 {"all_to_all", &Exchange::all_to_all},
                                                 {"send_receive", &Exchange::send_receive, 1, true},
                                                 {"values", &Exchange::values, 1, false, true}}};

// One measurement: messages, bytes and seconds.
struct Sample {
  double messages = 0;
  double bytes = 0;
  double seconds = 0;
};

// seconds = latency * messages + bytes / rate, with the least sum of squared relative errors.
LinkRate fitted(const std::vector<Sample>& samples) {
  double mm = 0, mb = 0, bb = 0, m1 = 0, b1 = 0;
  for (const Sample& each : samples) {
    const double m = each.messages / each.seconds, b = each.bytes / each.seconds;
    mm += m * m;
    mb += m * b;
    bb += b * b;
    m1 += m;
    b1 += b;
  }
  const double determinant = mm * bb - mb * mb;
  double latency = determinant > 0 ? (m1 * bb - b1 * mb) / determinant : 0;
  double slope = determinant > 0 ? (b1 * mm - m1 * mb) / determinant : 0;
  if (latency < 0) {
    latency = 0;
    slope = b1 / bb;
  }
  if (slope <= 0) {  // noise: the largest message alone
    const Sample& last = samples.back();
    slope = last.seconds / last.bytes;
    latency = 0;
  }
  return {latency, 1 / slope};
}

void measure_class(Group& world, Group& group, LinkClass link, std::int64_t ranks_per_host,
                   const MachineOptions& options, MachineSetting& setting) {
  const std::unique_ptr<Device> device = make_cpu_device();
  using Sizes = std::vector<std::int64_t>;
  const Sizes small = {1 << 6, 1 << 10, 1 << 13};
  const Sizes all =
      options.quick ? Sizes{1 << 10, 1 << 20} : Sizes{1 << 10, 1 << 14, 1 << 17, 1 << 20, 8 << 20};
  const int p = group.size();
  QuietTimer timer(world, options.quick ? 0 : 600);
  for (const Collective& collective : collectives) {
    std::vector<Sample> samples;
    for (const std::int64_t size : collective.is_small ? small : all) {
      Exchange exchange(group, *device, size);
      const double seconds = timer.seconds_of(
          {}, [&] { (exchange.*collective.run)(); }, options.quick ? 3 : 7);
      WorkUnit unit;
      unit.kind = collective.name;
      unit.is_exchange = true;
      unit.wire_bytes =
          exchange.bytes() * (collective.is_step ? 1.0 : collective.share_sent * (p - 1) / p);
      unit.ranks = {.size = p, .first = 0, .stride = 1, .rank = 0};
      const LinkBytes bytes = link_bytes(unit, ranks_per_host, DeviceKind::cpu);
      samples.push_back({num_messages(collective.name, p, DeviceKind::cpu),
                         link == LinkClass::within_host ? unit.wire_bytes : bytes.of_host,
                         seconds});
    }
    setting.links[static_cast<std::size_t>(link)][collective.name] = fitted(samples);
  }
}

// k in max(Tc, Tm) + k min(Tc, Tm): gradients are summed while products go on, as in a backward
// pass, which moves messages on between its layers.
double measure_overlap(Group& world, bool quick) {
  const std::unique_ptr<Device> device = make_cpu_device();
  constexpr std::int64_t rows = 256, features = 512;
  kernels::PackedWeight weight(*device, features, features, DType::f32);
  const Tensor values(*device, Purpose::parameter, DType::f32, {features, features});
  weight.pack(values);
  const Tensor x(*device, Purpose::activation, DType::f32, {rows, features});
  const Tensor y(*device, Purpose::activation, DType::f32, {rows, features});
  Exchange exchange(world, *device, 8 << 20);
  QuietTimer timer(world, quick ? 0 : 600);
  const auto seconds_of = [&](const std::function<void()>& call) {
    return timer.seconds_of({}, call, quick ? 3 : 9);
  };
  const auto product = [&] { kernels::linear_forward(x, weight, y); };
  const double once = seconds_of(product);
  const double wires = seconds_of([&] { exchange.reduce_scatter(); });
  const auto count = static_cast<int>(std::clamp(std::round(wires / once), 2.0, 10'000.0));
  const double both = seconds_of([&] {
    Event event = exchange.start_reduce_scatter();
    for (int i = 0; i < count; ++i) {
      product();
      if (i % std::max(1, count / 8) == 0) world.progress();
    }
    event.wait_host();
  });
  const double compute = once * count;
  return std::clamp((both - std::max(compute, wires)) / std::min(compute, wires), 0.0, 2.0);
}

}  // namespace

void measure_links(Group& world, const MachineOptions& options, MachineProfile& profile) {
  MachineSetting& setting = profile.settings.back();
  const Topology& topology = world.topology();
  if (world.size() == 1) {
    profile.not_measured.emplace_back("exchanges: one rank; run it under mpirun, too");
    return;
  }
  options.note("exchanges");
  if (topology.num_hosts() == 1) {
    measure_class(world, world, LinkClass::within_host, world.size(), options, setting);
    profile.not_measured.emplace_back("exchanges between hosts: all ranks were on one");
  } else {
    const std::int64_t ranks_per_host = topology.num_local_ranks();
    measure_class(world, world, LinkClass::between_hosts, ranks_per_host, options, setting);
    const std::unique_ptr<Group> local = world.subgroup("host", topology.partition());
    if (local->size() > 1)
      measure_class(world, *local, LinkClass::within_host, ranks_per_host, options, setting);
    else
      profile.not_measured.emplace_back("exchanges within a host: each had one rank");
  }
  setting.overlap_slowdown = measure_overlap(world, options.quick);
}

}  // namespace switchyard::bench
