#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "launch/doctor/doctor.hpp"
#include "tensor/error.hpp"

namespace switchyard::doctor {

std::string name_of(Grade grade) {
  switch (grade) {
    case Grade::ok:
      return "ok";
    case Grade::warn:
      return "warn";
    case Grade::fail:
      return "fail";
  }
  return "";
}

void Diagnosis::add(Grade grade, std::string what, std::string text, std::string remedy) {
  expect((grade == Grade::ok) == remedy.empty(),
         "a remedy for what is not ok, and none for what is");
  findings.push_back({grade, std::move(what), std::move(text), std::move(remedy)});
}

Grade Diagnosis::worst() const {
  Grade worst = Grade::ok;
  for (const Finding& finding : findings) worst = std::max(worst, finding.grade);
  return worst;
}

std::string to_text(const Diagnosis& diagnosis, int num_ranks) {
  std::string text;
  int num_warnings = 0;
  int num_failures = 0;
  for (const Finding& finding : diagnosis.findings) {
    text += fmt::format("{:<5} {:<12} {}\n", name_of(finding.grade), finding.what, finding.text);
    if (!finding.remedy.empty()) text += fmt::format("{:>20} {}\n", "->", finding.remedy);
    num_warnings += finding.grade == Grade::warn ? 1 : 0;
    num_failures += finding.grade == Grade::fail ? 1 : 0;
  }
  return text + fmt::format("{} on {}: {} checks, {} to warn of, {} failed\n",
                            count_text(num_ranks, "rank"),
                            count_text(std::ssize(diagnosis.hosts), "host"),
                            diagnosis.findings.size(), num_warnings, num_failures);
}

std::string to_json(const Diagnosis& diagnosis) {
  nlohmann::ordered_json json;
  json["worst"] = name_of(diagnosis.worst());
  json["oversubscribed"] = diagnosis.is_oversubscribed;
  json["hosts"] = nlohmann::ordered_json::array();
  for (const Host& host : diagnosis.hosts)
    json["hosts"].push_back({{"name", host.name},
                             {"ranks", host.ranks},
                             {"cores", host.num_cores},
                             {"memory_bytes", host.memory_bytes},
                             {"available_bytes", host.available_bytes}});
  json["links"] = nlohmann::ordered_json::array();
  for (const Link& link : diagnosis.links)
    json["links"].push_back({{"from", link.from},
                             {"to", link.to},
                             {"within_host", link.within_host},
                             {"latency_seconds", link.latency_seconds},
                             {"bytes_per_second", link.bytes_per_second}});
  json["all_to_all"] = {{"bytes", diagnosis.all_to_all.bytes},
                        {"bytes_per_second", diagnosis.all_to_all.bytes_per_second}};
  json["disks"] = nlohmann::ordered_json::array();
  for (const Disk& disk : diagnosis.disks)
    json["disks"].push_back({{"host", disk.host},
                             {"write_bytes_per_second", disk.write_bytes_per_second},
                             {"read_bytes_per_second", disk.read_bytes_per_second}});
  json["findings"] = nlohmann::ordered_json::array();
  for (const Finding& finding : diagnosis.findings)
    json["findings"].push_back({{"grade", name_of(finding.grade)},
                                {"what", finding.what},
                                {"text", finding.text},
                                {"remedy", finding.remedy}});
  return json.dump(2) + "\n";
}

std::vector<std::string> texts_of(Group& world, const std::vector<int>& ranks,
                                  const std::string& mine) {
  std::vector<std::string> texts;
  for (const int rank : ranks) {
    std::string text = mine;
    world.broadcast_text(text, rank);
    texts.push_back(text);
  }
  return texts;
}

std::vector<int> first_ranks(const Topology& topology) {
  std::vector<int> ranks;
  for (int host = 0; host < topology.num_hosts(); ++host)
    ranks.push_back(topology.ranks_of(host).front());
  return ranks;
}

std::string list_of(std::vector<std::string> names, std::size_t most) {
  const std::size_t num_names = names.size();
  names.resize(std::min(num_names, most));
  std::string text = fmt::format("{}", fmt::join(names, ", "));
  if (num_names > most) text += fmt::format(" and {} more", num_names - most);
  return text;
}

std::string count_text(std::int64_t count, const std::string& noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

std::string rate_text(double bytes_per_second) {
  return fmt::format("{:.3g} GB/s", bytes_per_second / 1e9);
}

std::string size_text(std::int64_t bytes) {
  constexpr double gib = 1024.0 * 1024.0 * 1024.0;
  const double size = static_cast<double>(bytes);
  return size >= gib ? fmt::format("{:.1f} GiB", size / gib)
                     : fmt::format("{:.0f} MiB", size / gib * 1024);
}

}  // namespace switchyard::doctor
