// What moves bytes between ranks, and whether ranks of a host can copy from each other directly.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

#include "launch/doctor/doctor.hpp"

namespace switchyard::doctor {

namespace {

std::string describe(const Transport& transport) {
  if (transport.layer.empty())
    return transport.library + ": what moves the bytes is unknown, the library does not tell";
  if (transport.layer == "ucx")
    return fmt::format("{}: ucx{}", transport.library,
                       std::getenv("UCX_NET_DEVICES") != nullptr
                           ? fmt::format(" over {}", std::getenv("UCX_NET_DEVICES"))
                           : " (which device: unknown, UCX chooses)");
  std::string text = fmt::format("{}: {} over {}", transport.library, transport.layer,
                                 transport.carriers.empty()
                                     ? "unknown"
                                     : fmt::format("{}", fmt::join(transport.carriers, ", ")));
  if (transport.has("tcp"))
    text += transport.tcp_devices.empty() ? " (tcp on all devices)"
                                          : fmt::format(" (tcp on {})", transport.tcp_devices);
  return text;
}

// "eth0 10000 Mbit/s": the devices of this host that are up, with the speed where the driver tells.
std::string devices_of_this_host() {
  std::vector<std::string> devices;
  // The kernel's list, one line a device behind two lines of headings.
  std::ifstream list("/proc/net/dev");
  std::string line;
  for (int i = 0; std::getline(list, line); ++i) {
    if (i < 2) continue;
    const std::size_t begin = line.find_first_not_of(' ');
    const std::string name = line.substr(begin, line.find(':') - begin);
    if (name == "lo") continue;
    std::ifstream state("/sys/class/net/" + name + "/operstate");
    std::string word;
    if (state >> word && word == "down") continue;
    std::ifstream speed("/sys/class/net/" + name + "/speed");
    std::int64_t megabits = 0;
    devices.push_back(speed >> megabits && megabits > 0
                          ? fmt::format("{} {} Mbit/s", name, megabits)
                          : name + " (speed not told)");
  }
  return devices.empty() ? "none" : list_of(devices, 6);
}

// Tries to read memory of the first rank of this host as MPI's single copy does; the errno of the
// attempt, 0 if it worked. Collective.
std::int64_t try_direct_read(Group& world) {
  const std::vector<char> mine(4096, static_cast<char>('a' + world.rank() % 26));
  const std::int64_t told[] = {getpid(), reinterpret_cast<std::intptr_t>(mine.data())};
  std::vector<std::int64_t> all(static_cast<std::size_t>(world.size()) * 2);
  world.all_gather_values(told, all);
  const int first = world.topology().local_ranks().front();
  std::int64_t error = 0;
  if (first != world.rank()) {
    const std::size_t at = static_cast<std::size_t>(first) * 2;
    std::vector<char> copy(mine.size());
    iovec local{copy.data(), copy.size()};
    iovec remote{reinterpret_cast<void*>(static_cast<std::intptr_t>(all[at + 1])), copy.size()};
    const ssize_t count = process_vm_readv(static_cast<pid_t>(all[at]), &local, 1, &remote, 1, 0);
    if (count != std::ssize(copy)) error = count < 0 ? errno : EIO;
  }
  world.barrier();  // the first rank's memory stays until all have read it
  return error;
}

void check_direct_copies(Group& world, const Transport& transport, Diagnosis& diagnosis) {
  const Topology& topology = world.topology();
  if (topology.num_hosts() == world.size()) return;  // nobody to copy from
  const std::int64_t error = try_direct_read(world);
  std::vector<std::int64_t> errors(static_cast<std::size_t>(world.size()));
  world.all_gather_values({&error, 1}, errors);
  for (int host = 0; host < topology.num_hosts(); ++host) {
    const std::string& name = diagnosis.hosts[static_cast<std::size_t>(host)].name;
    if (topology.ranks_of(host).size() < 2) continue;
    std::int64_t host_error = 0;
    for (const int rank : topology.ranks_of(host))
      host_error = host_error != 0 ? host_error : errors[static_cast<std::size_t>(rank)];
    if (host_error != 0)
      diagnosis.add(
          Grade::warn, "single copy",
          fmt::format("{}: ranks may not read each other's memory ({}), so each exchange "
                      "within the host is copied twice in small pieces",
                      name, std::strerror(static_cast<int>(host_error))),
          "start the container with --cap-add=SYS_PTRACE, or set kernel.yama.ptrace_scope=0");
    else if (transport.single_copy == "none")
      diagnosis.add(Grade::warn, "single copy",
                    name + ": possible, but Open MPI has it switched off and copies twice",
                    "unset OMPI_MCA_btl_vader_single_copy_mechanism");
    else
      diagnosis.add(
          Grade::ok, "single copy",
          fmt::format("{}: ranks read each other's memory directly{}", name,
                      transport.single_copy.empty() ? "; whether MPI does so is unknown"
                                                    : " (" + transport.single_copy + ")"));
  }
}

}  // namespace

void check_transport(Group& world, Diagnosis& diagnosis) {
  const Transport transport = find_transport();
  const bool has_network = world.topology().num_hosts() > 1;
  const std::vector<std::string> told =
      texts_of(world, first_ranks(world.topology()), describe(transport));
  diagnosis.add(Grade::ok, "transport", told.front());
  // What hosts have in common: those of one rank have no use for shared memory.
  Transport network = transport;
  std::erase_if(network.carriers,
                [](const std::string& carrier) { return carrier == "vader" || carrier == "sm"; });
  const std::vector<std::string> common =
      texts_of(world, first_ranks(world.topology()), describe(network));
  for (std::size_t host = 1; host < told.size(); ++host)
    if (common[host] != common.front())
      diagnosis.add(Grade::warn, "transport",
                    fmt::format("{} differs: {}", diagnosis.hosts[host].name, told[host]),
                    "install the same MPI library and set the same OMPI_MCA_* on all hosts");
  if (has_network) {
    const std::vector<std::string> devices =
        texts_of(world, first_ranks(world.topology()), devices_of_this_host());
    for (std::size_t host = 0; host < devices.size() && host < 8; ++host)
      diagnosis.add(Grade::ok, "devices",
                    fmt::format("{}: {}", diagnosis.hosts[host].name, devices[host]));
  }
  check_direct_copies(world, transport, diagnosis);
}

}  // namespace switchyard::doctor
