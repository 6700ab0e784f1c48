// Latency and bandwidth of pairs of ranks, one pair at a time while the others wait, and the
// exchange of all with all. Measured through Group, so with what training pays itself.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <numeric>

#include "launch/doctor/doctor.hpp"
#include "tensor/tensor.hpp"

namespace switchyard::doctor {

namespace {

constexpr int most_links_within = 8;  // one for each host
constexpr int most_links_between = 16;
constexpr std::int64_t message_bytes = 8 << 20;
constexpr double seconds_a_link = 0.4;
// Below these a link is worth a word: 10 Gbit/s less what protocols take, and a slow memory.
constexpr double slow_between = 1.1e9;
constexpr double slow_within = 1.0e9;

double seconds_of(auto&& call) {
  const auto start = std::chrono::steady_clock::now();
  call();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::vector<Link> links_to_measure(const Topology& topology) {
  std::vector<Link> links;
  for (int host = 0; host < topology.num_hosts() && std::ssize(links) < most_links_within; ++host)
    if (topology.ranks_of(host).size() > 1)
      links.push_back({.from = topology.ranks_of(host)[0],
                       .to = topology.ranks_of(host)[1],
                       .within_host = true});
  const std::vector<int> leaders = first_ranks(topology);
  const int num_hosts = topology.num_hosts();
  std::vector<Link> between;
  for (int host = 0; host < num_hosts; ++host) {
    // All pairs of few hosts, a ring of many.
    const int last = num_hosts <= 5 ? num_hosts - 1 : host + 1;
    for (int other = host + 1; other <= last; ++other)
      between.push_back({.from = leaders[static_cast<std::size_t>(host)],
                         .to = leaders[static_cast<std::size_t>(other % num_hosts)]});
  }
  const std::size_t every = (between.size() + most_links_between - 1) / most_links_between;
  for (std::size_t i = 0; i < between.size(); i += std::max<std::size_t>(every, 1))
    links.push_back(between[i]);
  return links;
}

// One message from rank 0 to rank 1 of the pair.
void send_forward(Group& pair, const TensorView& message) {
  const TensorView nothing = message.slice_rows(0, 0);
  pair.send_receive(pair.rank() == 0 ? message : nothing, 1 - pair.rank(),
                    pair.rank() == 0 ? nothing : message, 1 - pair.rank());
}
void send_back(Group& pair, const TensorView& message) {
  const TensorView nothing = message.slice_rows(0, 0);
  pair.send_receive(pair.rank() == 1 ? message : nothing, 1 - pair.rank(),
                    pair.rank() == 1 ? nothing : message, 1 - pair.rank());
}

// Half a round trip of 4 bytes; the fastest of some rounds, each a mean.
double measure_latency(Group& pair, const TensorView& message) {
  const TensorView small = message.slice_rows(0, 1);
  constexpr int num_rounds = 6;  // the first opens the connection
  constexpr int num_trips = 40;
  double fastest = 1e9;
  for (int round = 0; round < num_rounds; ++round) {
    pair.barrier();
    const double seconds = seconds_of([&] {
      for (int i = 0; i < num_trips; ++i) {
        send_forward(pair, small);
        send_back(pair, small);
      }
    });
    if (round > 0) fastest = std::min(fastest, seconds / (2 * num_trips));
  }
  return fastest;
}

// The fastest of some rounds: other programs only ever slow one down.
double measure_bandwidth(Group& pair, const TensorView& message) {
  const TensorView small = message.slice_rows(0, 1);
  const auto send = [&](std::int64_t count) {
    pair.barrier();
    return seconds_of([&] {
      for (std::int64_t i = 0; i < count; ++i) send_forward(pair, message);
      send_back(pair, small);
    });
  };
  send(1);
  constexpr int num_rounds = 4;
  const std::int64_t mine = std::clamp<std::int64_t>(
      static_cast<std::int64_t>(seconds_a_link / (num_rounds * send(1))), 1, 64);
  std::int64_t counts[2] = {};
  pair.all_gather_values({&mine, 1}, counts);
  double fastest = 0;
  for (int round = 0; round < num_rounds; ++round)
    fastest = std::max(fastest, static_cast<double>(counts[0] * message_bytes) / send(counts[0]));
  return fastest;
}

// Collective over the world; the figures arrive on all ranks.
void measure(Group& world, Link& link, const TensorView& message) {
  std::vector<std::vector<int>> partition = {{link.from, link.to}};
  for (int rank = 0; rank < world.size(); ++rank)
    if (rank != link.from && rank != link.to) partition.push_back({rank});
  const std::unique_ptr<Group> pair = world.subgroup("pair", partition);
  double figures[2] = {0, 0};
  if (pair->size() == 2) {
    figures[0] = measure_latency(*pair, message);
    figures[1] = measure_bandwidth(*pair, message);
    if (pair->rank() == 1) figures[0] = figures[1] = 0;  // the sender's clock counts
  }
  world.all_reduce_values(figures, ReduceOp::sum);
  link.latency_seconds = figures[0];
  link.bytes_per_second = figures[1];
}

void measure_all_to_all(Group& world, Device& device, AllToAll& result) {
  const std::int64_t num_ranks = world.size();
  result.bytes =
      std::max<std::int64_t>(4096, std::min<std::int64_t>(1 << 20, (64 << 20) / num_ranks));
  const std::int64_t row = result.bytes / 4;
  Tensor send(device, Purpose::workspace, DType::f32, {num_ranks, row});
  Tensor recv(device, Purpose::workspace, DType::f32, {num_ranks, row});
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(num_ranks), 1);
  const auto exchange = [&](int count) {
    world.barrier();
    double seconds = seconds_of([&] {
      for (int i = 0; i < count; ++i) world.all_to_all_v(send, rows, recv, rows);
    });
    world.all_reduce_values({&seconds, 1}, ReduceOp::max);
    return seconds;
  };
  exchange(2);
  const double once = exchange(1);
  const int count = static_cast<int>(std::clamp(2 * seconds_a_link / once, 2.0, 200.0));
  result.bytes_per_second =
      static_cast<double>(result.bytes * (num_ranks - 1) * count) / exchange(count);
}

std::string name_of(const Link& link, const Topology& topology) {
  return link.within_host ? topology.name_of(topology.host_of(link.from))
                          : fmt::format("{} to {}", topology.name_of(topology.host_of(link.from)),
                                        topology.name_of(topology.host_of(link.to)));
}

std::string bandwidth_text(const Link& link) {
  std::string text = rate_text(link.bytes_per_second);
  if (!link.within_host) text += fmt::format(" ({:.3g} Gbit/s)", link.bytes_per_second * 8 / 1e9);
  return text;
}

void judge(const Link& link, double median, const Topology& topology, Diagnosis& diagnosis) {
  const std::string text =
      fmt::format("{} (rank {} to {}): latency {:.1f} us, {}", name_of(link, topology), link.from,
                  link.to, link.latency_seconds * 1e6, bandwidth_text(link));
  const std::string what = link.within_host ? "within host" : "between";
  const double slow = link.within_host ? slow_within : slow_between;
  if (link.bytes_per_second < median / 2)
    diagnosis.add(
        Grade::warn, what,
        fmt::format("{}, less than half of the median link ({})", text, rate_text(median)),
        "look for another program, a bad cable or another device on these hosts");
  else if (link.bytes_per_second >= slow)
    diagnosis.add(Grade::ok, what, text);
  else if (link.within_host)
    diagnosis.add(Grade::warn, what, text + ", slow for shared memory",
                  diagnosis.is_oversubscribed ? "ranks wait for a core: start fewer"
                                              : "see single copy and binding above");
  else
    diagnosis.add(Grade::warn, what, text + ", less than a link of 10 Gbit/s",
                  fmt::format("name a faster device (launch/mpirun.sh --device), or keep experts "
                              "within hosts: parallel.expert={}",
                              topology.num_local_ranks()));
}

void judge_links(const Topology& topology, Diagnosis& diagnosis) {
  for (const bool within : {true, false}) {
    std::vector<double> rates;
    for (const Link& link : diagnosis.links)
      if (link.within_host == within) rates.push_back(link.bytes_per_second);
    if (rates.empty()) continue;
    std::sort(rates.begin(), rates.end());
    for (const Link& link : diagnosis.links)
      if (link.within_host == within) judge(link, rates[rates.size() / 2], topology, diagnosis);
  }
}

void judge_all_to_all(Group& world, Diagnosis& diagnosis) {
  const AllToAll& result = diagnosis.all_to_all;
  const std::string text = fmt::format("{} ranks, {} to each other: {} a rank", world.size(),
                                       size_text(result.bytes), rate_text(result.bytes_per_second));
  // One host moves it at the rate of memory; 0.4 GB/s is what was seen without single copies.
  if (world.topology().num_hosts() == 1 && result.bytes_per_second < 0.5e9)
    diagnosis.add(Grade::warn, "all-to-all", text + ", slow for shared memory",
                  diagnosis.is_oversubscribed ? "ranks wait for a core: start fewer"
                                              : "see single copy and binding above");
  else
    diagnosis.add(Grade::ok, "all-to-all", text);
}

}  // namespace

void check_links(Group& world, Diagnosis& diagnosis) {
  if (world.size() == 1) {
    diagnosis.add(Grade::ok, "links",
                  "one rank: nothing to measure; COMMAND=doctor launch/mpirun.sh starts more");
    return;
  }
  const std::unique_ptr<Device> device = make_cpu_device();
  Tensor message(*device, Purpose::workspace, DType::f32, {message_bytes / 4});
  diagnosis.links = links_to_measure(world.topology());
  for (Link& link : diagnosis.links) measure(world, link, message);
  measure_all_to_all(world, *device, diagnosis.all_to_all);
  judge_links(world.topology(), diagnosis);
  judge_all_to_all(world, diagnosis);
}

}  // namespace switchyard::doctor
