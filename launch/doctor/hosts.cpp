// Hosts, ranks, cores, binding, threads, memory, processors.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>

#include "bench/machine.hpp"
#include "kernels/isa.hpp"
#include "kernels/threads.hpp"
#include "launch/doctor/doctor.hpp"
#include "parallel/cores.hpp"
#include "trainer/memory_limit.hpp"

namespace switchyard::doctor {

namespace {

constexpr std::size_t most_ranks_shown = 32;

// "0-3,6" as Cores::text() writes it.
std::vector<int> processors_in(const std::string& text) {
  std::vector<int> processors;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t stop = std::min(text.find(',', at), text.size());
    const std::string part = text.substr(at, stop - at);
    const std::size_t dash = part.find('-');
    const int first = std::atoi(part.c_str());
    const int last = dash == std::string::npos ? first : std::atoi(part.c_str() + dash + 1);
    for (int i = first; i <= last; ++i) processors.push_back(i);
    at = stop + 1;
  }
  return processors;
}

// Room in /dev/shm; -1 where there is none.
std::int64_t shared_bytes_of_this_host() {
  struct statvfs shared {};
  return statvfs("/dev/shm", &shared) == 0
             ? static_cast<std::int64_t>(shared.f_bavail * shared.f_frsize)
             : -1;
}

struct RankBinding {
  std::vector<int> processors;
  std::string text;
  int num_cores = 0;
  int num_threads = 0;
};

std::vector<RankBinding> bindings_of(Group& world, int num_threads) {
  const Cores cores = Cores::of_this_process();
  std::vector<int> everyone;
  for (int rank = 0; rank < world.size(); ++rank) everyone.push_back(rank);
  const std::vector<std::string> texts = texts_of(world, everyone, cores.text());
  const std::int64_t mine[] = {cores.num_cores, num_threads};
  std::vector<std::int64_t> all(everyone.size() * 2);
  world.all_gather_values(mine, all);
  std::vector<RankBinding> bindings;
  for (std::size_t rank = 0; rank < everyone.size(); ++rank)
    bindings.push_back({processors_in(texts[rank]), texts[rank], static_cast<int>(all[2 * rank]),
                        static_cast<int>(all[2 * rank + 1])});
  return bindings;
}

// Threads of the host's ranks and how many processors they have between them.
struct Load {
  int num_threads = 0;
  std::set<int> processors;
  bool is_bound_apart = true;  // no processor belongs to two ranks
};

Load load_of(const Host& host, const std::vector<RankBinding>& bindings) {
  Load load;
  for (const int rank : host.ranks) {
    const RankBinding& binding = bindings[static_cast<std::size_t>(rank)];
    load.num_threads += binding.num_threads;
    for (const int processor : binding.processors)
      load.is_bound_apart = load.processors.insert(processor).second && load.is_bound_apart;
  }
  return load;
}

std::string describe(const Host& host, const std::vector<RankBinding>& bindings) {
  std::vector<std::string> ranks;
  for (const int rank : host.ranks) {
    const RankBinding& binding = bindings[static_cast<std::size_t>(rank)];
    ranks.push_back(fmt::format("rank {} on {} {}, {}", rank,
                                binding.processors.size() == 1 ? "processor" : "processors",
                                binding.text, count_text(binding.num_threads, "thread")));
  }
  const std::size_t num_hidden =
      ranks.size() > most_ranks_shown ? ranks.size() - most_ranks_shown : 0;
  ranks.resize(ranks.size() - num_hidden);
  return fmt::format("{}: {}{}", host.name, fmt::join(ranks, "; "),
                     num_hidden > 0 ? fmt::format("; and {} ranks more", num_hidden) : "");
}

void judge_binding(const Host& host, const std::vector<RankBinding>& bindings,
                   Diagnosis& diagnosis) {
  const Load load = load_of(host, bindings);
  const std::string text = describe(host, bindings);
  if (load.num_threads > static_cast<int>(load.processors.size())) {
    diagnosis.is_oversubscribed = true;
    diagnosis.add(
        Grade::warn, "binding",
        fmt::format("{}: {} threads share {} processors", text, load.num_threads,
                    load.processors.size()),
        "fewer ranks or threads: launch/mpirun.sh CONFIG -n RANKS gives each rank cores / "
        "RANKS threads");
  } else if (!load.is_bound_apart && host.ranks.size() > 1) {
    diagnosis.add(Grade::warn, "binding", text + ": not bound, or bound to the same cores",
                  "bind each rank to cores of its own: launch/mpirun.sh, or srun --cpu-bind=cores");
  } else {
    diagnosis.add(Grade::ok, "binding", text);
  }
}

// limit: that binds a rank of the host, in words.
void judge_memory(const Host& host, const std::string& limit, std::int64_t shared_bytes,
                  Diagnosis& diagnosis) {
  const std::string text =
      fmt::format("{}: {} free of {}, {}", host.name, size_text(host.available_bytes),
                  size_text(host.memory_bytes), limit);
  if (host.memory_bytes == 0)
    diagnosis.add(Grade::warn, "memory", host.name + ": the system does not tell its memory",
                  "mount /proc");
  else if (host.available_bytes * 10 < host.memory_bytes)
    diagnosis.add(Grade::warn, "memory", text, "end other programs on " + host.name);
  else
    diagnosis.add(Grade::ok, "memory", text);
  constexpr std::int64_t shared_per_rank = 16 << 20;  // Open MPI's segments, with room to spare
  if (shared_bytes < shared_per_rank * std::ssize(host.ranks))
    diagnosis.add(Grade::warn, "memory",
                  fmt::format("{}: /dev/shm has room for {}", host.name,
                              size_text(std::max<std::int64_t>(shared_bytes, 0))),
                  "ranks of a host exchange through it; start the container with --shm-size=1g");
}

// The cores that a host's ranks may use between them.
int cores_of(const Host& host, const std::vector<RankBinding>& bindings) {
  int sum = 0;
  int most = 0;
  for (const int rank : host.ranks) {
    const int num_cores = bindings[static_cast<std::size_t>(rank)].num_cores;
    sum += num_cores;
    most = std::max(most, num_cores);
  }
  return load_of(host, bindings).is_bound_apart ? sum : most;
}

void judge_host(const Host& host, const std::string& processor, double load, Diagnosis& diagnosis) {
  const std::string text = fmt::format(
      "{}: {} ({}) on {}, {}", host.name, count_text(std::ssize(host.ranks), "rank"),
      host.ranks.size() == 1 ? std::to_string(host.ranks.front())
                             : fmt::format("{} ... {}", host.ranks.front(), host.ranks.back()),
      count_text(host.num_cores, "core"), processor);
  // This job has only begun: the load of the last minute is others'.
  if (load > 0.5 * host.num_cores)
    diagnosis.add(Grade::warn, "host",
                  fmt::format("{}; {:.1f} other programs want to run", text, load),
                  "end them, or take whole hosts; what is measured below is low");
  else
    diagnosis.add(Grade::ok, "host", text);
}

double load_of_this_host() {
  double load = 0;
  std::ifstream file("/proc/loadavg");
  return file >> load ? load : 0;
}

}  // namespace

void check_hosts(Group& world, Diagnosis& diagnosis) {
  const Topology& topology = world.topology();
  const int num_cores = num_cores_for_rank(world);  // what train takes unless it is told
  const int num_threads =
      std::getenv("OMP_NUM_THREADS") != nullptr ? kernels::num_threads() : num_cores;
  const std::vector<RankBinding> bindings = bindings_of(world, num_threads);
  const AvailableMemory memory = available_memory();
  const MemoryLimit of_rank = memory.for_each_of(topology.num_local_ranks());
  constexpr std::size_t num_figures = 4;
  const std::int64_t mine[num_figures] = {memory.shared.total, memory.shared.available,
                                          shared_bytes_of_this_host(),
                                          std::llround(100 * load_of_this_host())};
  std::vector<std::int64_t> figures(static_cast<std::size_t>(world.size()) * num_figures);
  world.all_gather_values(mine, figures);
  const std::vector<int> leaders = first_ranks(topology);
  const std::vector<std::string> processors = texts_of(world, leaders, bench::processor_name());
  const std::vector<std::string> limits = texts_of(
      world, leaders,
      fmt::format("{} for each of its ranks by {}", size_text(of_rank.available), of_rank.name));

  for (int index = 0; index < topology.num_hosts(); ++index) {
    const std::size_t place = static_cast<std::size_t>(index);
    const std::int64_t* const told =
        figures.data() + static_cast<std::size_t>(leaders[place]) * num_figures;
    Host host{.name = topology.name_of(index),
              .ranks = topology.ranks_of(index),
              .memory_bytes = told[0],
              .available_bytes = told[1]};
    host.num_cores = cores_of(host, bindings);
    judge_host(host, processors[place], static_cast<double>(told[3]) / 100, diagnosis);
    judge_binding(host, bindings, diagnosis);
    judge_memory(host, limits[place], told[2], diagnosis);
    diagnosis.hosts.push_back(std::move(host));
  }
}

void check_processors(Group& world, Diagnosis& diagnosis) {
  const std::int64_t mine = static_cast<std::int64_t>(kernels::active_isa());
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&mine, 1}, all);
  const auto [least, most] = std::minmax_element(all.begin(), all.end());
  const auto name = [](std::int64_t isa) {
    return std::string(kernels::name_of(static_cast<kernels::Isa>(isa)));
  };
  if (*least != *most) {
    diagnosis.add(Grade::warn, "processor",
                  fmt::format("instruction sets from {} (host {}) to {}", name(*least),
                              world.topology().name_of(
                                  world.topology().host_of(static_cast<int>(least - all.begin()))),
                              name(*most)),
                  fmt::format("all ranks wait for the slowest, and bits depend on the host; "
                              "SWITCHYARD_MAX_ISA={} makes them alike",
                              name(*least)));
    return;
  }
  diagnosis.add(Grade::ok, "processor",
                fmt::format("instruction set {}, bf16 products {}", name(mine),
                            kernels::has_bf16_products() ? "native" : "as fp32 products"));
}

}  // namespace switchyard::doctor
